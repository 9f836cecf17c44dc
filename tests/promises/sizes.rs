//! Sizes of quotes: unknown sizes are absent on the wire, and size zero is an empty side if
//! configured.

use anyhow::{Context, Result};
use tickcast::market::{Body, Level, Quote};
use tickcast::protocol::{Control, DataEvent, Encoding, Mode, Seq, ServerMessage};

use crate::harness::{DEADLINE, Feed, subscribe};
use crate::publish::post;
use crate::replay::{accounts, play, write};
use crate::resume::reconnect;
use crate::terminal::run;

/// A side as price and size, `None` where absent.
type Side = Option<(String, Option<String>)>;

fn side(level: Option<Level>) -> Side {
    level.map(|level| {
        let size = level.qty.map(|qty| qty.0.to_string());
        (level.px.0.to_string(), size)
    })
}

fn quote(event: &DataEvent) -> Result<(Side, Side)> {
    let Body::Quote(Quote { bid, ask, .. }) = &event.body else {
        anyhow::bail!("expected a quote, received {event:?}")
    };
    Ok((side(*bid), side(*ask)))
}

/// A side from a text: `1.10`, `1.10 x 3`, or `-` for an empty one.
fn written(text: &str) -> Side {
    let (price, size) = match text.split_once(" x ") {
        Some((price, size)) => (price, Some(size.to_owned())),
        None => (text, None),
    };
    (price != "-").then(|| (price.to_owned(), size))
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_quotes_without_sizes_are_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // HistData: no header, Eastern Standard Time, a volume that is always zero.
    let histdata = "20211201 100000123,1.13412,1.13415,0\n20211201 100000456,1.13413,1.13416,0\n";
    let file = write(folder.path(), "DAT_ASCII_EURUSD_T_202112.csv", histdata)?;
    let keys = ", symbol: EURUSD, timezone: \"-05:00\", columns: {time: 1, bid: 2, ask: 3}";
    let played = play(&[file], keys, &["quote:*"]).await?;
    let quotes: Vec<(Side, Side)> = played.events.iter().map(quote).collect::<Result<_>>()?;
    assert_eq!(
        quotes,
        [
            (written("1.13412"), written("1.13415")),
            (written("1.13413"), written("1.13416"))
        ]
    );
    assert_eq!(accounts(&played)[0].quotes, 2);
    // The last value has no sizes either, over HTTP and in snapshots of both encodings.
    let body = played.feed.get("/v1/snapshot?topics=quote:EURUSD").await?;
    assert!(
        body.contains("\"bid\":\"1.13413\"") && !body.contains("bidq") && !body.contains("askq"),
        "{body}"
    );
    for encoding in [Encoding::Json, Encoding::Msgpack] {
        let mut client = played.feed.client(encoding).await?;
        client
            .ask(tickcast::protocol::Op::Subscribe(subscribe(&[
                "quote:EURUSD",
            ])))
            .await?;
        let last = client
            .control("a snapshot", |control| match control {
                Control::Snapshot(snapshot) => Some(snapshot.events.clone()),
                _ => None,
            })
            .await?;
        assert_eq!(quote(&last[0])?, quotes[1]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_size_is_unknown_and_a_zero_size_follows_the_config() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text =
        "t,bid,bq,ask,aq\n1735689600,5.0,1,6.0,\n1735689601,5.0,0,6.0,0.00\n1735689602,0,0,6.0,2\n";
    let file = write(folder.path(), "a.csv", text)?;
    let columns = ", symbol: A, columns: {time: t, bid: bid, bid_qty: bq, ask: ask, ask_qty: aq}";
    let first = (written("5.0 x 1"), written("6.0"));
    for (keys, expected) in [
        (
            "",
            vec![first.clone(), (written("5.0 x 0"), written("6.0 x 0.00"))],
        ),
        (
            ", zero_size_is_empty: true",
            vec![first, (None, None), (None, written("6.0 x 2"))],
        ),
    ] {
        let played = play(
            std::slice::from_ref(&file),
            &format!("{columns}{keys}"),
            &["quote:*"],
        )
        .await?;
        let quotes: Vec<(Side, Side)> = played.events.iter().map(quote).collect::<Result<_>>()?;
        assert_eq!(quotes, expected);
        accounts(&played);
    }
    let half = ", symbol: A, columns: {time: t, bid_qty: bq, ask: ask}";
    let feed = Feed::start(&crate::replay::source(&[file], half)).await?;
    feed.until("the source has failed", |feed| {
        !feed.app.failed_sources().is_empty()
    })
    .await?;
    let error = feed.app.failed_sources()[0].1.to_string();
    assert!(error.contains("needs its price"), "{error}");
    Ok(())
}

const PUSH: &str = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}, \
     {name: other, kind: push, open: true, zero_size_is_empty: true, instruments: [{symbol: B}]}]";

