//! A client with strict accounts that disconnects, stalls, returns and changes its subscriptions.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tickcast::client::{Accounts, Client, ClientError, ClientTls, FeedUrl, Positions, Trust};
use tickcast::protocol::{
    Control, DeliveryWish, Encoding, Entry, Mode, OnSlow, Op, ResumeFrom, Seq, ServerMessage,
    Subscribe, TopicsAsked,
};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::process::Addresses;
use crate::truth::Truth;

/// Time limit for a message when heartbeats are due every few hundred milliseconds; pauses of the
/// server are much shorter.
const SILENCE: Duration = Duration::from_secs(30);

/// Numbers over all clients, to see that the run was not empty.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: AtomicU64,
    pub(crate) over_tls: AtomicU64,
    pub(crate) ledgers: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) started_over: AtomicU64,
    pub(crate) gaps: AtomicU64,
    pub(crate) stalls: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Environment of a client.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) truth: Arc<Truth>,
    pub(crate) totals: Arc<Totals>,
    /// Address of the server; `None` once the run ends.
    pub(crate) server: watch::Receiver<Option<Addresses>>,
}

/// Connections of one client until the run ends.
pub(crate) async fn run(number: u64, seed: u64, mut world: World) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (number << 32));
    let encoding = Encoding::ALL[number as usize % Encoding::COUNT];
    let mut positions = Positions::default();
    loop {
        let Some(server) = *world.server.borrow_and_update() else {
            return;
        };
        let transport = (server, number % 4 >= 2);
        let outcome = Life::live(transport, encoding, &mut positions, &mut rng, &world).await;
        if let Err(error) = outcome {
            world.truth.fail(format!("client {number}: {error:#}"));
            return;
        }
        // The next attempt waits a little, as clients do; the server may be down.
        let pause = Duration::from_millis(rng.random_range(5..200));
        tokio::time::sleep(pause).await;
    }
}

async fn connect(
    server: Addresses,
    is_tls: bool,
    encoding: Encoding,
) -> Result<Client, ClientError> {
    if !is_tls {
        return Client::connect(server.plain, encoding).await;
    }
    // The certificates change during the run.
    let trust = ClientTls::new(&Trust::Any)?;
    let url = format!("wss://{}", server.tls).parse::<FeedUrl>();
    let url = url.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Client::connect_with(&url, &trust, encoding).await
}

/// One connection.
struct Life<'w> {
    client: Client,
    accounts: Accounts,
    positions: &'w mut Positions,
    resumed: HashMap<String, (Seq, String)>,
    world: &'w World,
}

