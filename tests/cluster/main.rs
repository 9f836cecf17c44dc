//! Several servers with one log, as processes on this machine, with a real NATS server.

mod both;
mod chaos;
mod checkpoints;
mod dev;
mod fence;
mod nats;
mod operations;
mod origin;
mod partition;
mod process;
mod proxy;
mod publishing;
mod quorum;
mod readiness;
mod reads;
mod repair;
mod rights;
mod takeover;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tickcast::client::{Accounts, Client, Positions};
use tickcast::clock::Clock;
use tickcast::protocol::{Control, Encoding, Op, Seq, ServerMessage, SourceState, Subscribe};
use tokio::time::timeout;

use process::{Cluster, DEADLINE, Process, wait_for};

/// Market of the tests: fast, and the same for every run.
const MARKET: &str = "[{name: sim, kind: sim, seed: 5, instruments: [{symbol: BTC-USD, start: 60000, rate: 200/s}, {symbol: ETH-USD, start: 3000, rate: 200/s}]}]";
const TOPICS: [&str; 3] = ["trade:*", "quote:*", "ticker:*"];

/// Events by topic and number.
type Events = HashMap<(String, u64), String>;

/// Client of a gateway with strict accounts.
struct Reader {
    client: Client,
    accounts: Accounts,
    positions: Positions,
    /// Positions that this connection resumes from.
    resumed: HashMap<String, Seq>,
}

impl Reader {
    async fn connect(gateway: &Process) -> Result<Self> {
        let client = Client::connect(gateway.address, Encoding::Msgpack).await?;
        Ok(Self {
            client,
            accounts: Accounts::default(),
            positions: Positions::default(),
            resumed: HashMap::new(),
        })
    }

    /// Subscribes, from the positions of an earlier connection if it has some.
    async fn subscribe(&mut self, from: Option<&Positions>) -> Result<()> {
        let from = from.and_then(Positions::resume_from);
        self.resumed = from
            .iter()
            .flat_map(|from| from.seqs.clone())
            .map(|(topic, seq)| (topic.to_string(), seq))
            .collect();
        let topics = TOPICS.iter().map(|topic| (*topic).into()).collect();
        let request = Subscribe {
            topics,
            from,
            ..Subscribe::default()
        };
        self.client.request(Op::Subscribe(request)).await?;
        Ok(())
    }

    async fn next(&mut self) -> Result<ServerMessage> {
        let message = timeout(DEADLINE, self.client.next())
            .await
            .context("no message")??;
        self.positions.take(&message);
        self.accounts.take(&message)?;
        if let ServerMessage::Control(Control::Subscribed(answer)) = &message {
            let matched = answer
                .ok
                .iter()
                .flat_map(|entry| entry.matched.iter().flatten());
            for entry in matched {
                if let Some(seq) = self.resumed.get(&entry.topic) {
                    ensure!(entry.recovered == Some(true), "{entry:?} is not resumed");
                    self.accounts.resume(&entry.topic, *seq);
                }
            }
        }
        Ok(message)
    }

    /// Reads until this many events have arrived; returns them by topic and number.
    async fn events(&mut self, count: usize) -> Result<Events> {
        timeout(DEADLINE, self.read_events(count))
            .await
            .context("not enough events")?
    }

    async fn read_events(&mut self, count: usize) -> Result<Events> {
        let mut events = HashMap::new();
        while events.len() < count {
            if let ServerMessage::Events(some) = self.next().await? {
                for event in some {
                    let key = (event.topic.to_string(), event.seq.0);
                    events.insert(key, format!("{event:?}"));
                }
            }
        }
        Ok(events)
    }

    /// Reads until a source has this state.
    async fn source(&mut self, state: SourceState) -> Result<()> {
        timeout(DEADLINE, self.read_source(state))
            .await
            .with_context(|| format!("not {state:?}"))?
    }

