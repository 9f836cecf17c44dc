//! Instruments that a reload removes and returns: every client that holds one of their topics is
//! notified, in order.

use anyhow::{Context as _, Result};
use tickcast::config::Config;
use tickcast::protocol::{Control, Encoding, Op, ResumeFrom, Seq, ServerMessage, Subscribe};

use crate::harness::{Feed, Tracked, exchange, subscribe};

const BOTH: &str = "{name: p, kind: push, open: true, instruments: [{symbol: G1}, {symbol: K1}]}";
const ONE: &str = "{name: p, kind: push, open: true, instruments: [{symbol: K1}]}";

async fn reload(feed: &mut Feed, source: &str) -> Result<()> {
    let text = format!(
        "listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
sources: [{source}]"
    );
    feed.app.reload(&Config::parse(&text, "test")?).await;
    Ok(())
}

/// Publishes one trade.
async fn trade(feed: &Feed) -> Result<()> {
    let line = r#"{"ch":"trade","sym":"G1","px":"1","qty":"1"}"#;
    let response = feed
        .http(&format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{line}",
            line.len()
        ))
        .await?;
    anyhow::ensure!(response.contains(r#""accepted":1"#), "{response}");
    Ok(())
}

async fn get(feed: &Feed, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(feed.address, request.as_bytes()).await
}

/// Topics that the next `topics` message removes.
async fn removed(client: &mut Tracked) -> Result<Vec<String>> {
    let mut closed = client
        .control("removed topics", |control| match control {
            Control::Topics(change) if !change.removed.is_empty() => Some(change.removed.clone()),
            _ => None,
        })
        .await?;
    assert!(
        closed.iter().all(|refusal| refusal.code == 412),
        "{closed:?}"
    );
    closed.sort_by(|a, b| a.topic.cmp(&b.topic));
    Ok(closed.into_iter().map(|refusal| refusal.topic).collect())
}

/// Sequence number of the next trade of the instrument.
async fn next_trade(client: &mut Tracked) -> Result<Seq> {
    client
        .until("a trade", |message| match message {
            ServerMessage::Events(events) => events
                .iter()
                .find(|event| event.topic.to_string() == "trade:G1")
                .map(|event| event.seq),
            ServerMessage::Control(_) => None,
        })
        .await
}

/// Asserts that nothing shows the removed instrument and nobody can subscribe to it.
async fn assert_removed(feed: &Feed, client: &mut Tracked, position: &ResumeFrom) -> Result<()> {
    client
        .ask(Op::Instruments {
            pattern: "*".into(),
        })
        .await?;
    let listed = client
        .control("instruments", |control| match control {
            Control::Instruments(response) => Some(response.instruments.clone()),
            _ => None,
        })
        .await?;
    let listed: Vec<_> = listed.iter().map(|one| one.symbol.as_str()).collect();
    assert_eq!(listed, ["K1"]);
    assert!(!get(feed, "/v1/instruments").await?.contains("G1"));
    let snapshot = get(feed, "/v1/snapshot?topics=trade:G1,status:*").await?;
    assert!(
        snapshot.contains("\"code\":412") && !snapshot.contains("status:G1"),
        "{snapshot}"
    );
    let response = client
        .subscribe(Subscribe {
            from: Some(position.clone()),
            ..subscribe(&["trade:G1"])
        })
        .await?;
    assert!(response.ok.is_empty() && response.err[0].code == 412);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instrument_removed_by_a_reload_disappears_and_returns_in_a_new_epoch() -> Result<()> {
    for encoding in Encoding::ALL {
        let mut feed = Feed::start(&format!("shards: 1\nsources: [{BOTH}]")).await?;
        let mut named = feed.client(encoding).await?;
        named
            .subscribe(subscribe(&["trade:G1", "trade:K1"]))
            .await?;
        let mut matched = feed.client(encoding).await?;
        matched
            .subscribe(subscribe(&["trade:*", "status:G1"]))
            .await?;
        for seq in (1..=3).map(Seq) {
            trade(&feed).await?;
            assert_eq!(next_trade(&mut named).await?, seq);
            assert_eq!(next_trade(&mut matched).await?, seq);
        }
        let ledger = named.ledger().await?;
        let own = ledger.iter().find(|entry| entry.topic == "trade:G1");
        let own = own.context("the topic is not subscribed")?;
        assert_eq!((own.head, own.delivered, own.pending), (Seq(3), 3, 0));
        let position = ResumeFrom {
            epoch: own.epoch.clone(),
            seqs: vec![("trade:G1".into(), Seq(3))],
            epochs: Vec::new(),
        };

        reload(&mut feed, ONE).await?;
        assert_eq!(removed(&mut named).await?, ["trade:G1"]);
        assert_eq!(removed(&mut matched).await?, ["status:G1", "trade:G1"]);
        for client in [&mut named, &mut matched] {
            // The accounts compare themselves with the ledger.
            let held: Vec<_> = client.ledger().await?;
            let held: Vec<_> = held.iter().map(|entry| entry.topic.as_str()).collect();
            assert_eq!(held, ["trade:K1"]);
        }
        assert_removed(&feed, &mut named, &position).await?;

        reload(&mut feed, BOTH).await?;
        let (seq, epoch) = matched
            .control("the returned topic", |control| match control {
                Control::Topics(change) => change
                    .added
                    .iter()
                    .find(|entry| entry.topic == "trade:G1")
                    .map(|entry| (entry.seq, entry.epoch.clone())),
                _ => None,
            })
            .await?;
        // The source started over with its config: no sequence number of the old epoch is repeated.
        assert_eq!(seq, Some(Seq::START));
        assert_ne!(epoch.as_ref(), Some(&position.epoch));
        trade(&feed).await?;
        assert_eq!(next_trade(&mut matched).await?, Seq(1));
        matched.ledger().await?;
        // A client that left before the removal resumes across it: its position is of another
        // epoch.
        let response = named
            .subscribe(Subscribe {
                from: Some(position),
                ..subscribe(&["trade:G1"])
            })
            .await?;
        assert_eq!(
            (response.ok[0].recovered, response.ok[0].seq),
            (Some(false), Some(Seq(1)))
        );
        assert_eq!(response.ok[0].epoch, epoch);
        trade(&feed).await?;
        assert_eq!(next_trade(&mut named).await?, Seq(2));
        assert_eq!(next_trade(&mut matched).await?, Seq(2));
        named.ledger().await?;
        matched.ledger().await?;
    }
    Ok(())
}
