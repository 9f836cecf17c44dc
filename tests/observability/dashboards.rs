//! Dashboards, rules and the catalogue contain the same metrics; panels pass the usual linter
//! rules; all queries have data.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tickcast::load::{Plan, Probes, run};
use tickcast::metrics::Metrics;

use crate::prometheus::{Feed, Prometheus, exclusive, get, is_installed, path, until};

const DASHBOARDS: [&str; 4] = ["overview", "sources", "load", CLUSTER];
/// Dashboard of servers with section `cluster`.
pub(crate) const CLUSTER: &str = "cluster";

fn dashboard(name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&std::fs::read_to_string(
        path("dashboards/grafana").join(format!("{name}.json")),
    )?)?)
}

fn prometheus_file(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(
        path("dashboards/prometheus").join(name),
    )?)
}

pub(crate) struct Panel {
    pub(crate) dashboard: &'static str,
    pub(crate) title: String,
    json: Value,
}

impl Panel {
    pub(crate) fn queries(&self) -> impl Iterator<Item = &str> {
        self.json["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|target| target["expr"].as_str())
    }
}

pub(crate) fn panels() -> Result<Vec<Panel>> {
    let mut panels = Vec::new();
    for name in DASHBOARDS {
        for json in dashboard(name)?["panels"]
            .as_array()
            .context("missing panels")?
            .iter()
            .filter(|panel| panel["type"] != "row")
        {
            panels.push(Panel {
                dashboard: name,
                title: json["title"].as_str().unwrap_or_default().to_owned(),
                json: json.clone(),
            });
        }
    }
    Ok(panels)
}

/// Names of metrics in a text, unchanged.
fn named(text: &str) -> BTreeSet<String> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let words = text.split(|letter| !is_word(letter));
    words
        .filter(|word| {
            (word.starts_with("tickcast_") || word.starts_with("process_")) && !word.contains(':')
        })
        .map(str::to_owned)
        .collect()
}

/// Catalogue: names and types, as exported by a server, and by one in a cluster.
fn catalogue() -> Result<BTreeMap<String, String>> {
    let feed =
        Feed::start("sources: [{name: sim, kind: sim, instruments: [{symbol: A, start: 100}]}]")?;
    let scraped = get(feed.admin, "/metrics")?;
    let clustered = Metrics::new();
    clustered.add_cluster("gateway");
    let clustered = String::from_utf8(clustered.render())?;
    let types = scraped
        .lines()
        .chain(clustered.lines())
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    Ok(types
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect())
}

/// Metric of a series name.
fn metric_of<'a>(series: &'a str, catalogue: &BTreeMap<String, String>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"]
        .iter()
        .filter_map(|part| series.strip_suffix(part));
    parts
        .into_iter()
        .find(|name| catalogue.get(*name).is_some_and(|kind| kind == "histogram"))
        .unwrap_or(series)
}

#[test]
fn dashboards_rules_guide_and_catalogue_name_the_same_metrics() -> Result<()> {
    let catalogue = catalogue()?;
    let queries: String = panels()?
        .iter()
        .flat_map(|panel| panel.queries().map(str::to_owned).collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .join("\n");
    let mut on_dashboards = BTreeSet::new();
    for series in named(&queries) {
        let metric = metric_of(&series, &catalogue).to_owned();
        assert!(
            catalogue.contains_key(&metric),
            "a panel queries {series}, which is not in the catalogue"
        );
        on_dashboards.insert(metric);
    }
    for metric in catalogue
        .keys()
        .filter(|name| name.starts_with("tickcast_"))
    {
        assert!(
            on_dashboards.contains(metric) || metric == "tickcast_draining",
            "{metric} is on no dashboard"
        );
    }
    for file in ["rules.yml", "alerts.yml", "tests.yml"] {
        for series in named(&prometheus_file(file)?) {
            assert!(
                catalogue.contains_key(metric_of(&series, &catalogue)),
                "{file} queries {series}, which is not in the catalogue"
            );
        }
    }
    let guide = std::fs::read_to_string(path("docs/operations.md"))?;
    let documented = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name);
    for metric in documented.filter(|name| name.starts_with("tickcast_")) {
        assert!(
            catalogue.contains_key(metric),
            "the operations guide names {metric}, which is not in the catalogue"
        );
    }
    Ok(())
}