    async fn read_source(&mut self, state: SourceState) -> Result<()> {
        loop {
            if let ServerMessage::Control(Control::Source(change)) = self.next().await?
                && change.state == state
            {
                return Ok(());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_gateway_has_the_same_epoch_and_seq() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    let (one, two) = (cluster.gateway("one")?, cluster.gateway("two")?);
    let (mut first, mut second) = (Reader::connect(&one).await?, Reader::connect(&two).await?);
    first.subscribe(None).await?;
    second.subscribe(None).await?;
    let (first, second) = tokio::try_join!(first.events(3000), second.events(3000))?;
    let both: Vec<_> = first
        .keys()
        .filter(|key| second.contains_key(*key))
        .collect();
    ensure!(both.len() > 1000, "{} events in common", both.len());
    for key in both {
        ensure!(
            first[key] == second[key],
            "{key:?} differs between gateways"
        );
    }
    ensure!(publisher.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_resumes_at_another_gateway_without_a_hole() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let _publisher = cluster.publisher("a", MARKET)?;
    let mut gateways = [cluster.gateway("one")?, cluster.gateway("two")?];
    let mut positions = None;
    for _ in 0..4 {
        let mut reader = Reader::connect(&gateways[0]).await?;
        reader.subscribe(positions.as_ref()).await?;
        let events = reader.events(300).await?;
        if let Some(before) = positions.as_ref().and_then(Positions::resume_from) {
            let of = |topic: &str, seq: u64| events.contains_key(&(topic.to_owned(), seq));
            for (topic, Seq(seq)) in before
                .seqs
                .iter()
                .filter(|(topic, _)| topic.starts_with("trade"))
            {
                ensure!(of(topic, seq + 1), "{topic} does not go on behind {seq}");
            }
        }
        positions = Some(reader.positions);
        gateways.swap(0, 1);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_publishers_never_both_go_on() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let mut first = cluster.publisher("a", MARKET)?;
    first.logs("leading the cluster")?;
    let second = cluster.publisher("b", MARKET)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    first.signal("-STOP")?;
    second.logs("leading the cluster")?;
    reader.events(200).await?;
    first.signal("-CONT")?;
    ensure!(
        !first.ended()?.success(),
        "a publisher that was overtaken ends with an error"
    );
    first.logs("another publisher leads the cluster")?;
    reader.events(200).await?;
    second.crash()?;
    let third = cluster.publisher("a", MARKET)?;
    third.logs("leading the cluster")?;
    reader.events(200).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_standby_applies_a_reload_only_when_it_leads() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.publisher("a", MARKET)?;
    first.logs("leading the cluster")?;
    let second = cluster.publisher("b", MARKET)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    let more = MARKET.replace(
        "instruments: [",
        "instruments: [{symbol: SOL-USD, start: 150, rate: 200/s}, ",
    );
    cluster.replace_sources("b", &more)?;
    second.signal("-HUP")?;
    second.logs("config reloaded")?;
    let before = reader.events(500).await?;
    let is_new = |(topic, _): &(String, u64)| topic.ends_with("SOL-USD");
    ensure!(!before.keys().any(is_new), "a standby has published");
    first.crash()?;
    second.logs("leading the cluster")?;
    let after = reader.events(2000).await?;
    ensure!(
        after.keys().any(is_new),
        "the reloaded config is not in force"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_can_not_hear_says_so_within_a_second() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let _publisher = cluster.publisher("a", MARKET)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    reader.events(200).await?;
    cluster.crash_nats()?;
    let clock = Clock::start();
    let since = clock.now();
    reader.source(SourceState::Reconnecting).await?;
    let took = clock.now().since(since);
    ensure!(
        took < Duration::from_secs(5),
        "reported after {took:?}, with stale_after 500ms"
    );
    cluster.restart_nats()?;
    reader.source(SourceState::Live).await?;
    reader.events(200).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn publishers_refuse_clients() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    ensure!(
        cluster
            .gateway("one")
            .is_err_and(|error| error.to_string().contains("cannot open stream")),
        "a gateway starts without a log"
    );
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    match Client::connect(publisher.address, Encoding::Json).await {
        Err(error) => ensure!(error.to_string().contains("404"), "{error}"),
        Ok(_) => bail!("a publisher has accepted a client"),
    }
    let readiness = format!("http://{}/readyz", publisher.address);
    let ready = wait_for("readiness", || Ok(ureq::get(&readiness).call().ok()))?;
    ensure!(ready.status() == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_quiet_publisher_still_appends_records() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let quiet = "[{name: in, kind: push, open: true, instruments: [{symbol: BTC-USD}]}]";
    let publisher = cluster.publisher("a", quiet)?;
    let standby = cluster.publisher("b", quiet)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let event = "{\"ch\":\"trade\",\"sym\":\"BTC-USD\",\"px\":\"1.5\",\"qty\":\"2\"}";
    let url = format!("http://{}/v1/publish", publisher.address);
    for _ in 0..3 {
        // Longer than the lease: without records in between, the other publisher would take over.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let sent = ureq::post(&url)
            .content_type("application/x-ndjson")
            .send(event)?;
        ensure!(sent.status() == 200, "{}", sent.status());
    }
    reader.events(3).await?;
    ensure!(
        standby.log()?.matches("node leads the cluster").count() == 1,
        "{}",
        standby.log()?
    );
    Ok(())
}