impl Life<'_> {
    /// Connects, and reads until the connection ends. An error is a violation of the protocol.
    async fn live(
        (server, is_tls): (Addresses, bool),
        encoding: Encoding,
        positions: &mut Positions,
        rng: &mut ChaCha8Rng,
        world: &World,
    ) -> Result<()> {
        let Ok(Ok(client)) = timeout(SILENCE, connect(server, is_tls, encoding)).await else {
            return Ok(());
        };
        if is_tls {
            count(&world.totals.over_tls);
        }
        count(&world.totals.connections);
        let from = positions.resume_from();
        let mut life = Life {
            client,
            accounts: Accounts::default(),
            positions,
            resumed: from.as_ref().map_or_else(HashMap::new, resumed),
            world,
        };
        match life.session(from, rng).await {
            Err(error) if is_end(&error) => Ok(()),
            other => other,
        }
    }

    async fn session(&mut self, from: Option<ResumeFrom>, rng: &mut ChaCha8Rng) -> Result<()> {
        let subscribe = Subscribe {
            topics: ["trade:*", "quote:*", "bar:*:1s", "status:*"]
                .map(Into::into)
                .into(),
            from,
            ..Subscribe::default()
        };
        self.client.request(Op::Subscribe(subscribe)).await?;
        let mut over = self.world.server.clone();
        loop {
            let period = Duration::from_millis(rng.random_range(20..1500));
            // Cancelled between messages at the earliest: a message that was read is taken in.
            if let Ok(ended) = timeout(period, self.read()).await {
                return ended;
            }
            if over.borrow_and_update().is_none() {
                return self.check_ledger().await;
            }
            match rng.random_range(0..12) {
                0 => return Ok(()),
                1 => {
                    count(&self.world.totals.stalls);
                    tokio::time::sleep(Duration::from_millis(rng.random_range(200..3000))).await;
                }
                2 | 3 => self.check_ledger().await?,
                4 | 5 => self.change(rng).await?,
                6 => {
                    let topics = vec!["quote:*".into(), "trade:S1".into()];
                    self.client.request(Op::Resync { topics }).await?;
                }
                7 => {
                    let topics = vec!["trade:*".into()];
                    let asked = TopicsAsked::These(topics);
                    self.client.request(Op::Unsubscribe(asked)).await?;
                }
                8 => {
                    let topics = vec!["trade:*".into()];
                    let subscribe = Subscribe {
                        topics,
                        ..Subscribe::default()
                    };
                    self.client.request(Op::Subscribe(subscribe)).await?;
                }
                _ => {}
            }
        }
    }

    /// Takes in messages until the connection ends.
    async fn read(&mut self) -> Result<()> {
        loop {
            let message = self.client.next().await?;
            self.take(&message)?;
        }
    }

    async fn change(&mut self, rng: &mut ChaCha8Rng) -> Result<()> {
        let mode = [Mode::Raw, Mode::Conflate, Mode::Interval(100)][rng.random_range(0..3)];
        let on_slow = [OnSlow::Conflate, OnSlow::Gap][rng.random_range(0..2)];
        let wish = DeliveryWish {
            mode: Some(mode),
            on_slow: Some(on_slow),
            ..DeliveryWish::default()
        };
        let topics = vec!["quote:*".into(), "bar:*:1s".into()];
        self.client.request(Op::Modify { topics, wish }).await?;
        Ok(())
    }

    /// Requests the ledger, which the accounts compare with their own.
    async fn check_ledger(&mut self) -> Result<()> {
        self.client.request(Op::Ledger).await?;
        loop {
            let message = timeout(SILENCE, self.client.next()).await??;
            self.take(&message)?;
            if let ServerMessage::Control(Control::Ledger(ledger)) = &message
                && !ledger.more
            {
                count(&self.world.totals.ledgers);
                return Ok(());
            }
        }
    }

    fn take(&mut self, message: &ServerMessage) -> Result<()> {
        self.accounts.take(message)?;
        self.positions.take(message);
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    let topic = event.topic.to_string();
                    if let Some(account) = self.accounts.get(&topic) {
                        self.world.truth.record(&topic, &account.epoch, event);
                    }
                }
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                for event in &snapshot.events {
                    let (topic, epoch) = (&snapshot.topic, &snapshot.epoch);
                    self.world.truth.record(topic, epoch, event);
                }
            }
            ServerMessage::Control(Control::Subscribed(answer)) => self.take_resumed(&answer.ok),
            ServerMessage::Control(Control::Gap(_)) => count(&self.world.totals.gaps),
            ServerMessage::Control(Control::Error(error)) if error.code != 429 => {
                bail!("unexpected error {error:?}")
            }
            ServerMessage::Control(_) => {}
        }
        Ok(())
    }

    /// Sets the beginnings of accounts that continue from an earlier connection.
    fn take_resumed(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(matched) = &entry.matched {
                self.take_resumed(matched);
            }
            let Some((seq, epoch)) = self.resumed.remove(&entry.topic) else {
                continue;
            };
            let totals = &self.world.totals;
            match entry.recovered {
                Some(true) => count(&totals.recovered),
                _ => count(&totals.started_over),
            }
            if entry.epoch.as_ref() == Some(&epoch) && entry.seq.is_some_and(|head| seq <= head) {
                self.accounts.resume(&entry.topic, seq);
            }
        }
    }
}

/// Positions by topic, each with its epoch.
fn resumed(from: &ResumeFrom) -> HashMap<String, (Seq, String)> {
    let epoch = |topic: &str| {
        let own = from.epochs.iter().find(|(name, _)| &**name == topic);
        own.map_or_else(|| from.epoch.clone(), |(_, epoch)| epoch.to_string())
    };
    let position = |(topic, seq): &(_, Seq)| {
        let topic: &compact_str::CompactString = topic;
        (topic.to_string(), (*seq, epoch(topic)))
    };
    from.seqs.iter().map(position).collect()
}

/// True if a connection has ended, which is no violation.
fn is_end(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(ClientError::Closed { code, .. }) => matches!(code, 1005 | 1006 | 1012 | 4407),
        Some(ClientError::WebSocket(_) | ClientError::Connect(_)) => true,
        _ => false,
    }
}
