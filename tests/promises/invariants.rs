//! Invariants of ARCHITECTURE.md that no other module tests.

use std::time::Duration;

use anyhow::Result;
use sha2::{Digest, Sha256};
use tickcast::bus::Emit;
use tickcast::config::{Config, SourceDetails};
use tickcast::market::UnixNanos;
use tickcast::protocol::{Encoding, Mode, Subscribe};
use tickcast::source::sim::{Market, SimConfig};

use crate::harness::{Feed, Stopwatch, Tracked, market, subscribe, wish};

/// Invariant 1.
#[tokio::test(flavor = "multi_thread")]
async fn one_writer_per_topic_and_seq_grows_by_one() -> Result<()> {
    let feed = Feed::market(5, 10_000).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(subscribe(&[
            "trade:*", "quote:*", "ticker:*", "bar:*:1s", "status:*",
        ]))
        .await?;
    let mut heads = std::collections::HashMap::new();
    let mut newest = std::collections::HashMap::new();
    for event in client.events(30_000).await? {
        if let Some(last) = heads.insert(event.topic.clone(), event.seq) {
            assert_eq!(event.seq, last.next(), "{}", event.topic);
        }
        let tx = newest
            .insert(event.topic.clone(), event.tx)
            .unwrap_or_default();
        assert!(event.tx >= tx, "`tx` does not decrease within a topic");
    }
    Ok(())
}

/// A client of a market of so many instruments, all of which are subscribable.
async fn client_of(feed: &Feed, instruments: usize) -> Result<Tracked> {
    let topics = (9 * instruments) as f64;
    feed.until("all topics are in the catalog", |feed| {
        feed.metric("tickcast_topics") >= topics
    })
    .await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let last = format!("quote:S{instruments}");
    while client.subscribe(subscribe(&[&last])).await?.ok.is_empty() {}
    Ok(client)
}

/// The shortest of some requests with patterns that exceed the limit of topics.
async fn pattern_request(client: &mut Tracked) -> Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let begun = Stopwatch::start();
        let response = client
            .subscribe(subscribe(&["trade:*", "quote:*", "ticker:S*"]))
            .await?;
        shortest = shortest.min(begun.elapsed());
        assert_eq!(response.err.len(), 3, "each exceeds the limit");
    }
    Ok(shortest)
}

/// Invariant 13: a pattern costs a search, not a walk over everything. A walk over a hundred times
/// the instruments would take a multiple of the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_over_ten_thousand_instruments_costs_no_more_than_over_a_hundred() -> Result<()> {
    let limits = "limits: {requests_per_s: 100000, topics: 50}";
    let (few, many) = (100, 10_000);
    let small = Feed::start(&market(few, 100, limits)).await?;
    let large = Feed::start(&market(many, 100, limits)).await?;
    let mut client_of_small = client_of(&small, few).await?;
    let mut client_of_large = client_of(&large, many).await?;
    let (mut over_few, mut over_many) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        over_few = over_few.min(pattern_request(&mut client_of_small).await?);
        over_many = over_many.min(pattern_request(&mut client_of_large).await?);
    }
    assert!(
        over_many < 3 * over_few,
        "{over_few:?} over {few} instruments, {over_many:?} over {many}"
    );
    Ok(())
}

/// Invariant 2.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_event_is_encoded_once_for_all_subscribers() -> Result<()> {
    let feed = Feed::start(&market(2, 2_000, "limits: {requests_per_s: 1000}")).await?;
    let mut clients = Vec::new();
    for at in 0..30 {
        let mut client = feed.client(Encoding::Msgpack).await?;
        let mode = [Mode::Raw, Mode::Conflate, Mode::Interval(100)][at % 3];
        let request = Subscribe {
            wish: wish(mode, None),
            snapshot: Some(tickcast::protocol::SnapshotWish::No),
            ..subscribe(&["quote:*"])
        };
        client.subscribe(request).await?;
        clients.push(client);
    }
    for client in &mut clients {
        client.events(40).await?;
    }
    let text = String::from_utf8(feed.app.metrics().render())?;
    let count = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let published: f64 = feed.metric("tickcast_events_published_total");
    assert!(count(r#"tickcast_events_encoded_total{encoding="msgpack"}"#) <= published);
    assert!(
        count("tickcast_events_encoded_total{encoding=\"json\"}") < 1.0,
        "an unused encoding is not produced"
    );
    assert!(feed.metric("tickcast_events_delivered_total") > 1_200.0);
    Ok(())
}

fn default_market() -> Result<SimConfig> {
    let config = Config::parse(include_str!("../../feeds.yaml"), "feeds.yaml")?;
    match config
        .sources
        .into_iter()
        .next()
        .map(|source| source.details)
    {
        Some(SourceDetails::Sim(sim)) => Ok(sim),
        _ => anyhow::bail!("the default market is simulated"),
    }
}

const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

fn first_events(config: &SimConfig, count: usize) -> Vec<Emit> {
    let mut market = Market::new(config, START);
    let mut events = Vec::new();
    while events.len() < count {
        let now = market.next_due();
        market.advance(now, &mut events, count);
    }
    events
}

/// Invariant 10, for the simulator: the same seed and start time give the same events.
#[test]
fn a_simulation_repeats_its_events_for_the_same_seed() -> Result<()> {
    let config = default_market()?;
    let events = first_events(&config, 100_000);
    assert!(events == first_events(&config, 100_000));
    let hash = Sha256::digest(
        events
            .iter()
            .map(|event| format!("{event:?}\n"))
            .collect::<String>(),
    );
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex, "e5708167766b971ccc5a8578e311e463b23e7c8d213880df65abfae835e850ad",
        "the first 100,000 events of the default market"
    );
    let other = SimConfig { seed: 8, ..config };
    assert!(first_events(&other, 1_000) != events[..1_000]);
    Ok(())
}

#[test]
fn an_instruments_events_do_not_depend_on_its_neighbours() -> Result<()> {
    let whole = default_market()?;
    let at = whole
        .instruments
        .iter()
        .position(|spec| spec.symbol.as_str() == "NVDA")
        .unwrap_or_default();
    let alone = SimConfig {
        instruments: vec![whole.instruments[at].clone()],
        ..whole.clone()
    };
    let of = |events: Vec<Emit>, number: u32| -> Vec<String> {
        let own = events.into_iter().filter_map(|event| match event {
            Emit::Trade(at, trade) if at == number => Some(format!("{trade:?}")),
            Emit::Quote(at, quote) if at == number => Some(format!("{quote:?}")),
            _ => None,
        });
        own.take(500).collect()
    };
    assert_eq!(
        of(first_events(&alone, 1_000), 0),
        of(first_events(&whole, 40_000), at as u32)
    );
    Ok(())
}

#[test]
fn trades_happen_at_or_inside_the_quote() -> Result<()> {
    let config = default_market()?;
    let mut quotes = vec![None; config.instruments.len()];
    let mut trades = 0;
    for event in first_events(&config, 100_000) {
        match event {
            Emit::Quote(at, quote) => {
                let (bid, ask) = (
                    quote.bid.map(|level| level.px),
                    quote.ask.map(|level| level.px),
                );
                assert!(bid < ask && bid.is_some(), "the bid is below the ask");
                quotes[at as usize] = Some((bid, ask));
            }
            Emit::Trade(at, trade) => {
                let (bid, ask) =
                    quotes[at as usize].ok_or_else(|| anyhow::anyhow!("expected a quote first"))?;
                assert!(bid <= Some(trade.px) && Some(trade.px) <= ask);
                trades += 1;
            }
            _ => {}
        }
    }
    assert!(trades > 30_000);
    Ok(())
}
