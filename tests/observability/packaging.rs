//! What is deployed is right by the rules of what reads it, and agrees with the program.

use std::process::Command;

use anyhow::Result;

use crate::prometheus::{has, path};

fn passes(program: &str, arguments: &[&str]) -> Result<()> {
    if !has(program)? {
        return Ok(());
    }
    let ran = Command::new(program)
        .args(arguments)
        .current_dir(path(""))
        .output()?;
    let said =
        String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
    Ok(())
}

fn python(name: &str) -> String {
    path("tests/.deps/python/bin")
        .join(name)
        .display()
        .to_string()
}

#[test]
fn the_image_the_composition_and_the_manifests_are_right_by_their_linters() -> Result<()> {
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
fn the_unit_is_right_and_hardened() -> Result<()> {
    if !has("systemd-analyze")? {
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
    let said = String::from_utf8_lossy(&ran.stderr);
    let of_ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("tickcast.service"))
        .collect();
    assert!(ran.status.success() || of_ours.is_empty(), "{said}");
    passes(
        "systemd-analyze",
        &["security", "--offline=true", "--threshold=20", &file],
    )
}

/// What the deployments start is what the program understands.
#[test]
fn deployments_name_arguments_that_the_program_has() -> Result<()> {
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
                "{file} gives {argument}, which `tickcast serve` doesn't know"
            );
        }
    }
    // The admin address is unauthenticated: only where a network of its own reaches it is it bound
    // to every address.
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
    // The config of the manifest is one.
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
