//! Graceful shutdown saves the state, and the next server continues in the same epoch; after a
//! crash it begins a new one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::app::App;
use tickcast::client::Client;
use tickcast::config::Config;
use tickcast::protocol::{
    Control, DataEvent, Encoding, ResumeFrom, Seq, ServerMessage, SourceState, Subscribe,
};

use crate::harness::{Stopwatch, Tracked, market, subscribe};

async fn serve(address: SocketAddr, state: Option<&Path>, config: &str) -> Result<App> {
    let state = state.map_or_else(String::new, |folder| {
        format!("state_dir: {}\n", folder.display())
    });
    let text = format!("listen: {address}\nadmin: {{listen: off}}\n{state}{config}");
    let config = Config::parse(&text, "test").with_context(|| text.clone())?;
    Ok(App::start(&config).await?)
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

async fn connect(address: SocketAddr) -> Result<Tracked> {
    Tracked::welcome(Client::connect(address, Encoding::Msgpack).await?).await
}

fn heads(client: &Tracked) -> HashMap<String, Seq> {
    client
        .accounts
        .iter()
        .map(|(topic, account)| (topic.clone(), account.head))
        .collect()
}

/// Subscribes and continues from `heads`; returns whether all of it was recovered, and the messages
/// received instead.
async fn resume(client: &mut Tracked, epoch: &str, heads: &HashMap<String, Seq>) -> Result<bool> {
    let topics: Vec<&str> = heads.keys().map(String::as_str).collect();
    let from = ResumeFrom {
        epoch: epoch.to_owned(),
        seqs: heads
            .iter()
            .map(|(topic, seq)| (topic.into(), *seq))
            .collect(),
        epochs: Vec::new(),
    };
    let request = Subscribe {
        from: Some(from),
        ..subscribe(&topics)
    };
    let response = client.subscribe(request).await?;
    ensure!(
        response.err.is_empty() && response.ok.len() == topics.len(),
        "{response:?}"
    );
    let recovered = response
        .ok
        .iter()
        .all(|entry| entry.recovered == Some(true));
    if recovered {
        for (topic, head) in heads {
            client.accounts.resume(topic, *head);
        }
    }
    Ok(recovered)
}

/// Reads until each topic is `more` events further; no event may be missing or repeated.
async fn read_on(client: &mut Tracked, heads: &mut HashMap<String, Seq>, more: u64) -> Result<()> {
    let wanted: HashMap<String, Seq> = heads
        .iter()
        .map(|(topic, head)| (topic.clone(), Seq(head.0 + more)))
        .collect();
    while wanted.iter().any(|(topic, wanted)| heads[topic] < *wanted) {
        match client.next().await? {
            ServerMessage::Events(events) => {
                for event in events {
                    let head = heads
                        .get_mut(&event.topic.to_string())
                        .context("unexpected topic")?;
                    ensure!(
                        event.seq == head.next(),
                        "{}: {} after {head}",
                        event.topic,
                        event.seq
                    );
                    *head = event.seq;
                }
            }
            ServerMessage::Control(received @ (Control::Snapshot(_) | Control::Gap(_))) => {
                anyhow::bail!("everything was recovered, but {received:?} was received")
            }
            ServerMessage::Control(_) => {}
        }
    }
    Ok(())
}

/// Experience of one client: time of its return, and its reconnect slot.
struct Reconnect {
    slot_ms: u64,
    returned_ms: u64,
}

async fn reconnect_through_a_deploy(
    address: SocketAddr,
    begun: std::sync::Arc<std::sync::OnceLock<Stopwatch>>,
    mut is_replaced: tokio::sync::watch::Receiver<bool>,
) -> Result<Reconnect> {
    let mut client = connect(address).await?;
    client
        .subscribe(subscribe(&["trade:S1", "quote:S1", "bar:S1:1s"]))
        .await?;
    let epoch = client.welcome.epoch.clone();
    let (bye, code) = client.closed().await?;
    let bye = bye.context("no bye received")?;
    ensure!((bye.reconnect, code) == (true, 1012), "{bye:?} {code}");
    let begun = begun.get_or_init(Stopwatch::start);
    tokio::time::sleep(Duration::from_millis(bye.after_ms)).await;
    let mut heads = heads(&client);
    // The new process may not listen yet.
    is_replaced.wait_for(|replaced| *replaced).await?;
    let mut next = connect(address).await?;
    let returned_ms = begun.elapsed().as_millis() as u64;
    ensure!(next.welcome.epoch == epoch, "the epoch changed");
    ensure!(resume(&mut next, &epoch, &heads).await?, "recovered");
    read_on(&mut next, &mut heads, 5).await?;
    let ledger = next.ledger().await?;
    ensure!(
        ledger
            .iter()
            .all(|entry| entry.head.since(entry.start)
                == entry.delivered + entry.merged + entry.lost),
        "{ledger:?}"
    );
    Ok(Reconnect {
        slot_ms: bye.after_ms,
        returned_ms,
    })
}

/// One process replaces another on the same port: all clients reconnect in their slots, and nothing
/// is lost or repeated.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn a_deploy_loses_no_event_and_no_resume_position() -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let clients = 1_000;
    let folder = tempfile::tempdir()?;
    let spread_ms = 2_000;
    // Low event rate, so the clients keep up even on a machine under other load.
    let config = market(
        1,
        8,
        &format!(
            "drain: {{deadline: 30s, spread: {spread_ms}ms}}\nlimits: {{requests_per_s: 1000}}\nadmin: {{metrics_on_feed: true}}"
        ),
    );
    let file = folder.path().join("feeds.yaml").display().to_string();
    std::fs::write(&file, config)?;
    let state = folder.path().join("state").display().to_string();
    let old = crate::terminal::serve(&["--config", &file, "--state-dir", &state])?;
    let address: SocketAddr = old.address.parse()?;
    let begun = std::sync::Arc::default();
    let (replace, is_replaced) = tokio::sync::watch::channel(false);
    let one = |_| {
        tokio::spawn(reconnect_through_a_deploy(
            address,
            std::sync::Arc::clone(&begun),
            is_replaced.clone(),
        ))
    };
    let all: Vec<_> = (0..clients).map(one).collect();
    let waiting = async {
        while metric(address, "tickcast_subscriptions").await? < 3 * clients {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(crate::harness::DEADLINE, waiting)
        .await
        .context("not all connections subscribed")??;
    let replaced = move || -> Result<crate::terminal::Served> {
        ensure!(
            old.terminate()?.success(),
            "the server did not stop gracefully"
        );
        crate::terminal::serve(&[
            "--config",
            &file,
            "--state-dir",
            &state,
            "--listen",
            &address.to_string(),
        ])
    };
    let new = tokio::task::spawn_blocking(replaced).await??;
    replace.send(true)?;
    let mut passages = Vec::new();
    for one in all {
        passages.push(one.await??);
    }
    assert_eq!(passages.len() as i64, clients);
    // No client returned before its slot, and the slots are spread evenly.
    assert!(
        passages.iter().all(|one| one.returned_ms >= one.slot_ms),
        "a client reconnected before its slot"
    );
    let mut slots: Vec<u64> = passages.iter().map(|one| one.slot_ms).collect();
    slots.sort_unstable();
    slots.dedup();
    assert!(
        slots.len() > 900 && slots.last() < Some(&spread_ms),
        "{} slots up to {:?}",
        slots.len(),
        slots.last()
    );
    for quarter in 0..4 {
        let of = (quarter * spread_ms / 4)..((quarter + 1) * spread_ms / 4);
        let share = passages
            .iter()
            .filter(|one| of.contains(&one.slot_ms))
            .count();
        assert!(
            (200..=300).contains(&share),
            "{share} of {clients} in quarter {quarter}"
        );
    }
    assert_eq!(
        metric(address, "tickcast_events_unaccounted_total").await?,
        0
    );
    assert_eq!(
        metric(address, "tickcast_resumes_total{outcome=\"recovered\"}").await?,
        3 * clients
    );
    drop(new);
    Ok(())
}

/// Metric of a running process.
async fn metric(address: SocketAddr, name: &str) -> Result<i64> {
    let response = crate::harness::exchange(
        address,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await?;
    let value = response
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| name.to_owned())
}

/// Each recorded trade is delivered once, in order, although the server was replaced twice in the
/// middle.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn a_replay_continues_at_its_position_after_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tape = folder.path().join("BTCUSDT-trades-2024-08-08.csv");
    let row = |at: u64| {
        format!(
            "{at},{}.00,0.01,600.00,{},true,true",
            60_000 + at % 9,
            1_723_075_200_000 + 10 * at
        )
    };
    std::fs::write(&tape, (0..700).map(row).collect::<Vec<_>>().join("\n"))?;
    let config = format!(
        "sources: [{{name: tape, kind: replay, files: [\"{}\"], begin: first-subscriber}}]",
        tape.display()
    );
    let mut server = serve(any_port(), Some(folder.path()), &config).await?;
    let address = server.address();
    let mut client = connect(address).await?;
    client
        .subscribe(subscribe(&["trade:BTCUSDT", "bar:BTCUSDT:1s"]))
        .await?;
    let mut heads = HashMap::from([
        ("trade:BTCUSDT".to_owned(), Seq::START),
        ("bar:BTCUSDT:1s".to_owned(), Seq::START),
    ]);
    for _ in 0..2 {
        client
            .until("trades", |message| {
                matches!(message, ServerMessage::Events(_)).then_some(())
            })
            .await?;
        heads = self::heads(&client);
        let stopping = tokio::spawn(server.stop());
        let (epoch, _) = (client.welcome.epoch.clone(), client.closed().await?);
        heads.extend(self::heads(&client));
        stopping.await?;
        server = serve(address, Some(folder.path()), &config).await?;
        client = connect(address).await?;
        assert!(resume(&mut client, &epoch, &heads).await?, "recovered");
    }
    // A trade's sequence number is its row number, so a missing or repeated row would show.
    while heads["trade:BTCUSDT"] < Seq(700) {
        if let ServerMessage::Events(events) = client.next().await? {
            for event in events {
                let head = heads
                    .get_mut(&event.topic.to_string())
                    .context("the topic is not subscribed")?;
                assert_eq!(event.seq, head.next());
                *head = event.seq;
                if let tickcast::market::Body::Trade(trade) = &event.body {
                    assert_eq!(
                        trade.id,
                        tickcast::market::TradeId::Number(event.seq.previous().0)
                    );
                }
            }
        }
    }
    // An ended replay stays ended.
    client
        .control("the end of the source", |control| {
            matches!(control, Control::Source(change) if change.state == SourceState::Ended)
                .then_some(())
        })
        .await?;
    let (epoch, heads) = (client.welcome.epoch.clone(), self::heads(&client));
    drop(client);
    server.stop().await;
    let server = serve(address, Some(folder.path()), &config).await?;
    let mut client = connect(address).await?;
    assert!(resume(&mut client, &epoch, &heads).await?, "recovered");
    assert!(
        client
            .ledger()
            .await?
            .iter()
            .all(|entry| entry.delivered == 0 && entry.pending == 0),
        "rows were replayed twice"
    );
    server.stop().await;
    Ok(())
}

/// A file added while the server is down does not shift the positions of the others: each row is
/// replayed once, in the same epoch, and rows of the new file from the position on.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_added_before_the_restart_shifts_no_position() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (tapes, state) = (folder.path().join("tapes"), folder.path().join("state"));
    std::fs::create_dir(&tapes)?;
    let row = |at: u64| format!("{at},5.00,1,5,{},true\n", 1_723_075_200_000 + 5 * at);
    let tape = |rows: &mut dyn Iterator<Item = u64>| rows.map(row).collect::<String>();
    let file = |name: &str| tapes.join(format!("A-trades-{name}.csv"));
    std::fs::write(file("m"), tape(&mut (0..1200).filter(|at| at % 2 == 0)))?;
    let config = format!(
        "sources: [{{name: tape, kind: replay, files: [\"{}/*.csv\"], begin: first-subscriber}}]",
        tapes.display()
    );
    let server = serve(any_port(), Some(&state), &config).await?;
    let address = server.address();
    let mut client = connect(address).await?;
    client.subscribe(subscribe(&["trade:A"])).await?;
    client
        .until("trades", |message| {
            matches!(message, ServerMessage::Events(_)).then_some(())
        })
        .await?;
    let stopping = tokio::spawn(server.stop());
    let (epoch, _) = (client.welcome.epoch.clone(), client.closed().await?);
    let heads = self::heads(&client);
    stopping.await?;
    // Its first rows are older than the position, and its name sorts before the other's.
    std::fs::write(file("a"), tape(&mut (0..1200).filter(|at| at % 2 == 1)))?;
    let server = serve(address, Some(&state), &config).await?;
    let mut client = connect(address).await?;
    assert!(resume(&mut client, &epoch, &heads).await?, "recovered");
    let (mut seq, mut ids) = (heads["trade:A"], Vec::new());
    while ids.last() != Some(&1199) {
        if let ServerMessage::Events(events) = client.next().await? {
            for event in events {
                seq = seq.next();
                assert_eq!(event.seq, seq);
                if let tickcast::market::Body::Trade(trade) = &event.body {
                    ids.push(trade.id.text().parse::<u64>()?);
                }
            }
        }
    }
    // Older rows of the new file are skipped; from there on every row of both is replayed, in
    // order.
    let first = ids[0];
    assert!(
        first > 0 && first % 2 == 0,
        "the old file does not continue: {first}"
    );
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let both = ids.iter().skip_while(|id| *id % 2 == 0);
    assert!(both.clone().count() > 100);
    assert!(
        both.clone()
            .zip(both.skip(1))
            .all(|(one, next)| one + 1 == *next)
    );
    let skipped = server.file_reports("tape");
    let of_new = skipped.iter().find(|file| file.file.contains("trades-a"));
    assert!(of_new.context("missing account of the new file")?.skipped["before_position"] > 0);
    server.stop().await;
    Ok(())
}

