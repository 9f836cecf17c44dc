//! Consistency of the documents with codes, config keys and metrics.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use tickcast::codec::{decode_request, decode_server_message};
use tickcast::config::{keys, reference};
use tickcast::protocol::{Code, Control, Encoding, LagLevel, ServerMessage};
use tickcast::replay::Skip;
use tickcast::shard::WaitsFor;

use crate::harness::Feed;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const README: &str = include_str!("../../README.md");

#[test]
fn every_error_code_is_in_the_protocol_reference() {
    for code in Code::ALL {
        let row = format!("| {} | `{}` |", code.number(), code.name());
        assert!(
            PROTOCOL.contains(&row),
            "docs/protocol.md does not contain {row}"
        );
    }
}

/// Codes of the admin JSON with their texts in `tickcast top`: exactly those of the operations
/// guide.
#[test]
fn every_code_of_the_admin_json_is_in_the_operations_guide() -> Result<()> {
    let table = OPERATIONS
        .split("| `waits_for` |")
        .nth(1)
        .context("missing table of `waits_for`")?;
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let listed: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let codes = WaitsFor::ALL.map(|code| (code, code.name()));
    let mut known: BTreeSet<&str> = codes.iter().map(|(_, name)| *name).collect();
    known.insert("null");
    assert_eq!(listed, known);
    for (code, name) in codes {
        assert_eq!(
            serde_json::to_value(code)?,
            name,
            "the JSON value is the code"
        );
    }
    let level = |level: LagLevel| format!("`{}`", level.name());
    let encoding = |encoding: Encoding| format!("`{}`", encoding.name());
    let levels = [LagLevel::Ok, LagLevel::Warn, LagLevel::Degraded].map(level);
    let encodings = Encoding::ALL.map(encoding);
    for word in levels.iter().chain(&encodings) {
        let line = OPERATIONS
            .lines()
            .find(|line| line.starts_with("`level` is"));
        assert!(line.is_some_and(|line| line.contains(word)), "{word}");
    }
    for reason in Skip::ALL.map(Skip::name) {
        let row = OPERATIONS
            .lines()
            .find(|line| line.starts_with("| `") && line.contains(&format!("`{reason}`")));
        assert!(
            row.is_some(),
            "docs/operations.md does not contain {reason}"
        );
    }
    Ok(())
}

/// Reads the page at `docs/` from disk, so that `TICKCAST_GOLDEN=write` can write it first.
fn generated(page: &str, text: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(page);
    if std::env::var_os("TICKCAST_GOLDEN").is_some() {
        std::fs::write(&path, text)?;
    }
    Ok(std::fs::read_to_string(path)?)
}

#[test]
fn the_configuration_reference_matches_the_table_of_keys() -> Result<()> {
    assert!(
        generated("configuration.md", &reference())? == reference(),
        "docs/configuration.md differs from the table of keys; \
         TICKCAST_GOLDEN=write cargo test --test promises docs_consistency writes it"
    );
    Ok(())
}

