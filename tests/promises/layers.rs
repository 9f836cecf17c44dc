//! What the compiler doesn't hold: who may use whom, and how large a file grows.

use std::path::Path;

use anyhow::Result;

/// Every Rust file below a folder of the project, with its path and text.
pub(crate) fn sources(folder: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(env!("CARGO_MANIFEST_DIR"))?
                    .display()
                    .to_string();
                found.push((name, std::fs::read_to_string(&path)?));
            }
        }
    }
    Ok(found)
}

/// The part of a file before its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
}

#[test]
fn layers_use_only_what_they_may() -> Result<()> {
    // Where a file lies, and what it must not name.
    let rules: [(&str, &[&str]); 13] = [
        (
            "src/state.rs",
            &[
                "tokio",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
            ],
        ),
        (
            "src/market/",
            &[
                "tokio",
                "crate::bus",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::protocol",
            ],
        ),
        (
            "src/topic.rs",
            &["tokio", "crate::bus", "crate::shard", "crate::protocol"],
        ),
        (
            "src/protocol/",
            &[
                "tokio",
                "crate::bus",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
            ],
        ),
        (
            "src/replica/",
            &[
                "tokio",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
            ],
        ),
        (
            "src/session/",
            &["tokio", "crate::shard", "crate::source", "crate::server"],
        ),
        (
            "src/bus/derive.rs",
            &["tokio", "crate::shard", "crate::session", "crate::source"],
        ),
        (
            "src/bus/",
            &[
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
            ],
        ),
        (
            "src/source/",
            &[
                "crate::shard",
                "crate::session",
                "crate::server",
                "crate::replica::Replica",
            ],
        ),
        (
            "src/shard/",
            &[
                "crate::server",
                "crate::source::sim",
                "crate::source::replay",
                "crate::app",
            ],
        ),
        (
            "src/client/",
            &[
                "crate::bus",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
            ],
        ),
        (
            "src/load/",
            &[
                "crate::bus",
                "crate::shard",
                "crate::session",
                "crate::source",
                "crate::server",
                "crate::config",
            ],
        ),
        ("src/config/", &["tokio", "crate::server", "crate::app"]),
    ];
    for (name, text) in sources("src")? {
        for (place, forbidden) in rules.iter().filter(|(place, _)| name.starts_with(place)) {
            for word in *forbidden {
                let used = product(&text)
                    .lines()
                    .any(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert!(
                    !used || name.ends_with("outbox/tests.rs"),
                    "{name}, under {place}, names {word}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn files_keep_to_their_room() -> Result<()> {
    for (name, text) in sources("src")? {
        let lines = product(&text).lines().count();
        assert!(
            lines <= 640,
            "{name} has {lines} lines: do two ideas share a room?"
        );
    }
    Ok(())
}

#[test]
fn time_is_read_in_one_place() -> Result<()> {
    for (name, text) in sources("src")?
        .iter()
        .filter(|(name, _)| name != "src/clock.rs")
    {
        for word in ["Instant::now", "SystemTime::now"] {
            assert!(
                !product(text).contains(word),
                "{name} reads the time: {word}"
            );
        }
    }
    Ok(())
}
