//! Delayed views: a role with a delay sees events of that age only, with snapshots, sequence
//! numbers and ledgers of its own time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tickcast::config::Config;
use tickcast::protocol::{Control, Encoding, GapCause, Seq, ServerMessage};

use crate::harness::{DEADLINE, Feed, Tracked, subscribe};
use crate::publish::post;

const DELAY: Duration = Duration::from_millis(700);

fn config(delay: &str, rest: &str) -> String {
    format!(
        "sources: [{{name: in, kind: push, open: true, stale_after: 1h, instruments: [{{symbol: A}}]}}]\n\
         roles: {{late: {{topics: [\"*\"], delay: {delay}, publish: {{in: [\"*\"]}}}}}}\nauth: {{anonymous: late}}\n{rest}\n"
    )
}

async fn publish(feed: &Feed, trades: usize) -> Result<()> {
    let line = "{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1\",\"qty\":\"1\"}\n";
    let body = line.repeat(trades);
    let (status, report) = post(feed, "application/x-ndjson", "", body.as_bytes()).await?;
    ensure!(
        status == 200 && report.contains(&format!("\"accepted\":{trades}")),
        "{report}"
    );
    Ok(())
}

/// Waits until the instrument is visible.
async fn visible(feed: &Feed) -> Result<()> {
    let listed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        loop {
            looks.tick().await;
            if feed.get("/v1/instruments").await?.contains("\"A\"") {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(DEADLINE, listed).await?
}

/// Number of the newest trade, as a snapshot over HTTP shows it.
async fn snapshot_seq(feed: &Feed) -> Result<u64> {
    let body = feed.get("/v1/snapshot?topics=trade:A").await?;
    let body: serde_json::Value = serde_json::from_str(&body)?;
    body["ok"][0]["seq"]
        .as_u64()
        .with_context(|| body.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_role_sees_no_event_before_its_time_through_any_interface() -> Result<()> {
    let feed = Feed::start(&config("700ms", "")).await?;
    let clock = feed.app.clock();
    visible(&feed).await?;
    let mut last = 0;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client
            .subscribe(subscribe(&["trade:A", "ticker:*"]))
            .await?;
        let begun = clock.now();
        publish(&feed, 1).await?;
        last += 1;
        let snapshot = snapshot_seq(&feed).await?;
        let early = clock.now().since(begun) < DELAY;
        ensure!(
            !early || snapshot < last,
            "a snapshot shows an event before its time"
        );
        let event = client
            .until("the trade", |message| match message {
                ServerMessage::Events(events) => events
                    .iter()
                    .find(|event| event.topic.to_string() == "trade:A")
                    .cloned(),
                ServerMessage::Control(_) => None,
            })
            .await?;
        let age = clock.now().since(event.tx);
        ensure!(age >= DELAY, "an event of {age:?}");
        assert_eq!(event.seq, Seq(last));
        assert_eq!(snapshot_seq(&feed).await?, last);
        // The accounts of the client agree.
        client.ledger().await?;
        let mut other = feed.client(encoding).await?;
        let answer = other.subscribe(subscribe(&["trade:A"])).await?;
        assert_eq!(answer.ok[0].seq, Some(Seq(last)));
    }
    Ok(())
}

async fn gap(client: &mut Tracked) -> Result<(GapCause, u64)> {
    client
        .control("a gap", |control| match control {
            Control::Gap(gap) => Some((gap.cause, gap.n)),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beyond_the_delay_line_are_lost_by_an_announced_gap() -> Result<()> {
    let feed = Feed::start(&config("700ms", "bus: {delay_line: 1MiB}")).await?;
    visible(&feed).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:A"])).await?;
    // A trade has up to seven events of about 300 bytes each.
    for _ in 0..20 {
        publish(&feed, 500).await?;
    }
    let (cause, lost) = gap(&mut client).await?;
    ensure!(
        cause == GapCause::Bus && lost > 0 && lost < 10_000,
        "{cause:?} {lost}"
    );
    // Later events follow, and nothing is missing from the accounts.
    publish(&feed, 1).await?;
    client
        .until("the last trade", |message| match message {
            ServerMessage::Events(events) => events
                .iter()
                .find(|event| event.seq == Seq(10_001))
                .map(|_| ()),
            ServerMessage::Control(_) => None,
        })
        .await?;
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_delay_changes_reconnects_to_the_other_view() -> Result<()> {
    let mut feed = Feed::start(&config("700ms", "")).await?;
    visible(&feed).await?;
    for (delay, restart) in [("0", false), ("1h", true)] {
        let mut client = feed.client(Encoding::Json).await?;
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{}",
            config(delay, "")
        );
        let reloaded = feed.app.reload(&Config::parse(&text, "test")?).await;
        assert_eq!(reloaded.needs_restart.contains(&"roles.delay"), restart);
        let (bye, code) = client.closed().await?;
        let bye = bye.context("a bye before the close")?;
        assert_eq!((bye.code, bye.reconnect, code), (409, true, 4409));
        if restart {
            // A view that does not run shows nothing.
            let response = feed
                .http(
                    "GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                )
                .await?;
            assert!(response.starts_with("HTTP/1.1 503"), "{response}");
            let mut next = tickcast::client::Client::connect(feed.address, Encoding::Json).await?;
            let first = next.next().await?;
            assert!(
                matches!(&first, ServerMessage::Control(Control::Bye(bye)) if bye.code == 409),
                "{first:?}"
            );
        } else {
            let mut client = feed.client(Encoding::Json).await?;
            client.subscribe(subscribe(&["trade:A"])).await?;
            publish(&feed, 1).await?;
            client.events(1).await?;
        }
    }
    Ok(())
}