/// A symbol that appears late in the files is available immediately after a restart, before the
/// replay reaches it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_symbol_of_a_replay_is_available_at_server_start() -> Result<()> {
    const ROWS: u64 = 200_000;
    let folder = tempfile::tempdir()?;
    let tape = folder.path().join("tape.csv");
    let mut lines = "time,symbol,price,qty\n".to_owned();
    for at in 0..ROWS {
        let symbol = if at == ROWS / 2 { "LATE" } else { "EARLY" };
        writeln!(
            lines,
            "{},{symbol},100.5,1",
            1_723_075_200_000_000_000 + 1_000_000 * at
        )?;
    }
    std::fs::write(&tape, lines)?;
    let columns = "{time: time, symbol: symbol, price: price, qty: qty}";
    let config = format!(
        "sources: [{{name: tape, kind: replay, speed: 50, begin: first-subscriber, columns: {columns}, files: [\"{}\"]}}]",
        tape.display()
    );
    let server = serve(any_port(), Some(folder.path()), &config).await?;
    let address = server.address();
    let mut client = connect(address).await?;
    client.subscribe(subscribe(&["trade:*"])).await?;
    let late = |event: &DataEvent| (event.topic.to_string() == "trade:LATE").then_some(event.seq);
    let seq = client
        .until("the late symbol", |message| match message {
            ServerMessage::Events(events) => events.iter().find_map(late),
            ServerMessage::Control(_) => None,
        })
        .await?;
    let heads = HashMap::from([("trade:LATE".to_owned(), seq)]);
    let epoch = client.welcome.epoch.clone();
    drop(client);
    server.stop().await;
    let server = serve(address, Some(folder.path()), &config).await?;
    let mut client = connect(address).await?;
    assert!(resume(&mut client, &epoch, &heads).await?, "recovered");
    server.stop().await;
    Ok(())
}

