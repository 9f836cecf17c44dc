//! Deployment files pass the linters of their tools and agree with the program.

use std::process::Command;

use anyhow::{Context, Result};

use crate::prometheus::{is_installed, path};

fn passes(program: &str, arguments: &[&str]) -> Result<()> {
    if !is_installed(program)? {
        return Ok(());
    }
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(path(""))
        .output()?;
    let output =
        String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {output}");
    Ok(())
}

fn python(name: &str) -> String {
    path("tests/.deps/python/bin")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn image_compose_file_and_manifests_pass_their_linters() -> Result<()> {
    passes(&python("hadolint"), &["deploy/Dockerfile"])?;
    for file in ["deploy/compose.yaml", "deploy/compose.cluster.yaml"] {
        let schema = ["--builtin-schema", "vendor.compose-spec", file];
        passes(&python("check-jsonschema"), &schema)?;
    }
    for file in ["deploy/kubernetes.yaml", "deploy/kubernetes-cluster.yaml"] {
        let strictly = ["-k", "1.31", "--strict", "--quiet", file];
        passes(&python("kubernetes-validate"), &strictly)?;
    }
    Ok(())
}

#[test]
fn the_systemd_unit_is_valid_and_hardened() -> Result<()> {
    if !is_installed("systemd-analyze")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let unit = std::fs::read_to_string(path("deploy/tickcast.service"))?;
    let unit = unit.replace("/usr/local/bin/tickcast", env!("CARGO_BIN_EXE_tickcast"));
    let file = folder.path().join("tickcast.service");
    std::fs::write(&file, unit)?;
    let file = file.display().to_string();
    let ran = Command::new("systemd-analyze")
        .args(["verify", "--man=no", &file])
        .output()?;
    let output = String::from_utf8_lossy(&ran.stderr);
    let of_ours: Vec<_> = output
        .lines()
        .filter(|line| line.contains("tickcast.service"))
        .collect();
    assert!(ran.status.success() || of_ours.is_empty(), "{output}");
    passes(
        "systemd-analyze",
        &["security", "--offline=true", "--threshold=20", &file],
    )
}

/// Deployment files start the program with arguments that it has.
#[test]
fn deployment_files_use_existing_arguments() -> Result<()> {
    let help = Command::new(env!("CARGO_BIN_EXE_tickcast"))
        .args(["serve", "--help"])
        .output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for file in [
        "deploy/Dockerfile",
        "deploy/tickcast.service",
        "deploy/kubernetes.yaml",
        "deploy/kubernetes-cluster.yaml",
        "deploy/compose.cluster.yaml",
    ] {
        let text = std::fs::read_to_string(path(file))?;
        let is_own = |line: &&str| {
            let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            words.any(|word| word == "serve")
        };
        let own = text.lines().filter(is_own);
        let words = own.flat_map(|line| {
            line.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'))
        });
        let arguments: Vec<_> = words.filter(|word| word.starts_with("--")).collect();
        assert!(arguments.len() >= 2, "{file}: {arguments:?}");
        for argument in arguments {
            assert!(
                help.contains(argument),
                "{file} uses {argument}, which `tickcast serve` does not have"
            );
        }
    }
    // The admin address is unauthenticated: it is bound to all addresses only inside a network of
    // its own.
    let of = |file: &str| std::fs::read_to_string(path(file));
    for file in [
        "deploy/Dockerfile",
        "deploy/kubernetes.yaml",
        "deploy/kubernetes-cluster.yaml",
        "deploy/tickcast.service",
        "feeds.yaml",
    ] {
        assert!(!of(file)?.contains("0.0.0.0:8081"), "{file}");
    }
    for manifest in ["deploy/kubernetes.yaml", "deploy/kubernetes-cluster.yaml"] {
        assert!(of(manifest)?.contains("kind: NetworkPolicy"), "{manifest}");
    }
    let is_published = |line: &str| line.contains("ports:") && line.contains("8081");
    for file in ["deploy/compose.yaml", "deploy/compose.cluster.yaml"] {
        assert!(!of(file)?.lines().any(is_published), "{file}");
    }
    Ok(())
}

/// Text of a key with a literal block, without its indent.
fn block(file: &str, key: &str) -> Result<String> {
    let text = std::fs::read_to_string(path(file))?;
    let (before, rest) = text
        .split_once(&format!("{key}: |\n"))
        .with_context(|| format!("{file} has no {key}"))?;
    let indent = before.len() - before.trim_end_matches(' ').len();
    let is_inside = |line: &&str| line.is_empty() || line.len() - line.trim_start().len() > indent;
    let lines = rest.lines().take_while(is_inside);
    let inside: Vec<_> = lines.map(str::trim_end).collect();
    let least = inside.iter().filter(|line| !line.is_empty());
    let least = least.map(|line| line.len() - line.trim_start().len()).min();
    let least = least.context("an empty block")?;
    let lines = inside
        .iter()
        .map(|line| line.get(least..).unwrap_or_default());
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

#[test]
fn configs_inside_deployment_files_are_valid() -> Result<()> {
    for (file, keys) in [
        ("deploy/kubernetes.yaml", &["feeds.yaml"][..]),
        (
            "deploy/kubernetes-cluster.yaml",
            &["publisher.yaml", "gateway.yaml"],
        ),
        (
            "deploy/compose.cluster.yaml",
            &[
                "publisher-a:\n    content",
                "publisher-b:\n    content",
                "gateway-a:\n    content",
                "gateway-b:\n    content",
            ],
        ),
    ] {
        for key in keys {
            let config = tickcast::config::Config::parse(&block(file, key)?, file)
                .with_context(|| format!("{file}: {key}"))?;
            assert_eq!(config.cluster.is_some(), file.contains("cluster"), "{file}");
        }
    }
    let servers = [
        ("deploy/kubernetes-cluster.yaml", "nats.conf"),
        ("deploy/compose.cluster.yaml", "nats:\n    content"),
    ];
    for (file, key) in servers {
        let folder = tempfile::tempdir()?;
        let config = folder.path().join("nats.conf");
        std::fs::write(&config, block(file, key)?)?;
        let config = config.display().to_string();
        let server = python("nats-server");
        passes(
            "env",
            &[
                "NATS_PUBLISHER_PASSWORD=a-1",
                "NATS_GATEWAY_PASSWORD=c",
                &server,
                "-t",
                "-c",
                &config,
            ],
        )?;
    }
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("haproxy.cfg");
    let balancer = block("deploy/compose.cluster.yaml", "balancer:\n    content")?;
    let balancer = balancer
        .replace("gateway-a:8080", "127.0.0.1:8080")
        .replace("gateway-b:8080", "127.0.0.1:8080");
    std::fs::write(&config, balancer)?;
    passes("haproxy", &["-c", "-f", &config.display().to_string()])
}
