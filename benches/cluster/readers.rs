//! What gateways cost NATS and themselves: processor time of NATS by record and reader, and that of a
//! gateway without clients.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tickcast::clock::Clock;
use tokio::task::JoinHandle;

use crate::boot::{EVENTS_PER_S, stored};
use crate::latency::{GATEWAY, PUBLISHER, market};
use crate::process::Cluster;
use crate::report::Report;
use crate::{ONE, Span};

/// Connections that read all records, as a gateway does.
const READERS: usize = 50;
/// Ticks of `/proc/*/stat` per second.
const TICKS_PER_S: f64 = 100.0;

/// Seconds of processor time of a process so far.
fn cpu(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("a stat line")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let both = ticks(11).zip(ticks(12)).context("processor times")?;
    Ok((both.0 + both.1) / TICKS_PER_S)
}

/// Processor time of each process and new records, over this time.
async fn watch(cluster: &Cluster, processes: &[u32], time: Duration) -> Result<(Vec<f64>, f64)> {
    let clock = Clock::start();
    let all = || {
        processes
            .iter()
            .map(|id| cpu(*id))
            .collect::<Result<Vec<_>>>()
    };
    let (before, (records, _)) = (all()?, stored(cluster).await?);
    clock.sleep_until(clock.now().plus(time)).await;
    let (after, (until, _)) = (all()?, stored(cluster).await?);
    let used = after
        .iter()
        .zip(before)
        .map(|(after, before)| after - before);
    Ok((used.collect(), until - records))
}

/// A connection that receives every record and discards it.
async fn reader(cluster: &Cluster) -> Result<JoinHandle<()>> {
    let client = async_nats::connect(cluster.nats.address().to_string()).await?;
    let mut records = client.subscribe("tc.live.main").await?;
    client.flush().await?;
    Ok(tokio::spawn(async move {
        let _client = client;
        while records.next().await.is_some() {}
    }))
}

pub(crate) fn run(span: Span, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(span, report))
}

async fn measure(span: Span, report: &mut Report) -> Result<()> {
    let cluster = ONE.start()?;
    let publisher = cluster.member("a", PUBLISHER, &market(EVENTS_PER_S))?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.member("one", GATEWAY, "")?;
    let nats = cluster.nats.process(0)?.id();
    let processes = [nats, publisher.id(), gateway.id()];
    let seconds = span.measured.as_secs_f64();
    let (mut each, mut rates) = (Vec::new(), Vec::new());
    let mut shares = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..span.rounds {
        let (alone, records) = watch(&cluster, &processes, span.measured).await?;
        for (shares, used) in shares.iter_mut().zip(&alone) {
            shares.push(used / seconds);
        }
        rates.push(records / seconds);
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(reader(&cluster).await?);
        }
        let (beside, read) = watch(&cluster, &processes, span.measured).await?;
        for reader in readers {
            reader.abort();
        }
        let more = beside[0] / read - alone[0] / records;
        each.push(more * 1e6 / READERS as f64);
    }
    let names = [
        "NATS with one gateway",
        "publisher",
        "gateway without clients",
    ];
    for (name, values) in names.iter().zip(shares) {
        report.add(
            format!("CPU at 20,000 events/s: {name}"),
            values,
            "cores",
            "",
        );
    }
    report.add("records per second at 20,000 events/s", rates, "/s", "");
    report.add(
        "CPU of NATS per record and reader, 50 readers",
        each,
        "µs",
        "",
    );
    Ok(())
}
