//! A log that does not go on where a server has read it: the server loads a checkpoint, its clients
//! stay connected, and they are told what they have missed or that new epochs begin.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::Context;
use tickcast::client::Positions;
use tickcast::market::{Body, TradeId};
use tickcast::protocol::{Control, Gap, GapCause, Op, ServerMessage, Subscribe};
use tokio::time::timeout;

use super::checkpoints::{checkpoint_behind, small_log, wait_for};
use super::process::{Cluster, Process};
use super::takeover::{metric, wait_for_records};
use super::{DEADLINE, MARKET, Reader, TOPICS};

/// Market that fills `cluster.repair` within seconds.
const BUSY: &str = "[{name: sim, kind: sim, seed: 5, instruments: [{symbol: BTC-USD, start: 60000, rate: 2000/s}, {symbol: ETH-USD, start: 3000, rate: 2000/s}]}]";

/// Course of a client, whose accounts the reader verifies.
#[derive(Debug, Default)]
struct Course {
    /// By topic: its epochs, in order.
    epochs: BTreeMap<String, Vec<String>>,
    /// By topic: id of the newest trade, and trades that a gap has reported as lost since.
    trades: BTreeMap<String, (u64, u64)>,
    gaps: Vec<Gap>,
    /// True if the source repeats trades in a new epoch.
    repeats: bool,
}

impl Course {
    /// Reads until `is_over`. Trades are consecutive but for those that gaps report.
    async fn read_until(
        &mut self,
        reader: &mut Reader,
        is_over: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let read = async {
            while !is_over(self) {
                let message = reader.next().await?;
                self.take(message)?;
            }
            Ok(())
        };
        timeout(DEADLINE, read).await.context("not told")?
    }

    /// Reads this many trades.
    async fn trades(&mut self, reader: &mut Reader, count: u64) -> Result<()> {
        let first = self.newest_trades();
        let sum = |ids: &[u64]| ids.iter().sum::<u64>();
        self.read_until(reader, |course| {
            sum(&course.newest_trades()) >= sum(&first) + count
        })
        .await
    }

    fn newest_trades(&self) -> Vec<u64> {
        self.trades.values().map(|(id, _)| *id).collect()
    }

    fn take(&mut self, message: ServerMessage) -> Result<()> {
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    if let Body::Trade(trade) = &event.body {
                        self.take_trade(&event.topic.to_string(), &trade.id)?;
                    }
                }
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                let topic = snapshot.topic;
                let known = self.epochs.entry(topic.clone()).or_default();
                if known.last() != Some(&snapshot.epoch) {
                    ensure!(!known.contains(&snapshot.epoch), "{known:?} returns");
                    known.push(snapshot.epoch);
                    if self.repeats {
                        self.trades.remove(&topic);
                    }
                }
            }
            ServerMessage::Control(Control::Gap(gap)) => {
                ensure!(gap.cause == GapCause::Bus, "{gap:?}");
                if let Some((_, lost)) = self.trades.get_mut(&gap.topic) {
                    *lost += gap.n;
                }
                self.gaps.push(gap);
            }
            ServerMessage::Control(_) => {}
        }
        Ok(())
    }

    fn take_trade(&mut self, topic: &str, id: &TradeId) -> Result<()> {
        let TradeId::Number(id) = *id else {
            anyhow::bail!("a simulation numbers its trades");
        };
        if let Some((before, lost)) = self.trades.insert(topic.to_owned(), (id, 0)) {
            let expected = before + lost + 1;
            ensure!(
                id == expected,
                "{topic}: trade {id} behind {before}, {lost} reported as lost"
            );
        }
        Ok(())
    }

    /// True if every topic has had this number of epochs.
    fn has_epochs(&self, count: usize) -> bool {
        self.epochs.len() == 2 * TOPICS.len() && self.epochs.values().all(|all| all.len() == count)
    }

    /// Epochs in which the topics are now.
    fn present(&self) -> BTreeSet<&String> {
        self.epochs.values().filter_map(|all| all.last()).collect()
    }
}

/// Starts to read; the topics are in one epoch each.
async fn begin(gateway: &Process) -> Result<(Reader, Course)> {
    let mut reader = Reader::connect(gateway).await?;
    reader.subscribe(None).await?;
    let mut course = Course::default();
    course.trades(&mut reader, 200).await?;
    ensure!(course.has_epochs(1), "{:?}", course.epochs);
    Ok((reader, course))
}