async fn reconnects_to_another_epoch(
    address: SocketAddr,
    epoch: &str,
    heads: &HashMap<String, Seq>,
) -> Result<()> {
    let mut client = connect(address).await?;
    assert_ne!(
        client.welcome.epoch, epoch,
        "the epoch continues without state"
    );
    assert!(
        !resume(&mut client, epoch, heads).await?,
        "recovery without state"
    );
    let snapshots = client.accounts.iter().count();
    assert_eq!(snapshots, heads.len());
    client.events(20).await?;
    let ledger = client.ledger().await?;
    assert!(
        ledger
            .iter()
            .all(|entry| entry.head.since(entry.start)
                == entry.delivered + entry.merged + entry.lost)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_state_a_server_begins_a_new_epoch_with_snapshots() -> Result<()> {
    let config = market(2, 400, "");
    let folder = tempfile::tempdir()?;
    // Without a state directory; with a damaged state; with a state of other sources.
    for (state, damage, next) in [
        (None, false, None),
        (Some(folder.path()), true, None),
        (Some(folder.path()), false, Some("seed: 8")),
    ] {
        let old = serve(any_port(), state, &config).await?;
        let address = old.address();
        let mut client = connect(address).await?;
        client
            .subscribe(subscribe(&["trade:S1", "quote:S2"]))
            .await?;
        client.events(50).await?;
        let (epoch, heads) = (client.welcome.epoch.clone(), heads(&client));
        old.stop().await;
        if damage {
            let file = folder.path().join("state");
            let mut bytes = std::fs::read(&file)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&file, bytes)?;
        }
        let config = next.map_or(config.clone(), |seed| config.replace("seed: 7", seed));
        let new = serve(address, state, &config).await?;
        if next.is_none() {
            reconnects_to_another_epoch(address, &epoch, &heads).await?;
        } else {
            // The server's epoch continues; the topics, whose source starts over, get a new one.
            let mut client = connect(address).await?;
            assert_eq!(client.welcome.epoch, epoch);
            assert!(
                !resume(&mut client, &epoch, &heads).await?,
                "recovery without state"
            );
            client.events(20).await?;
            client.ledger().await?;
        }
        new.stop().await;
    }
    Ok(())
}

/// A killed process leaves no state, and the next one reports it.
#[test]
fn after_a_kill_the_next_server_reports_it_and_begins_a_new_epoch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let folder = folder.path().join("state").display().to_string();
    let arguments = ["--sim-instruments", "2", "--state-dir", &folder];
    let epochs = |served: &crate::terminal::Served| -> Result<String> {
        let runtime = tokio::runtime::Runtime::new()?;
        Ok(runtime
            .block_on(connect(served.address.parse()?))?
            .welcome
            .epoch)
    };
    let first = crate::terminal::serve(&arguments)?;
    let before = epochs(&first)?;
    drop(first);
    let (second, stderr) = crate::terminal::serve_with_stderr(&arguments)?;
    assert_ne!(epochs(&second)?, before);
    assert!(
        stderr.contains("starting a new epoch") && stderr.contains("for example in a crash"),
        "{stderr}"
    );
    Ok(())
}

/// A topic that one server in between does not have keeps its numbers: they are never reused for
/// other events.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_missing_for_a_while_begins_a_new_epoch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (both, one) = (market(2, 400, ""), market(1, 200, ""));
    let server = serve(any_port(), Some(folder.path()), &both).await?;
    let address = server.address();
    let mut client = connect(address).await?;
    client.subscribe(subscribe(&["trade:S2"])).await?;
    client.events(20).await?;
    let (epoch, heads) = (client.welcome.epoch.clone(), heads(&client));
    drop(client);
    server.stop().await;
    serve(address, Some(folder.path()), &one)
        .await?
        .stop()
        .await;
    let server = serve(address, Some(folder.path()), &both).await?;
    let mut other = connect(address).await?;
    assert_eq!(other.welcome.epoch, epoch);
    other.subscribe(subscribe(&["trade:S2"])).await?;
    // More events than before, so the position could be mistaken for one of these.
    other.events(60).await?;
    let mut back = connect(address).await?;
    assert!(
        !resume(&mut back, &epoch, &heads).await?,
        "recovery without state"
    );
    back.ledger().await?;
    server.stop().await;
    Ok(())
}
