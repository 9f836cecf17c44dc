//! Commands for the operators of a cluster.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use tickcast::clock::Clock;
use tickcast::protocol::{Control, Op, ServerMessage};

use crate::checkpoints::{checkpoint_behind, last_record, names, record, wait_for};
use crate::process::Cluster;
use crate::{MARKET, Reader};

/// Number before this word in a text.
fn number_before(text: &str, word: &str) -> Result<u64> {
    let (before, _) = text.split_once(word).context("the word")?;
    let number = before.split_whitespace().next_back().context("a number")?;
    Ok(number.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn verify_names_the_first_record_that_is_wrong() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let publisher = cluster.checkpointing("a", MARKET, "interval: 1s")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(500).await?;
    let checkpoint = record(&checkpoint_behind(&jetstream, 10).await?)?;
    publisher.crash()?;
    let last = last_record(&jetstream).await?;
    let (code, text) = cluster.command("a", &["verify"])?;
    ensure!(code == Some(0), "{text}");
    let whole = format!("verified  records 1 to {last}, ");
    ensure!(text.contains(&whole) && text.contains("terms: 1"), "{text}");
    ensure!(text.contains("bodies    from record 1,"), "{text}");
    let events = number_before(&text, " events")?;
    ensure!(events >= 500, "{text}");
    // Behind a checkpoint the catalog is known, before it only the chain is.
    let from = (checkpoint - 1).to_string();
    let (code, text) = cluster.command("one", &["verify", "--from", &from])?;
    ensure!(code == Some(0), "{text}");
    let bodies = format!("bodies    from record {},", checkpoint + 1);
    ensure!(text.contains(&bodies), "{text}");
    ensure!(number_before(&text, " events")? < events, "{text}");
    let (code, text) = cluster.command("one", &["verify", "--from", &last.to_string()])?;
    ensure!(code == Some(0) && text.contains("bodies    none"), "{text}");
    let beyond = (last + 1).to_string();
    let (code, text) = cluster.command("one", &["verify", "--from", &beyond])?;
    ensure!(code == Some(1), "{text}");
    ensure!(text.contains(&format!("records 1 to {last};")), "{text}");
    // A copy of an old record, then bytes that are not a record.
    let stream = jetstream.get_stream("TC_LOG_main").await?;
    let copy = stream.direct_get(3).await?.payload;
    let foreign = Bytes::from_static(&[b'x'; 64]);
    for payload in [copy, foreign] {
        jetstream.publish("tc.log.main", payload).await?.await?;
    }
    let (code, text) = cluster.command("one", &["verify"])?;
    ensure!(code == Some(1), "{text}");
    let wrong = format!("record {} is wrong: it has the number 3", last + 1);
    ensure!(text.contains(&whole) && text.contains(&wrong), "{text}");
    let begin = (last + 2).to_string();
    let (code, text) = cluster.command("one", &["verify", "--from", &begin])?;
    ensure!(
        code == Some(1) && text.contains("verified  no record"),
        "{text}"
    );
    let wrong = format!("record {begin} is wrong: not a record of format TCL1");
    ensure!(text.contains(&wrong), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_that_stops_stores_a_last_checkpoint() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let publisher = cluster.checkpointing("a", MARKET, "interval: 1h")?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    ensure!(
        names(&jetstream).await?.is_empty(),
        "a checkpoint is stored"
    );
    ensure!(publisher.stop()?.success());
    let names = names(&jetstream).await?;
    let [name] = &names[..] else {
        bail!("expected one checkpoint: {names:?}");
    };
    // Behind it only records without items.
    let from = (record(name)? + 1).to_string();
    let (code, text) = cluster.command("a", &["verify", "--from", &from])?;
    ensure!(code == Some(0), "{text}");
    ensure!(number_before(&text, " events")? == 0, "{text}");
    let again = cluster.publisher("a", MARKET)?;
    again.logs("starting from a checkpoint")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_leader_stops_although_nats_does_not_answer() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let mut publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    cluster.signal_nats("-STOP")?;
    publisher.signal("-TERM")?;
    publisher.ended()?;
    publisher.logs("NATS does not answer")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_leader_stores_a_checkpoint_when_it_is_asked_to() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let jetstream = cluster.jetstream().await?;
    let publisher = cluster.checkpointing("a", MARKET, "interval: 1h")?;
    publisher.logs("leading the cluster")?;
    publisher.logs("listening for requests of operators")?;
    let mut before = 0;
    for _ in 0..2 {
        wait_for("more records", async || {
            let last = last_record(&jetstream).await?;
            Ok((last > before + 10).then_some(()))
        })
        .await?;
        let (code, text) = cluster.command("a", &["checkpoint"])?;
        ensure!(code == Some(0), "{text}");
        let newest = names(&jetstream).await?.pop().context("a checkpoint")?;
        let number = record(&newest)?;
        ensure!(number > before, "{text}: not newer than record {before}");
        let line = format!("checkpoint  record {number}, ");
        ensure!(
            text.contains("leader      a\n") && text.contains(&line),
            "{text}"
        );
        before = number;
    }
    publisher.crash()?;
    let (code, text) = cluster.command("a", &["checkpoint"])?;
    ensure!(code == Some(1), "{text}");
    ensure!(text.contains("no publisher leads cluster main"), "{text}");
    Ok(())
}

/// Pause of a handover in the output of the command, in milliseconds.
fn pause(text: &str) -> Result<f64> {
    let (before, _) = text.split_once(" ms between").context("a pause")?;
    let pause = before.split_whitespace().next_back().context("a number")?;
    Ok(pause.parse()?)
}

/// Compares the ledger of the server with that of the client, which lists no loss.
async fn check_ledger(reader: &mut Reader) -> Result<()> {
    reader.client.request(Op::Ledger).await?;
    loop {
        if let ServerMessage::Control(Control::Ledger(ledger)) = reader.next().await?
            && !ledger.more
        {
            break;
        }
    }
    let lost: u64 = reader
        .accounts
        .iter()
        .map(|(_, account)| account.lost)
        .sum();
    ensure!(lost == 0, "{lost} events lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handover_and_a_graceful_stop_need_no_lease() -> Result<()> {
    const LEASE: &str = "20s";
    const PAUSE_MS_MAX: f64 = 10_000.0;
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let mut first = cluster.with_lease("a", MARKET, LEASE)?;
    first.logs("listening for requests of operators")?;
    let second = cluster.with_lease("b", MARKET, LEASE)?;
    second.logs("standing by")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    let (code, text) = cluster.command("one", &["handover"])?;
    ensure!(code == Some(0), "{text}");
    ensure!(text.contains("leader   b since record "), "{text}");
    ensure!(text.contains(", before that a\n"), "{text}");
    ensure!(pause(&text)? < PAUSE_MS_MAX, "{text}");
    ensure!(first.ended()?.success(), "{}", first.log()?);
    second.logs("leading the cluster")?;
    reader.events(400).await?;
    // Restarted, the first one stands by, and takes over when the second one stops.
    let third = cluster.with_lease("a", MARKET, LEASE)?;
    third.logs("standing by")?;
    let clock = Clock::start();
    let since = clock.now();
    ensure!(second.stop()?.success());
    third.logs("leading the cluster")?;
    let took = clock.now().since(since).as_secs_f64() * 1e3;
    ensure!(took < PAUSE_MS_MAX, "{took} ms");
    reader.events(400).await?;
    check_ledger(&mut reader).await?;
    let (code, text) = cluster.command("one", &["verify"])?;
    ensure!(code == Some(0) && text.contains("terms: 3\n"), "{text}");
    third.logs("listening for requests of operators")?;
    let (code, text) = cluster.command("one", &["handover"])?;
    ensure!(code == Some(1), "{text}");
    ensure!(
        text.contains("no publisher stands by; a goes on leading"),
        "{text}"
    );
    reader.events(200).await?;
    third.crash()?;
    let (code, text) = cluster.command("one", &["handover"])?;
    ensure!(code == Some(1), "{text}");
    ensure!(text.contains("no publisher leads cluster main"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publisher_leads_again_if_nobody_took_over() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.with_lease("a", MARKET, "20s")?;
    first.logs("leading the cluster")?;
    ensure!(first.stop()?.success());
    let clock = Clock::start();
    let since = clock.now();
    // Another publisher need not wait for the lease either.
    let second = cluster.with_lease("b", MARKET, "20s")?;
    second.logs("leading the cluster")?;
    ensure!(second.stop()?.success());
    let again = cluster.with_lease("b", MARKET, "20s")?;
    again.logs("leading the cluster")?;
    let took = clock.now().since(since);
    ensure!(took < Duration::from_secs(15), "{took:?}");
    Ok(())
}