async fn publish(feed: &Feed, lines: &[&str]) -> Result<()> {
    let body = lines.join("\n");
    let (status, report) = post(feed, "application/x-ndjson", "", body.as_bytes()).await?;
    anyhow::ensure!(
        status == 200 && report.contains("\"refused\":0"),
        "{status}: {report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn published_quotes_without_sizes_are_delivered_in_both_encodings_and_after_a_resume()
-> Result<()> {
    let feed = Feed::start(PUSH).await?;
    let topics = ["quote:A", "quote:B"];
    let mut clients = Vec::new();
    for encoding in [Encoding::Json, Encoding::Msgpack] {
        let mut client = feed.client(encoding).await?;
        client.subscribe(subscribe(&topics)).await?;
        clients.push(client);
    }
    let lines = [
        r#"{"ch":"quote","sym":"A","bid":"1.10","ask":"1.20"}"#,
        r#"{"ch":"quote","sym":"A","bid":"1.11","bidq":"3","ask":"1.20"}"#,
        r#"{"ch":"quote","sym":"A","bid":"1.12","bidq":"0","ask":null,"askq":null}"#,
        r#"{"ch":"quote","sym":"B","bid":"1.12","bidq":"0","ask":"1.30"}"#,
    ];
    let expected = [
        (written("1.10"), written("1.20")),
        (written("1.11 x 3"), written("1.20")),
        (written("1.12 x 0"), None),
        (None, written("1.30")),
    ];
    publish(&feed, &lines).await?;
    for client in &mut clients {
        let mut events = client.events(4).await?;
        // Topics may be in any order; the events of a topic are in order.
        events.sort_by_key(|event| (event.topic.to_string(), event.seq));
        let quotes: Vec<(Side, Side)> = events.iter().map(quote).collect::<Result<_>>()?;
        assert_eq!(quotes, expected);
        client.ledger().await?;
    }
    // Events missed during an absence have no sizes either.
    let old = clients.pop().context("missing client")?;
    publish(&feed, &lines[..1]).await?;
    let mut other = clients.pop().context("missing client")?;
    other.events(1).await?;
    let (mut client, response) = reconnect(&feed, old, &topics, Mode::Raw).await?;
    assert!(
        response
            .ok
            .iter()
            .all(|entry| entry.recovered == Some(true))
    );
    let missed = client.events(1).await?;
    assert_eq!(
        (missed[0].seq, quote(&missed[0])?),
        (Seq(4), expected[0].clone())
    );
    client.ledger().await?;
    // `tail` prints the events as received, and leaves the cells of a CSV line empty.
    let json = tail(&feed, lines[0], &["--json", "--events"]).await?;
    assert!(
        json.contains("\"bid\":\"1.10\"") && !json.contains("bidq"),
        "{json}"
    );
    let csv = tail(&feed, lines[0], &["--format", "csv"]).await?;
    assert!(csv.contains(",1.10,,1.20,,"), "{csv}");
    Ok(())
}

/// Output of `tail` for one event of `quote:A`, which is published until `tail` prints it.
async fn tail(feed: &Feed, line: &str, more: &[&str]) -> Result<String> {
    let address = feed.address.to_string();
    let of_topic = ["tail", "--topics", "quote:A", "--count", "1", "--connect"];
    let arguments: Vec<String> = of_topic
        .into_iter()
        .chain([address.as_str()])
        .chain(more.iter().copied())
        .map(str::to_owned)
        .collect();
    let printing = tokio::task::spawn_blocking(move || {
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
    let publishing = async {
        while !printing.is_finished() {
            again.tick().await;
            publish(feed, &[line]).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, publishing).await??;
    Ok(String::from_utf8(printing.await??.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_does_not_mix_the_sizes_of_different_quotes() -> Result<()> {
    let feed = Feed::start(PUSH).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(tickcast::protocol::Subscribe {
            wish: crate::harness::wish(Mode::Conflate, None),
            ..subscribe(&["quote:A"])
        })
        .await?;
    publish(
        &feed,
        &[
            r#"{"ch":"quote","sym":"A","bid":"1.11","bidq":"3","ask":"1.20","askq":"4"}"#,
            r#"{"ch":"quote","sym":"A","bid":"1.10","ask":"1.20"}"#,
        ],
    )
    .await?;
    let newest = client
        .until("the newest event", |message| match message {
            ServerMessage::Events(events) => {
                events.iter().find(|event| event.seq == Seq(2)).cloned()
            }
            ServerMessage::Control(_) => None,
        })
        .await?;
    assert_eq!(quote(&newest)?, (written("1.10"), written("1.20")));
    client.ledger().await?;
    Ok(())
}
