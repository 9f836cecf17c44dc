//! A publisher that stands by goes on where the log ends: clients notice a pause, and nothing else.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tickcast::market::{Body, TradeId, UnixNanos};
use tickcast::protocol::{Control, ServerMessage, SourceState};

use super::process::{Cluster, Process, wait_for};
use super::{DEADLINE, MARKET, Reader};
use tokio::time::timeout;

/// Trades and epochs of a client from its beginning.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// By symbol: id of the newest trade.
    trades: BTreeMap<String, u64>,
    /// Time of the newest trade.
    pub(crate) newest: UnixNanos,
    /// By topic: its epoch.
    pub(crate) epochs: BTreeMap<String, String>,
}

impl Seen {
    /// Reads `count` trades, whose ids must be consecutive within one epoch.
    pub(crate) async fn read(&mut self, reader: &mut Reader, count: usize) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let trades = self.check(&reader.next().await?)?;
            left = left.saturating_sub(trades);
        }
        Ok(())
    }

    /// Reads until a source has this state.
    pub(crate) async fn read_until(
        &mut self,
        reader: &mut Reader,
        state: SourceState,
    ) -> Result<()> {
        loop {
            let message = reader.next().await?;
            self.check(&message)?;
            if let ServerMessage::Control(Control::Source(change)) = message
                && change.state == state
            {
                return Ok(());
            }
        }
    }

    /// Checks a message; returns the number of its trades.
    fn check(&mut self, message: &ServerMessage) -> Result<usize> {
        let mut trades = 0;
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    if let Body::Trade(trade) = &event.body {
                        self.take(&event.topic.to_string(), &trade.id)?;
                        self.newest = self.newest.max(trade.ts);
                        trades += 1;
                    }
                }
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                let (topic, epoch) = (&snapshot.topic, &snapshot.epoch);
                let first = self
                    .epochs
                    .entry(topic.clone())
                    .or_insert_with(|| epoch.clone());
                ensure!(first == epoch, "{topic} has begun anew");
            }
            ServerMessage::Control(Control::Gap(gap)) => ensure!(false, "{gap:?}"),
            ServerMessage::Control(_) => {}
        }
        Ok(trades)
    }

    fn take(&mut self, topic: &str, id: &TradeId) -> Result<()> {
        let TradeId::Number(id) = *id else {
            anyhow::bail!("a simulation numbers its trades");
        };
        if let Some(before) = self.trades.insert(topic.to_owned(), id) {
            ensure!(id == before + 1, "{topic}: trade {id} behind {before}");
        }
        Ok(())
    }
}

/// Value of a metric of a server.
pub(crate) fn metric(server: &Process, name: &str) -> Result<u64> {
    let text = ureq::get(&format!("http://{}/metrics", server.admin))
        .call()?
        .body_mut()
        .read_to_string()?;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    Ok(value.context("no such metric")?.parse()?)
}

/// Waits until a server has read this many further records, among them positions of the sources.
pub(crate) fn wait_for_records(server: &Process, count: u64) -> Result<()> {
    let first = metric(server, "tickcast_cluster_record ")?;
    wait_for("records", || {
        let now = metric(server, "tickcast_cluster_record ")?;
        Ok((now >= first + count).then_some(()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_standby_goes_on_in_the_same_epoch_and_a_simulation_without_a_hole() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let checkpoints = "interval: 1s";
    let first = cluster.checkpointing("a", MARKET, checkpoints)?;
    first.logs("leading the cluster")?;
    let second = cluster.checkpointing("b", MARKET, checkpoints)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 600)).await??;
    ensure!(metric(&second, "tickcast_cluster_derive_mismatches_total ")? == 0);
    first.crash()?;
    second.logs("source goes on where the log ends")?;
    timeout(DEADLINE, seen.read(&mut reader, 600)).await??;
    // The next one begins with a checkpoint.
    let third = cluster.checkpointing("a", MARKET, checkpoints)?;
    third.logs("starting from a checkpoint")?;
    wait_for_records(&third, 50)?;
    ensure!(metric(&third, "tickcast_cluster_derive_mismatches_total ")? == 0);
    second.crash()?;
    third.logs("source goes on where the log ends")?;
    timeout(DEADLINE, seen.read(&mut reader, 600)).await??;
    ensure!(metric(&third, "tickcast_cluster_derive_mismatches_total ")? == 0);
    Ok(())
}