#[test]
fn the_example_config_shows_every_key() {
    let file = include_str!("../../feeds.yaml");
    for key in keys().filter(|key| {
        !key.path.contains("sources.") && !matches!(key.kind, tickcast::config::Kind::Section)
    }) {
        let name = key.path.rsplit('.').next().unwrap_or_default();
        assert!(
            file.contains(&format!("{name}:")),
            "feeds.yaml doesn't show {}",
            key.path
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_in_the_operations_guide() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let scraped = String::from_utf8(feed.app.metrics().render())?;
    let entries = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    for (name, help) in entries {
        let row = OPERATIONS
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
            .with_context(|| format!("docs/operations.md does not contain {name}"))?;
        assert!(
            row.ends_with(&format!("| {help} |")),
            "docs/operations.md describes {name} as {row}; the catalogue says: {help}"
        );
    }
    Ok(())
}

#[test]
fn the_readme_names_the_run_and_check_commands() {
    assert!(README.contains("cargo run --release") && README.contains("./check"));
}

#[test]
fn every_file_named_by_the_architecture_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let architecture = include_str!("../../ARCHITECTURE.md");
    let named = architecture.split('`').skip(1).step_by(2);
    let files: Vec<_> = named
        .filter(|name| {
            let is_rust = Path::new(name).extension().is_some_and(|kind| kind == "rs");
            is_rust || name.starts_with("src/")
        })
        .collect();
    assert!(files.len() > 30, "{files:?}");
    for name in files {
        assert!(
            root.join(name).exists() || root.join("src").join(name).exists(),
            "ARCHITECTURE.md names {name}, which does not exist"
        );
    }
}

/// Programs of the guides are copies of those that the tests run, so that the pages are complete
/// without mdBook too.
#[test]
fn the_guides_show_the_programs_that_the_tests_run() -> Result<()> {
    let example = README.split("```python\n").nth(1).context("the example")?;
    let example = example.split("```").next().context("its end")?;
    let python = include_str!("../../docs/clients/python.md");
    let rust = include_str!("../../docs/clients/rust.md");
    for (page, language, program) in [
        (python, "python", example),
        (
            python,
            "python",
            include_str!("../../docs/clients/resume.py"),
        ),
        (
            rust,
            "rust,ignore",
            include_str!("../../examples/subscribe.rs"),
        ),
    ] {
        let block = format!("```{language}\n{program}```");
        assert!(page.contains(&block), "no copy in the guide:\n{block}");
    }
    Ok(())
}

/// The text of a page outside of HTML comments.
fn without_comments(page: &str) -> String {
    let mut parts = page.split("<!--");
    let first = parts.next().unwrap_or_default().to_owned();
    let shown = parts.map(|part| part.split_once("-->").map_or("", |(_, shown)| shown));
    first + &shown.collect::<String>()
}

/// A directive of mdBook is raw text elsewhere, for example on GitHub.
#[test]
fn no_page_shows_a_directive_of_mdbook() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = 0;
    for folder in ["", "clients", "concepts"] {
        for file in std::fs::read_dir(docs.join(folder))? {
            let path = file?.path();
            if path.extension().is_none_or(|kind| kind != "md") {
                continue;
            }
            pages += 1;
            let shown = without_comments(&std::fs::read_to_string(&path)?);
            assert!(!shown.contains("{{#"), "{} shows one", path.display());
        }
    }
    assert!(pages > 15, "{pages} pages");
    // The first included line ends the comment that hides the directive.
    for file in [
        include_str!("../../ARCHITECTURE.md"),
        include_str!("../../SECURITY.md"),
    ] {
        let included = file.split("<!-- ANCHOR: book -->\n").nth(1);
        assert!(included.is_some_and(|text| {
            text.lines()
                .next()
                .is_some_and(|line| line.ends_with("-->"))
        }));
    }
    Ok(())
}

/// The load-testing chapter covers `load`; options of other commands are in the README only.
#[test]
fn every_option_of_the_load_testing_chapter_exists() -> Result<()> {
    let chapter = include_str!("../../docs/load-testing.md");
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_tickcast"))
        .args(["load", "--help"])
        .output()?;
    let help = String::from_utf8(help.stdout)?;
    let is_of_a_name = |letter: char| letter.is_ascii_lowercase() || letter == '-';
    let options: BTreeSet<&str> = chapter
        .match_indices("--")
        .map(|(at, _)| {
            let end = chapter[at..]
                .find(|letter| !is_of_a_name(letter))
                .unwrap_or(chapter.len() - at);
            &chapter[at..at + end]
        })
        .filter(|option| option.starts_with("--") && option.len() > 3 && !option.ends_with('-'))
        .collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        assert!(help.contains(option), "`tickcast load` has no {option}");
    }
    Ok(())
}

#[test]
fn every_message_in_the_concepts_exists_in_the_protocol() {
    let pages = [
        include_str!("../../docs/concepts/delivery.md"),
        include_str!("../../docs/concepts/ledger.md"),
        include_str!("../../docs/concepts/resume.md"),
    ];
    let blocks = pages
        .iter()
        .flat_map(|page| page.split("```json\n").skip(1))
        .filter_map(|block| block.split("```").next());
    let messages: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(messages.len() > 5, "{messages:?}");
    for message in messages {
        let is_request = decode_request(message.as_bytes(), Encoding::Json).is_ok();
        let from_server = decode_server_message(message.as_bytes(), Encoding::Json);
        let is_of_the_server = match from_server {
            Ok(ServerMessage::Control(Control::Unknown)) | Err(_) => false,
            Ok(ServerMessage::Events(events)) => !events.is_empty(),
            Ok(ServerMessage::Control(_)) => true,
        };
        assert!(is_request || is_of_the_server, "{message}");
    }
}