/// Selectors of a query: metric name and labels in braces, and whether a range follows.
fn selectors(query: &str) -> Vec<(String, String, Option<String>)> {
    let mut found = Vec::new();
    for (at, _) in query.match_indices('{') {
        let name: String = query[..at]
            .chars()
            .rev()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .collect();
        let Some(end) = query[at..].find('}') else {
            continue;
        };
        let range = query[at + end + 1..]
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next());
        found.push((
            name.chars().rev().collect(),
            query[at + 1..at + end].to_owned(),
            range.map(str::to_owned),
        ));
    }
    found
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn panels_pass_the_linter_rules() -> Result<()> {
    let catalogue = catalogue()?;
    for name in DASHBOARDS {
        let dashboard = dashboard(name)?;
        assert!(
            dashboard["uid"]
                .as_str()
                .is_some_and(|uid| uid.starts_with("tickcast-"))
                && dashboard["id"].is_null(),
            "{name}"
        );
        let variables: Vec<_> = dashboard["templating"]["list"]
            .as_array()
            .context("missing dashboard variables")?
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(variables, ["datasource", "job", "instance"], "{name}");
        let ids: BTreeSet<_> = dashboard["panels"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|panel| panel["id"].as_u64())
            .collect();
        assert_eq!(
            ids.len(),
            dashboard["panels"].as_array().map_or(0, Vec::len),
            "{name}: duplicate panel id"
        );
    }
    for panel in panels()? {
        let place = format!("{}: {}", panel.dashboard, panel.title);
        let defaults = &panel.json["fieldConfig"]["defaults"];
        assert!(
            !panel.title.is_empty()
                && panel.json["description"]
                    .as_str()
                    .is_some_and(|text| text.len() > 15),
            "{place}: missing title or description"
        );
        assert!(
            defaults["unit"]
                .as_str()
                .is_some_and(|unit| !unit.is_empty()),
            "{place}: missing unit"
        );
        assert_eq!(
            defaults["noValue"], "no data",
            "{place}: no text for missing data"
        );
        assert_eq!(panel.json["datasource"]["uid"], "${datasource}", "{place}");
        assert!(panel.queries().count() > 0, "{place}: a query");
        for query in panel.queries() {
            let selectors = selectors(query);
            assert!(!selectors.is_empty(), "{place}: {query}");
            for (series, labels, range) in selectors {
                assert!(
                    labels.contains("job=~\"$job\"") && labels.contains("instance=~\"$instance\""),
                    "{place}: {series}: missing job or instance selector"
                );
                let metric = metric_of(&series, &catalogue);
                let counts = matches!(
                    catalogue.get(metric).map(String::as_str),
                    Some("counter" | "histogram")
                );
                assert_eq!(
                    counts,
                    range.is_some(),
                    "{place}: {series}: exactly counters must be queried by rate"
                );
                let range = range.unwrap_or("$__rate_interval".to_owned());
                assert!(
                    matches!(&*range, "$__rate_interval" | "$__range"),
                    "{place}: {series}: invalid range [{range}]"
                );
                if range == "$__range" {
                    assert_eq!(
                        panel.json["type"], "stat",
                        "{place}: the whole range is allowed for single figures only"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn dashboards_match_the_grafana_schema() -> Result<()> {
    if !is_installed(
        &path("tests/.deps/node_modules/@grafana/schema")
            .display()
            .to_string(),
    )? {
        return Ok(());
    }
    let ran = Command::new("node")
        .arg(path("tests/dashboards/schema.mjs"))
        .output()?;
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    Ok(())
}

#[test]
fn metrics_and_rules_pass_promtool() -> Result<()> {
    if !is_installed("promtool")? {
        return Ok(());
    }
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "rules.yml", "alerts.yml"],
        &["test", "rules", "tests.yml"],
    ] {
        let ran = Command::new("promtool")
            .args(arguments)
            .current_dir(path("dashboards/prometheus"))
            .output()?;
        assert!(
            ran.status.success(),
            "{arguments:?}: {}{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    let feed =
        Feed::start("sources: [{name: sim, kind: sim, instruments: [{symbol: A, start: 100}]}]")?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("metrics"), get(feed.admin, "/metrics")?)?;
    let ran = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(folder.path().join("metrics"))?)
        .output()?;
    let output =
        String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{output}");
    Ok(())
}

const MARKET: &str = "
sources:
  - {name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [
      {symbol: A, start: 100, rate: 200/s}, {symbol: B, start: 100, rate: 200/s}, {symbol: C, start: 100, rate: 200/s}]}
limits: {requests_per_s: 1000}
session: {heartbeat: 200ms}
fanout: {unsent: 16KiB, outbox: 128KiB, behind: 1s}
";

/// Upper bounds of the latency buckets, in seconds.
const BOUNDS: [f64; 19] = [
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];

fn bucket(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// Each event goes to many connections at once, so the last of them waits for milliseconds: longer
/// than the wake-up latency of a shared machine, while no core is full.
const WIDE: &str = "sources: [{name: sim, kind: sim, stale_after: 1h, instruments: [{symbol: A, start: 100, rate: 20/s}]}]";

/// p99 of the dashboards, over the duration of one test.
const P99: &str = "histogram_quantile(0.99, sum by (le) (increase(tickcast_fanout_latency_seconds_bucket{mode=\"raw\"}[8s])))";
/// Maximum number of comparisons until both agree.
const ROUNDS: usize = 3;

#[test]
fn dashboard_latency_agrees_with_the_load_tester_within_a_bucket() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(WIDE)?;
    let prometheus = Prometheus::start(feed.admin)?;
    let plan = Plan {
        connections: 500,
        duration: Duration::from_secs(8),
        warmup: Duration::from_millis(500),
        probes: "10".parse()?,
        ..Plan::new(feed.address, vec!["quote:*".into(), "trade:*".into()])
    };
    // A stall of the machine affects one of the two; a wrong measurement never agrees.
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let outcome = run(&plan, &mut |_| false)?;
        let client = outcome.published.context("missing latencies")?.p99 as f64 / 1e9;
        let server = until("a quantile", || {
            Ok(prometheus
                .query(P99)?
                .pop()
                .map(|(_, value)| value)
                .filter(|value| value.is_finite()))
        })?;
        let is_sound = outcome.is_sound() && outcome.busy_share < 0.5;
        if is_sound && bucket(server).abs_diff(bucket(client)) <= 1 {
            return Ok(());
        }
        rounds.push(format!(
            "server: {server} s, load tester: {client} s, busy for {} of the time: {:?}",
            outcome.busy_share, outcome.failures
        ));
    }
    anyhow::bail!("p99: {rounds:#?}")
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn every_panel_and_rule_has_data_under_load() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(MARKET)?;
    let prometheus = Prometheus::start(feed.admin)?;
    // Under trouble, so that panels on trouble have data.
    let trouble = Plan {
        slow: "10%".parse()?,
        slow_bytes_per_s: 2_000,
        stalled: "10%".parse()?,
        churn_per_s: 10.0,
        connections: 30,
        duration: Duration::from_secs(25),
        warmup: Duration::from_millis(500),
        probes: Probes::All,
        modes: "raw:60,interval-100ms:20,conflate:20".parse()?,
        ..Plan::new(
            feed.address,
            vec![
                "quote:*".into(),
                "trade:*".into(),
                "ticker:*".into(),
                "bar:*:1s".into(),
            ],
        )
    };
    // Reconnecting clients resume; these request snapshots.
    let newcomer = Plan {
        connections: 1,
        duration: Duration::from_millis(200),
        ..Plan::new(feed.address, vec!["quote:*".into()])
    };
    let testing = std::thread::spawn(move || run(&trouble, &mut |_| false));
    let mut empty: Vec<(String, String)> = Vec::new();
    let standalone = |panel: &Panel| panel.dashboard != CLUSTER;
    for panel in panels()?.into_iter().filter(standalone) {
        let queries = panel.queries().map(|query| {
            (
                format!("{}: {}", panel.dashboard, panel.title),
                query.to_owned(),
            )
        });
        empty.extend(queries);
    }
    for line in prometheus_file("rules.yml")?
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- record: "))
    {
        empty.push(("rules.yml".to_owned(), line.to_owned()));
    }
    until("every query has data", || {
        assert!(run(&newcomer, &mut |_| false)?.is_sound());
        let mut left = Vec::new();
        for (place, query) in std::mem::take(&mut empty) {
            let asked = query
                .replace("$__rate_interval", "4s")
                .replace("$__range", "1m")
                .replace("$job", "tickcast")
                .replace("$instance", ".+");
            let found = prometheus.query(&asked).with_context(|| place.clone())?;
            if found.is_empty() || found.iter().all(|(_, value)| value.is_nan()) {
                left.push((place, query));
            }
        }
        empty = left;
        Ok(empty.is_empty().then_some(()))
    })
    .with_context(|| format!("{empty:#?}"))?;
    let outcome = testing
        .join()
        .map_err(|_panic| anyhow::anyhow!("the load tester panicked"))??;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    assert_eq!(
        prometheus
            .query("sum(tickcast_events_unaccounted_total)")?
            .pop()
            .map(|(_, value)| value as u64),
        Some(0)
    );
    Ok(())
}
