//! Checkpoints of the shared log: a server starts from one instead of the first record.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::Context;
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish};
use futures_util::TryStreamExt;
use tokio::time::timeout;

use crate::process::{Cluster, DEADLINE, Process};
use crate::{MARKET, Reader};

const PUSHED: &str =
    "[{name: in, kind: push, open: true, instruments: [{symbol: BTC-USD}, {symbol: ETH-USD}]}]";
/// Pause between two looks at the bucket.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `look` finds something in NATS.
pub(crate) async fn wait_for<T>(
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    timeout(DEADLINE, found)
        .await
        .with_context(|| format!("no {what}"))?
}

/// Names of the checkpoints, oldest first; none without a bucket.
pub(crate) async fn names(jetstream: &Context) -> Result<Vec<String>> {
    let Ok(bucket) = jetstream.get_object_store("TC_CHECKPOINTS_main").await else {
        return Ok(Vec::new());
    };
    let objects: Vec<_> = bucket.list().await?.try_collect().await?;
    let names: BTreeSet<String> = objects.into_iter().map(|object| object.name).collect();
    Ok(names.into_iter().collect())
}

async fn bucket(jetstream: &Context) -> Result<ObjectStore> {
    Ok(jetstream.get_object_store("TC_CHECKPOINTS_main").await?)
}

/// Number of the record of a checkpoint.
pub(crate) fn record(name: &str) -> Result<u64> {
    let (_, number) = name.split_once('-').context("ORIGIN-RECORD")?;
    Ok(number.parse()?)
}

/// Waits for a checkpoint behind a record.
pub(crate) async fn checkpoint_behind(jetstream: &Context, number: u64) -> Result<String> {
    wait_for("checkpoint", async || {
        let newest = names(jetstream).await?.pop();
        Ok(newest.filter(|name| record(name).is_ok_and(|found| found >= number)))
    })
    .await
}

/// Number of the last record.
pub(crate) async fn last_record(jetstream: &Context) -> Result<u64> {
    let stream = jetstream.get_stream("TC_LOG_main").await?;
    Ok(stream.get_info().await?.state.last_sequence)
}

/// Creates the log with room for few records.
pub(crate) async fn small_log(jetstream: &Context) -> Result<()> {
    let (log, live) = ("tc.log.main".to_owned(), "tc.live.main".to_owned());
    let config = Config {
        name: "TC_LOG_main".to_owned(),
        subjects: vec![log.clone()],
        max_bytes: 1 << 20,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        republish: Some(Republish {
            source: log,
            destination: live,
            headers_only: false,
        }),
        ..Config::default()
    };
    jetstream.create_stream(config).await?;
    Ok(())
}

/// Waits until the log no longer contains its first record.
pub(crate) async fn first_record_is_gone(jetstream: &Context) -> Result<()> {
    wait_for("cut log", async || {
        let stream = jetstream.get_stream("TC_LOG_main").await?;
        let first = stream.get_info().await?.state.first_sequence;
        Ok((first > 1).then_some(()))
    })
    .await
}

/// Publishes trades and quotes with increasing prices.
fn push(publisher: &Process, numbers: std::ops::Range<u32>) -> Result<()> {
    let one = |number: u32| {
        let symbol = ["BTC-USD", "ETH-USD"][number as usize % 2];
        format!(
            "{{\"ch\":\"trade\",\"sym\":\"{symbol}\",\"px\":\"{number}.5\",\"qty\":\"2\",\"id\":\"{number}\"}}\n\
             {{\"ch\":\"quote\",\"sym\":\"{symbol}\",\"bid\":\"{number}\",\"bidq\":\"1\",\"ask\":\"{number}.5\",\"askq\":\"1\"}}\n"
        )
    };
    let body: String = numbers.map(one).collect();
    let url = format!("http://{}/v1/publish", publisher.address);
    let sent = ureq::post(&url)
        .content_type("application/x-ndjson")
        .send(body)?;
    ensure!(sent.status() == 200, "{}", sent.status());
    Ok(())
}

/// State of all topics at a gateway.
fn state(gateway: &Process) -> Result<String> {
    let topics = "trade:*,quote:*,ticker:*,bar:*:1s,bar:*:1m,bar:*:1h,status:*";
    let url = format!(
        "http://{}/v1/snapshot?topics={topics}&events=50",
        gateway.address
    );
    Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
}

