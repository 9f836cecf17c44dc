//! Deployment files pass the linters of their tools and agree with the program.

use std::process::Command;

use anyhow::Result;

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
    passes(
        &python("check-jsonschema"),
        &[
            "--builtin-schema",
            "vendor.compose-spec",
            "deploy/compose.yaml",
        ],
    )?;
    passes(
        &python("kubernetes-validate"),
        &[
            "-k",
            "1.31",
            "--strict",
            "--quiet",
            "deploy/kubernetes.yaml",
        ],
    )
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
    ] {
        let text = std::fs::read_to_string(path(file))?;
        let own = text.lines().filter(|line| line.contains("serve"));
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
        "deploy/tickcast.service",
        "feeds.yaml",
    ] {
        assert!(!of(file)?.contains("0.0.0.0:8081"), "{file}");
    }
    assert!(of("deploy/kubernetes.yaml")?.contains("kind: NetworkPolicy"));
    let composition = of("deploy/compose.yaml")?;
    let is_published = |line: &str| line.contains("ports:") && line.contains("8081");
    assert!(!composition.lines().any(is_published), "{composition}");
    // The config in the manifest is valid.
    let manifest = std::fs::read_to_string(path("deploy/kubernetes.yaml"))?;
    let config = manifest
        .split("feeds.yaml: |\n")
        .nth(1)
        .unwrap_or_default()
        .split("\n---")
        .next()
        .unwrap_or_default();
    let config: String = config
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    tickcast::config::Config::parse(&config, "kubernetes.yaml")?;
    Ok(())
}
