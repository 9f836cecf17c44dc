//! Latency from publication to receipt, standalone and through the log: all servers on one core, the
//! tester on the other.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::load::{Plan, Probes, Skew, TopicChoice, run as load};

use crate::process::Cluster;
use crate::report::Report;
use crate::{ENGINES, ONE, Span, cores};

/// Instruments of the market.
pub(crate) const INSTRUMENTS: usize = 100;
/// Keys of a publisher, besides its node.
pub(crate) const PUBLISHER: &str = "role: publisher, log: {replicas: 1, bytes: 4GiB}";
pub(crate) const GATEWAY: &str = "role: gateway";
/// Rates of all quotes together.
const RATES: [f64; 2] = [2_000.0, 50_000.0];

/// A market of quotes at a rate.
pub(crate) fn market(events_per_s: f64) -> String {
    let rate = events_per_s / INSTRUMENTS as f64;
    let one = |n| format!("{{symbol: S{n}, start: 100, rate: {rate}/s, trades: 0}}");
    let instruments: Vec<String> = (0..INSTRUMENTS).map(one).collect();
    format!(
        "sources: [{{name: sim, kind: sim, seed: 7, every: 1003us, instruments: [{}]}}]\n",
        instruments.join(", ")
    )
}

/// A test of quotes: each connection has ten of the topics.
pub(crate) fn plan(address: SocketAddr, connections: usize, duration: Duration) -> Plan {
    let names: Vec<String> = (0..INSTRUMENTS).map(|n| format!("quote:S{n}")).collect();
    Plan {
        connections,
        topics: TopicChoice::Draw {
            names: names.clone(),
            each: 10,
            skew: Skew::Uniform,
        },
        warmup: Duration::from_secs(1),
        duration,
        ..Plan::new(address, names)
    }
}

/// Median and 99th percentile, in milliseconds.
fn measure(address: SocketAddr, span: Span) -> Result<[f64; 2]> {
    let plan = Plan {
        probes: Probes::All,
        ..plan(address, 10, span.measured)
    };
    let outcome = cores::on(cores::TESTER, || Ok(load(&plan, &mut |_| false)?))?;
    ensure!(outcome.is_sound(), "{:?}", outcome.failures);
    let latency = outcome.published.context("no event was measured")?;
    Ok([latency.p50, latency.p99].map(|ns| ns as f64 / 1e6))
}

fn standalone(events_per_s: f64, span: Span) -> Result<[f64; 2]> {
    let cluster = ONE.start()?;
    let market = format!("shards: 1\n{}", market(events_per_s));
    let server = cores::on(cores::SERVERS, || cluster.standalone("alone", &market))?;
    measure(server.address, span)
}

fn through(cluster: &Cluster, events_per_s: f64, span: Span) -> Result<[f64; 2]> {
    let (_publisher, gateway) = cores::on(cores::SERVERS, || {
        let publisher = cluster.member("a", PUBLISHER, &market(events_per_s))?;
        publisher.logs("leading the cluster")?;
        Ok((publisher, cluster.member("one", GATEWAY, "")?))
    })?;
    measure(gateway.address, span)
}

/// Rounds of standalone and of each engine in turn, and what the log adds in each.
pub(crate) fn run(span: Span, report: &mut Report) -> Result<()> {
    for rate in RATES {
        let mut alone = [Vec::new(), Vec::new()];
        let mut added = ENGINES.map(|_| [Vec::new(), Vec::new()]);
        for _ in 0..span.rounds {
            let base = standalone(rate, span)?;
            for (values, value) in alone.iter_mut().zip(base) {
                values.push(value);
            }
            for (engine, added) in ENGINES.iter().zip(&mut added) {
                let cluster = cores::on(cores::SERVERS, || engine.start())?;
                let measured = through(&cluster, rate, span)?;
                for at in 0..2 {
                    added[at].push(measured[at] - base[at]);
                }
            }
        }
        let names = ["p50", "p99"];
        for (name, values) in names.iter().zip(alone) {
            report.add(
                format!("latency, {rate} events/s, standalone: {name}"),
                values,
                "ms",
                "",
            );
        }
        for (engine, added) in ENGINES.iter().zip(added) {
            let wanted = match engine.sync {
                "always" => ["≤ 5 ms", ""],
                _ => ["≤ 1 ms", "≤ 10 ms"],
            };
            for ((name, values), wanted) in names.iter().zip(added).zip(wanted) {
                let what = format!("added by {}, {rate} events/s: {name}", engine.name);
                report.add(what, values, "ms", wanted);
            }
        }
    }
    Ok(())
}
