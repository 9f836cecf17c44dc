//! Load tester: its figures are correct, and it detects broken promises.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tickcast::codec::{decode_request, encode_control};
use tickcast::load::{
    Dialect, LoadError, Outcome, Plan, Probes, RawPlan, Skew, TopicChoice, run, run_with_topics,
    write_html, write_table,
};
use tickcast::protocol::{
    Control, Encoding, Entry, LedgerAnswer, LedgerEntry, Limits, Mode, OnSlow, Op, Seq, Settings,
    Subscribed, Welcome,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Feed, market};
use crate::terminal::serve;

const LIMITS: &str = "limits: {requests_per_s: 1000}\nsession: {heartbeat: 200ms}\nfanout: {unsent: 16KiB, outbox: 128KiB}";

fn plan(address: SocketAddr, names: &[&str]) -> Plan {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Plan {
        duration: Duration::from_secs(2),
        warmup: Duration::from_millis(200),
        ..Plan::new(address, names)
    }
}

async fn run_test(plan: Plan) -> Result<Outcome> {
    Ok(tokio::task::spawn_blocking(move || run(&plan, &mut |_| false)).await??)
}

/// Address of a proxy of a feed; its fourth connection reaches the feed once three have ended.
async fn proxy_that_holds_back_the_fourth(feed: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (subscribers, ended) = (AtomicUsize::new(0), Semaphore::new(0));
    let counts = Arc::new((subscribers, ended));
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let counts = Arc::clone(&counts);
            tokio::spawn(async move {
                let (subscribers, ended) = &*counts;
                let mut head = [0; 12];
                let read = near.peek(&mut head).await.unwrap_or(0);
                let subscribes = head[..read] == *b"GET /v1/feed";
                if subscribes && subscribers.fetch_add(1, Ordering::Relaxed) == 3 {
                    let _three = ended.acquire_many(3).await;
                }
                if let Ok(mut far) = TcpStream::connect(feed).await {
                    let _over = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                ended.add_permits(usize::from(subscribes));
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_load_test_waits_for_a_connection_that_churn_opens_again() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "")).await?;
    // Besides the two connections, one asks for the topics before the test, and churn opens one.
    let plan = Plan {
        connections: 2,
        workers: 1,
        churn_per_s: 1.0,
        duration: Duration::from_millis(1_500),
        ..plan(
            proxy_that_holds_back_the_fourth(feed.address).await?,
            &["quote:*"],
        )
    };
    let outcome = run_test(plan).await?;
    assert!(outcome.is_sound(), "{:#?}", outcome.failures);
    let ledger = outcome.ledger.context("missing ledger sums")?;
    assert_eq!((ledger.connections, outcome.tally.opened), (2, 3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ledger_of_a_load_test_balances() -> Result<()> {
    let feed = Feed::start(&market(20, 4_000, LIMITS)).await?;
    for encoding in Encoding::ALL {
        let plan = Plan {
            connections: 60,
            encoding,
            topics: TopicChoice::Draw {
                names: vec!["quote:*".into(), "trade:*".into(), "bar:*:1s".into()],
                each: 12,
                skew: Skew::Zipf(1.0),
            },
            modes: "raw:70,interval-100ms:20,conflate:10".parse()?,
            slow: "10%".parse()?,
            slow_bytes_per_s: 4_000,
            stalled: "5%".parse()?,
            churn_per_s: 10.0,
            storm: true,
            workers: 2,
            ..plan(feed.address, &[])
        };
        let outcome = run_test(plan).await?;
        assert!(outcome.is_sound(), "{:#?}", outcome.failures);
        let ledger = outcome.ledger.context("missing ledger sums")?;
        assert_eq!((ledger.connections, ledger.topics), (60, 720));
        assert!(
            outcome.tally.recovered > 0 && outcome.tally.expired == 0 && outcome.tally.opened > 60,
            "{} resumed",
            outcome.tally.recovered
        );
        assert!(outcome.storm_s.is_some_and(|took| took < 5.0) && outcome.tally.closed.is_empty());
        assert!(outcome.tally.delivered > 5_000 && ledger.merged > 0);
        let (due, published) = (
            outcome
                .due
                .context("no latency from the due time was measured")?,
            outcome
                .published
                .context("no latency from publication was measured")?,
        );
        assert!(due.count > 500 && due.max >= published.p50 && outcome.generator_lag.is_some());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_counters_count_the_same() -> Result<()> {
    let feed = Feed::start(&market(4, 2_000, LIMITS)).await?;
    let count = |probes| {
        run_test(Plan {
            connections: 4,
            probes,
            ..plan(feed.address, &["quote:*"])
        })
    };
    let (decoded, counted) = (count(Probes::All).await?, count(Probes::Count(1)).await?);
    for outcome in [&decoded, &counted] {
        assert!(outcome.is_sound(), "{:?}", outcome.failures);
        let ledger = outcome.ledger.context("missing ledger sums")?;
        assert!(
            ledger.delivered >= outcome.tally.delivered && outcome.tally.delivered > 4 * 1_000,
            "{ledger:?}"
        );
    }
    assert_eq!((decoded.probes, counted.probes), (4, 1));
    let measured = decoded
        .published
        .context("no latency from four probes")?
        .count;
    let tally = &decoded.tally;
    assert!(
        measured <= tally.delivered && measured + tally.negative >= tally.delivered,
        "each event has its latency: {measured}, {tally:?}"
    );
    let share = counted
        .published
        .context("no latency from one probe")?
        .count as f64
        / decoded
            .published
            .context("no latency from four probes")?
            .count as f64;
    assert!(
        (0.15..0.4).contains(&share),
        "one of four probes measures a quarter of the events: {share}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_connections_read_late_and_lose_nothing() -> Result<()> {
    let feed = Feed::start(&market(2, 1_000, LIMITS)).await?;
    let pause = Duration::from_millis(600);
    let outcome = run_test(Plan {
        connections: 4,
        pause,
        pause_every: Duration::from_secs(3),
        warmup: Duration::ZERO,
        duration: Duration::from_secs(5),
        topics: TopicChoice::All(vec!["quote:*".into()]),
        ..plan(feed.address, &[])
    })
    .await?;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    // The first pause begins with the subscription, the second one three seconds later; a second of
    // the report may share a pause with the next one.
    let paused = |from: usize, to: usize| {
        let seconds = outcome.seconds.get(from..to).unwrap_or_default();
        seconds.iter().map(|second| second.max).max()
    };
    for longest in [paused(0, 2), paused(2, 5)] {
        assert!(
            longest.is_some_and(|ns| ns > pause.as_nanos() as u64 / 2),
            "{:?}",
            outcome.seconds
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_plans_are_reported_before_the_test_begins() -> Result<()> {
    let feed = Feed::market(2, 100).await?;
    let none = run_test(plan(feed.address, &["quote:NOBODY*"]))
        .await
        .err()
        .context("expected an error: no topic")?;
    assert!(none.to_string().contains("quote:NOBODY*"), "{none}");
    let draw = TopicChoice::Draw {
        names: vec!["quote:*".into()],
        each: 3,
        skew: Skew::Uniform,
    };
    let few = run_test(Plan {
        topics: draw,
        ..plan(feed.address, &[])
    })
    .await
    .err()
    .context("expected an error: too few topics")?;
    assert!(few.to_string().contains("only 2"), "{few}");
    let many = run_test(Plan {
        connections: 100_000_000,
        ..plan(feed.address, &["quote:*"])
    })
    .await
    .err()
    .context("expected an error: too many files")?;
    assert!(
        matches!(many.downcast_ref(), Some(LoadError::Files { .. })),
        "{many}"
    );
    Ok(())
}

/// Server that silently loses an event and whose ledger does not balance.
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn lossy_server(listener: TcpListener) -> Result<()> {
    let (stream, _) = listener.accept().await?;
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let limits = Limits {
        topics: 10,
        requests_per_s: 10,
        message_bytes: 1000,
        snapshot_events: 1,
    };
    let welcome = Welcome {
        server: "liar".into(),
        session: "1".into(),
        epoch: "e".into(),
        ts: 0,
        encoding: Encoding::Json,
        heartbeat_ms: 1000,
        limits,
        auth: "none".into(),
        max_message: 512 * 1024,
    };
    let say = |control| {
        Message::text(
            String::from_utf8_lossy(&encode_control(&control, Encoding::Json)).into_owned(),
        )
    };
    socket.send(say(Control::Welcome(welcome))).await?;
    while let Some(Ok(request)) = socket.next().await {
        match decode_request(&request.into_data(), Encoding::Json).map(|request| request.op) {
            Ok(Op::Subscribe(_)) => {
                let settings = Settings {
                    mode: Mode::Raw,
                    on_slow: OnSlow::Conflate,
                };
                let entry = Entry {
                    epoch: Some("e".into()),
                    seq: Some(Seq::START),
                    ..Entry::new("quote:A".into(), settings)
                };
                let response = Subscribed {
                    id: None,
                    ok: vec![entry],
                    err: Vec::new(),
                    count: 1,
                    max_message: None,
                    more: false,
                };
                socket.send(say(Control::Subscribed(response))).await?;
                let quote = |seq| {
                    format!(
                        r#"{{"ch":"quote","sym":"A","seq":{seq},"ts":1,"tx":1,"bid":null,"bidq":null,"ask":null,"askq":null}}"#
                    )
                };
                socket
                    .send(Message::text(format!("[{},{}]", quote(1), quote(3))))
                    .await?;
            }
            Ok(Op::Ledger) => {
                let entry = LedgerEntry {
                    topic: "quote:A".into(),
                    epoch: "e".into(),
                    start: Seq(0),
                    head: Seq(3),
                    delivered: 2,
                    merged: 0,
                    lost: 0,
                    pending: 0,
                };
                socket
                    .send(say(Control::Ledger(LedgerAnswer {
                        id: None,
                        topics: vec![entry],
                        more: false,
                    })))
                    .await?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_test_detects_silent_loss() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let plan = Plan {
        connections: 1,
        encoding: Encoding::Json,
        duration: Duration::from_millis(300),
        ..plan(listener.local_addr()?, &["quote:A"])
    };
    tokio::spawn(lossy_server(listener));
    let outcome = tokio::task::spawn_blocking(move || {
        run_with_topics(&plan, &["quote:A".to_owned()], &mut |_| false)
    })
    .await??;
    let failures = outcome.failures.join("\n");
    assert!(
        failures.contains("quote:A: events 2 to 2 are missing and no gap reports them"),
        "{failures}"
    );
    assert!(failures.contains("does not balance"), "{failures}");
    let mut table = Vec::new();
    write_table(&outcome, &mut table)?;
    assert!(
        String::from_utf8(table)?.contains("FAILED: "),
        "the table has no FAILED line"
    );
    let mut page = Vec::new();
    write_html(&outcome, &mut page)?;
    assert!(String::from_utf8(page)?.contains("no gap reports them"));
    Ok(())
}

/// Server of another protocol: pushes its time as JSON after a request. All data messages that it
/// receives are sent to `received`.
async fn foreign_server(listener: TcpListener, received: mpsc::Sender<Message>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let received = received.clone();
        tokio::spawn(async move {
            let socket = tokio_tungstenite::accept_async(stream).await?;
            let (mut writes, mut reads) = socket.split();
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            let clock = tickcast::clock::Clock::start();
            let mut asked = None;
            loop {
                tokio::select! {
                    message = reads.next() => match message.context("the end")?? {
                        Message::Close(_) => return Ok(()),
                        message if message.is_text() || message.is_binary() => {
                            asked = Some(message.to_string());
                            received.try_send(message)?;
                        }
                        _ => {}
                    },
                    _ = ticks.tick() => if let Some(asked) = &asked {
                        let now = clock.now().0 / 1000;
                        let text = format!(r#"{{"asked":{asked:?},"data":[{{"E":{now}}}]}}"#);
                        writes.send(Message::text(text)).await?;
                    },
                }
            }
            #[expect(unreachable_code, reason = "defines the type of the block")]
            anyhow::Ok(())
        });
    }
}

/// Starts a server of another protocol; returns a plan of it, and the messages that it receives.
async fn foreign() -> Result<(Plan, mpsc::Receiver<Message>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let raw = RawPlan {
        path: "/ws".into(),
        send: vec!["begin".into()],
        timestamp: Some("data.0.E".parse()?),
    };
    let plan = Plan {
        connections: 5,
        dialect: Dialect::Raw(raw),
        ..plan(listener.local_addr()?, &[])
    };
    let (sender, received) = mpsc::channel(1_000);
    tokio::spawn(foreign_server(listener, sender));
    Ok((plan, received))
}

#[tokio::test(flavor = "multi_thread")]
async fn other_servers_get_no_request_of_this_protocol_when_connections_are_cut() -> Result<()> {
    let (plan, mut received) = foreign().await?;
    let outcome = run_test(Plan {
        churn_per_s: 20.0,
        storm: true,
        ..plan
    })
    .await?;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    assert!(outcome.tally.opened > 2 * 5 + 10, "{:?}", outcome.tally);
    assert!(outcome.storm_s.is_some() && outcome.ledger.is_none());
    let mut requests = 0;
    while let Ok(message) = received.try_recv() {
        assert_eq!(message, Message::text("begin"));
        requests += 1;
    }
    assert!(requests >= outcome.tally.opened, "each connection asks");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_websocket_servers_can_be_tested() -> Result<()> {
    let (plan, _received) = foreign().await?;
    let outcome = run_test(plan).await?;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    let latency = outcome
        .published
        .context("missing latency, although each message has a time")?;
    assert!(
        latency.count > 100 && latency.p50 < 1_000_000_000,
        "{latency:?}"
    );
    assert!(
        outcome.tally.delivered >= latency.count
            && outcome.due.is_none()
            && outcome.ledger.is_none()
    );
    Ok(())
}

const READ_HLOG: &str = "
import sys
from hdrh.log import HistogramLogReader
from hdrh.histogram import HdrHistogram
total = HdrHistogram(1, 600_000_000_000, 3)
reader = HistogramLogReader(sys.argv[1], total)
count = 0
while True:
    one = reader.get_next_interval_histogram()
    if one is None:
        break
    if one.get_tag() == 'published':
        count += one.get_total_count()
print(count)
";

/// Reads the files back with the public `HdrHistogram` tools, if `./check` has installed them.
fn check_hlog(prefix: &str, expected: u64) -> Result<()> {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.deps/python/bin/python");
    let output = Command::new(python)
        .args(["-c", READ_HLOG, &format!("{prefix}.hlog")])
        .output();
    let is_there = output
        .as_ref()
        .is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains("No module named"));
    if std::env::var_os("TICKCAST_CHECK").is_none() && !is_there {
        eprintln!("not read back: ./check installs the HdrHistogram reader");
        return Ok(());
    }
    let output = output?;
    let (text, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(
        text.trim().parse::<u64>().with_context(|| errors.clone())?,
        expected,
        "{errors}"
    );
    Ok(())
}

fn tickcast(arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tickcast"))
        .args(arguments)
        .output()?;
    Ok((
        output.status.code(),
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    ))
}

#[test]
fn load_writes_its_outcome_in_every_format() -> Result<()> {
    let served = serve(&["--sim-instruments", "5", "--sim-rate", "1000"])?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (json, hdr, report) = (path("a.json"), path("a"), path("a.html"));
    let common = [
        "load",
        "--connect",
        &served.address,
        "-c",
        "20",
        "-d",
        "1s",
        "--warmup",
        "100ms",
        "--ramp",
        "100ms",
    ];
    let with = |more: &[&str]| tickcast(&[&common[..], more].concat());
    let (code, table, errors) = with(&[
        "--json",
        &json,
        "--hdr",
        &hdr,
        "--report",
        &report,
        "--slo",
        "p99<10s,loss=0,closed=0,rate>10",
    ])?;
    // On a busy machine the generator may be late; the run is then invalid, as its exit code shows.
    assert_eq!(
        code,
        Some(i32::from(errors.contains("not met, the run is invalid"))),
        "{errors}"
    );
    for wanted in [
        "20 connections",
        "delivered",
        "published → received",
        "p99.99",
        "ledger: balanced for 100 topics of 20 connections",
    ] {
        assert!(table.contains(wanted), "{wanted} is missing in {table}");
    }
    assert!(errors.contains("p99<10s met"), "{errors}");
    let outcome: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let count = outcome["published"]["count"]
        .as_u64()
        .context("no latency was measured")?;
    assert!(count > 100 && outcome["machine"]["cores"].as_u64() > Some(0));
    check_hlog(&hdr, count)?;
    let hgrm = std::fs::read_to_string(format!("{hdr}.hgrm"))?;
    assert!(
        hgrm.contains("1.000000000000") && hgrm.contains("#[Max     ="),
        "{hgrm}"
    );
    let page = std::fs::read_to_string(&report)?;
    assert!(
        page.contains("<svg") && !page.contains("http://") && !page.contains("<script"),
        "the report loads external resources"
    );
    let (code, _, errors) = with(&["--slo", "p50<1ns"])?;
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("p50<1ns MISSED"), "{errors}");
    let (code, text, _) = tickcast(&["load", "--compare", &json, &json])?;
    assert!(
        code == Some(0) && text.contains("deliveries/s") && text.contains("1.00 ×"),
        "{text}"
    );
    Ok(())
}

#[test]
fn invalid_load_arguments_name_the_expected_form() -> Result<()> {
    let cases: [(&[&str], &str); 8] = [
        (&["--mode", "fast"], "modes with weights"),
        (&["--slow", "10"], "0% to 100%"),
        (&["--probes", "some"], "a number of connections, or all"),
        (&["--slo", "p99<5"], "objectives, e.g. p99<5ms"),
        (
            &["--topics-per-connection", "2", "--draw", "fair"],
            "uniform, zipf",
        ),
        (&["--topics", "nonsense"], "invalid topic"),
        (&["--raw", "ftp://x"], "ws://HOST:PORT/PATH"),
        (
            &["--raw", "ws://x:1", "--timestamp", "a..b"],
            "keys and indices",
        ),
    ];
    for (arguments, wanted) in cases {
        let (code, _, errors) = tickcast(&[&["load"], arguments].concat())?;
        assert!(
            code == Some(2) && errors.contains(wanted),
            "{arguments:?}: {errors}"
        );
    }
    let (code, _, errors) = tickcast(&["load", "--connect", "127.0.0.1:1"])?;
    assert!(
        code == Some(1) && errors.contains("is the server running?"),
        "{errors}"
    );
    Ok(())
}