/// Waits until a gateway shows this trade; returns its state.
async fn state_with(gateway: &Process, id: u32) -> Result<String> {
    let id = format!("\"id\":\"{id}\"");
    wait_for("trade", async || {
        Ok(Some(state(gateway)?).filter(|state| state.contains(&id)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_from_a_checkpoint_equals_one_from_the_first_record() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let publisher = cluster.checkpointing("a", PUSHED, "interval: 1s")?;
    publisher.logs("leading the cluster")?;
    let whole = cluster.gateway("whole")?;
    push(&publisher, 0..200)?;
    state_with(&whole, 199).await?;
    let name = checkpoint_behind(&jetstream, last_record(&jetstream).await?).await?;
    push(&publisher, 200..300)?;
    state_with(&whole, 299).await?;
    let mut reader = Reader::connect(&whole).await?;
    reader.subscribe(None).await?;
    push(&publisher, 300..301)?;
    reader.events(2).await?;
    // Positions behind the checkpoint, where a client goes on at the other gateway.
    let positions = reader.positions;
    push(&publisher, 301..400)?;
    let restored = cluster.gateway_with_history("restored", "1s")?;
    let log = restored.log()?;
    ensure!(log.contains("starting from a checkpoint"), "{log}");
    ensure!(!whole.log()?.contains("starting from a checkpoint"));
    ensure!(record(&name)? > 1);
    let both = async || {
        let states = (
            state_with(&whole, 399).await?,
            state_with(&restored, 399).await?,
        );
        Ok(Some(states.0.clone()).filter(|_| states.0 == states.1))
    };
    let same = wait_for("equal state", both).await?;
    for channel in ["trade:", "quote:", "ticker:", "bar:", "status:"] {
        ensure!(
            same.contains(&format!("\"topic\":\"{channel}")),
            "{channel}: {same}"
        );
    }
    let (mut first, mut second) = (
        Reader::connect(&whole).await?,
        Reader::connect(&restored).await?,
    );
    first.subscribe(Some(&positions)).await?;
    second.subscribe(Some(&positions)).await?;
    push(&publisher, 400..500)?;
    let (first, second) = tokio::try_join!(first.events(150), second.events(150))?;
    let both: Vec<_> = first
        .keys()
        .filter(|key| second.contains_key(*key))
        .collect();
    ensure!(both.len() > 100, "{} events in common", both.len());
    for key in both {
        ensure!(first[key] == second[key], "{key:?} differs");
    }
    let before = positions.resume_from().context("positions")?;
    let trades = before
        .seqs
        .iter()
        .filter(|(topic, _)| topic.starts_with("trade"));
    for (topic, seq) in trades {
        let next = (topic.to_string(), seq.0 + 1);
        ensure!(second.contains_key(&next), "{next:?} is missing");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_damaged_checkpoint_is_skipped_with_a_warning() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let first = cluster.checkpointing("a", MARKET, "interval: 1s")?;
    let two = wait_for("two checkpoints", async || {
        Ok(Some(names(&jetstream).await?).filter(|names| names.len() >= 2))
    });
    two.await?;
    ensure!(first.stop()?.success());
    let mut names = names(&jetstream).await?;
    let bucket = bucket(&jetstream).await?;
    let damaged = names.pop().context("two checkpoints")?;
    // Valid marker, and objects with other names.
    bucket
        .put(damaged.as_str(), &mut &b"TCC1 and then nothing of use"[..])
        .await?;
    bucket.put("zz", &mut &b"foreign"[..]).await?;
    let last = format!("{:016x}-{}", 0, u64::MAX);
    bucket.put(last.as_str(), &mut &b""[..]).await?;
    let second = cluster.publisher("b", MARKET)?;
    second.logs("leading the cluster")?;
    let log = second.log()?;
    let line = |record: u64, text: &str| {
        log.lines()
            .any(|line| line.contains(text) && line.contains(&format!("record={record}")))
    };
    ensure!(line(record(&damaged)?, "cannot use a checkpoint"), "{log}");
    let before = names.pop().context("two checkpoints")?;
    ensure!(
        line(record(&before)?, "starting from a checkpoint"),
        "{log}"
    );
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_cut_log_without_checkpoints_is_refused_by_name() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    small_log(&jetstream).await?;
    let publisher = cluster.checkpointing("a", MARKET, "interval: 1h")?;
    publisher.logs("leading the cluster")?;
    first_record_is_gone(&jetstream).await?;
    match cluster.gateway("one") {
        Ok(_) => bail!("a gateway has started without the first record"),
        Err(error) => ensure!(
            error
                .to_string()
                .contains("the shared log begins with record")
                && error.to_string().contains("no checkpoint leads to it"),
            "{error}"
        ),
    }
    let (code, status) = cluster.status("a")?;
    ensure!(code == Some(1), "{status}");
    ensure!(status.contains("no server can start"), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn servers_start_and_take_over_without_the_first_record() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    small_log(&jetstream).await?;
    let first = cluster.checkpointing("a", MARKET, "interval: 1s")?;
    first.logs("leading the cluster")?;
    first_record_is_gone(&jetstream).await?;
    checkpoint_behind(&jetstream, last_record(&jetstream).await?).await?;
    let second = cluster.publisher("b", MARKET)?;
    let gateway = cluster.gateway_with_history("one", "1s")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    first.crash()?;
    second.logs("leading the cluster")?;
    reader.events(200).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_status_of_a_cluster_names_leader_checkpoints_and_problems() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let first = cluster.checkpointing("a", MARKET, "interval: 5s")?;
    first.logs("leading the cluster")?;
    let (code, status) = cluster.status("a")?;
    ensure!(
        code == Some(0) && status.contains("leader       a, term 1\n"),
        "{status}"
    );
    ensure!(status.contains("checkpoints  0\n"), "{status}");
    first.crash()?;
    wait_for("report of the silence", async || {
        let (code, status) = cluster.status("a")?;
        Ok((code == Some(1) && status.contains("no publisher leads")).then_some(()))
    })
    .await?;
    let second = cluster.checkpointing("b", MARKET, "interval: 1s")?;
    let name = checkpoint_behind(&jetstream, 10).await?;
    second.logs("leading the cluster")?;
    let (code, status) = cluster.status("b")?;
    ensure!(
        code == Some(0) && status.contains("leader       b, term 2\n"),
        "{status}"
    );
    ensure!(
        status.contains(&format!("record {},", record(&name)?)),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn old_checkpoints_are_deleted() -> Result<()> {
    const KEPT: usize = 2;
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let _publisher = cluster.checkpointing("a", MARKET, "interval: 1s, kept: 2")?;
    let mut seen = BTreeSet::new();
    wait_for("five checkpoints", async || {
        let now = names(&jetstream).await?;
        // One is stored before another is deleted.
        ensure!(now.len() <= KEPT + 1, "{now:?}");
        seen.extend(now);
        Ok((seen.len() >= 5).then_some(()))
    })
    .await?;
    let stream = jetstream.get_stream("OBJ_TC_CHECKPOINTS_main").await?;
    let subjects = stream.get_info().await?.state.subjects_count;
    // A name and parts of each, and parts of one that is being stored.
    ensure!(subjects <= 2 * (KEPT as u64 + 1) + 1, "{subjects} subjects");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn checkpoints_of_another_log_are_not_used() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let first = cluster.checkpointing("a", MARKET, "interval: 1s")?;
    let old = checkpoint_behind(&jetstream, 10).await?;
    ensure!(first.stop()?.success());
    jetstream.delete_stream("TC_LOG_main").await?;
    let second = cluster.publisher("b", MARKET)?;
    second.logs("leading the cluster")?;
    let number = record(&old)?;
    wait_for("as many records", async || {
        Ok((last_record(&jetstream).await? > number).then_some(()))
    })
    .await?;
    let third = cluster.checkpointing("c", MARKET, "interval: 1s")?;
    third.logs("the log is another one")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    second.crash()?;
    third.logs("leading the cluster")?;
    wait_for("only checkpoints of the new log", async || {
        let names = names(&jetstream).await?;
        let is_old = |name: &String| name.split('-').next() == old.split('-').next();
        Ok((!names.is_empty() && !names.iter().any(is_old)).then_some(()))
    })
    .await?;
    Ok(())
}