/// A client that resumes from an earlier epoch is told that it cannot.
async fn is_not_recovered(gateway: &Process, positions: &Positions) -> Result<()> {
    let mut reader = Reader::connect(gateway).await?;
    let request = Subscribe {
        topics: TOPICS.iter().map(|topic| (*topic).into()).collect(),
        from: positions.resume_from(),
        ..Subscribe::default()
    };
    reader.client.request(Op::Subscribe(request)).await?;
    loop {
        if let ServerMessage::Control(Control::Subscribed(answer)) = reader.next().await? {
            let matched = answer
                .ok
                .iter()
                .flat_map(|one| one.matched.iter().flatten());
            let recovered: Vec<_> = matched.map(|one| one.recovered).collect();
            ensure!(recovered.len() == 2 * TOPICS.len(), "{recovered:?}");
            ensure!(
                recovered.iter().all(|one| *one == Some(false)),
                "{recovered:?}"
            );
            return Ok(());
        }
    }
}

/// Numbers of the first and last record of the log, and its size in bytes.
async fn extent(jetstream: &Context) -> Result<(u64, u64, u64)> {
    let stream = jetstream.get_stream("TC_LOG_main").await?;
    let state = stream.get_info().await?.state;
    Ok((state.first_sequence, state.last_sequence, state.bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hole_is_fetched_and_a_hole_that_is_gone_is_a_gap() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    small_log(&cluster.jetstream().await?).await?;
    let publisher = cluster.checkpointing("a", MARKET, "interval: 1s")?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let (mut reader, mut course) = begin(&gateway).await?;
    let fetched = metric(&gateway, "tickcast_cluster_fetched_records_total ")?;
    // The records that NATS has sent to the stopped gateway are lost with the connection.
    gateway.signal("-STOP")?;
    cluster.crash_nats()?;
    cluster.restart_nats()?;
    wait_for_records(&publisher, 20)?;
    gateway.signal("-CONT")?;
    course.trades(&mut reader, 400).await?;
    ensure!(course.gaps.is_empty(), "{:?}", course.gaps);
    ensure!(metric(&gateway, "tickcast_cluster_fetched_records_total ")? > fetched);
    ensure!(metric(&gateway, "tickcast_cluster_rebuilds_total ")? == 0);
    gateway.signal("-STOP")?;
    cluster.crash_nats()?;
    cluster.restart_nats()?;
    let read = metric(&publisher, "tickcast_cluster_record ")?;
    let jetstream = cluster.jetstream().await?;
    let first = wait_for("log without the next record", async || {
        let (first, ..) = extent(&jetstream).await?;
        Ok((first > read + 1).then_some(first))
    });
    checkpoint_behind(&jetstream, first.await?).await?;
    gateway.signal("-CONT")?;
    course
        .read_until(&mut reader, |course| {
            let of = |topic: &str| course.gaps.iter().any(|gap| gap.topic == topic);
            of("trade:BTC-USD") && of("trade:ETH-USD")
        })
        .await?;
    course.trades(&mut reader, 200).await?;
    ensure!(course.has_epochs(1), "{:?}", course.epochs);
    ensure!(metric(&gateway, "tickcast_cluster_rebuilds_total ")? == 1);
    ensure!(metric(&gateway, "tickcast_cluster_diverged_total ")? == 0);
    Ok(())
}

/// Settings of publishers that keep few records.
const FORGETFUL: &str = "repair: 1MiB, checkpoints: {interval: 1s}";

/// Reads until the log has more new records than a publisher keeps.
async fn outrun_repair(cluster: &Cluster, reader: &mut Reader, course: &mut Course) -> Result<()> {
    let jetstream = cluster.jetstream().await?;
    let (.., bytes) = extent(&jetstream).await?;
    while extent(&jetstream).await?.2 < bytes + (5 << 19) {
        course.trades(reader, 500).await?;
    }
    Ok(())
}

/// Reads until all topics are in the same new epoch.
async fn read_new_epoch(reader: &mut Reader, course: &mut Course) -> Result<()> {
    course
        .read_until(reader, |course| course.has_epochs(2))
        .await?;
    course.trades(reader, 200).await?;
    ensure!(course.present().len() == 1, "{:?}", course.epochs);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_log_that_forgot_is_repaired_or_told() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.publisher_with("a", BUSY, FORGETFUL, "")?;
    first.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let (mut reader, mut course) = begin(&gateway).await?;
    cluster.save_nats()?;
    // Few enough records are appended again, and clients notice nothing.
    course.trades(&mut reader, 200).await?;
    wait_for_records(&first, 20)?;
    cluster.set_back_nats()?;
    first.logs("they were appended again")?;
    course.trades(&mut reader, 200).await?;
    ensure!(course.has_epochs(1) && course.gaps.is_empty(), "{course:?}");
    outrun_repair(&cluster, &mut reader, &mut course).await?;
    let positions = std::mem::take(&mut reader.positions);
    cluster.set_back_nats()?;
    read_new_epoch(&mut reader, &mut course).await?;
    drop(reader);
    is_not_recovered(&gateway, &positions).await?;
    ensure!(metric(&gateway, "tickcast_cluster_diverged_total ")? >= 1);
    // Servers that start now are in the new epochs, and so is the next leader.
    let later = cluster.gateway("two")?;
    let (_, seen) = begin(&later).await?;
    ensure!(seen.present() == course.present(), "{seen:?}");
    let second = cluster.publisher_with("b", BUSY, FORGETFUL, "")?;
    second.logs("standing by")?;
    wait_for_records(&second, 20)?;
    first.crash()?;
    second.logs("source goes on where the log ends")?;
    let (_, seen) = begin(&gateway).await?;
    ensure!(seen.present() == course.present(), "{seen:?}");
    ensure!(metric(&second, "tickcast_cluster_derive_mismatches_total ")? == 0);
    let (code, text) = cluster.command("a", &["verify"])?;
    ensure!(code == Some(0), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_standby_that_cannot_repair_the_log_begins_new_epochs() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.publisher_with("a", BUSY, FORGETFUL, "")?;
    first.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let (mut reader, mut course) = begin(&gateway).await?;
    cluster.save_nats()?;
    course.trades(&mut reader, 200).await?;
    let second = cluster.publisher_with("b", BUSY, FORGETFUL, "")?;
    second.logs("standing by")?;
    outrun_repair(&cluster, &mut reader, &mut course).await?;
    first.crash()?;
    cluster.set_back_nats()?;
    // It goes on with the source, although the log has lost the last positions.
    read_new_epoch(&mut reader, &mut course).await?;
    second.logs("source goes on where the log ends")?;
    ensure!(metric(&second, "tickcast_cluster_derive_mismatches_total ")? == 0);
    let (code, text) = cluster.command("b", &["verify"])?;
    ensure!(code == Some(0), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_has_read_lost_records_has_new_epochs_begin() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.publisher("a", MARKET)?;
    first.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let (mut reader, mut course) = begin(&gateway).await?;
    cluster.save_nats()?;
    course.trades(&mut reader, 400).await?;
    wait_for_records(&gateway, 20)?;
    // The publisher that had the records is gone as well.
    first.crash()?;
    let positions = std::mem::take(&mut reader.positions);
    cluster.set_back_nats()?;
    let second = cluster.publisher("b", MARKET)?;
    second.logs("all topics begin new epochs")?;
    // The simulation repeats trades that the log has lost.
    course.repeats = true;
    read_new_epoch(&mut reader, &mut course).await?;
    is_not_recovered(&gateway, &positions).await?;
    ensure!(metric(&gateway, "tickcast_cluster_diverged_total ")? >= 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_operator_begins_new_epochs_without_losing_a_trade() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let (code, text) = {
        let first = cluster.publisher("a", MARKET)?;
        first.logs("leading the cluster")?;
        let second = cluster.publisher("b", MARKET)?;
        let gateway = cluster.gateway("one")?;
        let (mut reader, mut course) = begin(&gateway).await?;
        let positions = std::mem::take(&mut reader.positions);
        let (code, text) = cluster.command("one", &["new-epoch"])?;
        ensure!(code == Some(0), "{text}");
        let record = text.rsplit("behind record ").next().context("a record")?;
        let record: u64 = record.trim().parse()?;
        read_new_epoch(&mut reader, &mut course).await?;
        ensure!(course.gaps.is_empty(), "{:?}", course.gaps);
        ensure!(metric(&gateway, "tickcast_cluster_record ")? > record);
        is_not_recovered(&gateway, &positions).await?;
        ensure!(metric(&gateway, "tickcast_cluster_diverged_total ")? == 0);
        second.logs("rebuilt")?;
        wait_for_records(&second, 20)?;
        first.crash()?;
        second.logs("source goes on where the log ends")?;
        course.trades(&mut reader, 200).await?;
        ensure!(course.has_epochs(2), "{:?}", course.epochs);
        ensure!(metric(&second, "tickcast_cluster_derive_mismatches_total ")? == 0);
        cluster.command("one", &["verify"])?
    };
    ensure!(code == Some(0), "{text}");
    let (code, text) = cluster.command("one", &["new-epoch"])?;
    ensure!(code == Some(1), "{text}");
    ensure!(text.contains("no publisher leads"), "{text}");
    Ok(())
}
