//! Words that must agree: codes, config keys, metrics and the papers that tell of them.

use anyhow::Result;
use tickcast::config::{guide, keys};
use tickcast::protocol::Code;

use crate::harness::Feed;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const README: &str = include_str!("../../README.md");

#[test]
fn every_error_code_is_in_the_protocol_reference() {
    for code in Code::ALL {
        let row = format!("| {} | `{}` |", code.number(), code.name());
        assert!(PROTOCOL.contains(&row), "{row} is not in docs/protocol.md");
    }
}

#[test]
fn the_operations_guide_has_every_config_key_as_the_table_says() {
    assert!(
        OPERATIONS.contains(&guide()),
        "docs/operations.md differs from `tickcast check --keys`"
    );
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
    let names = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .filter_map(|line| line.split(' ').next());
    for name in names {
        assert!(
            OPERATIONS.contains(&format!("`{name}`")),
            "{name} is not in docs/operations.md"
        );
    }
    Ok(())
}

#[test]
fn the_readme_names_the_two_commands() {
    assert!(README.contains("cargo run --release") && README.contains("./check"));
}
