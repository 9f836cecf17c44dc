//! Servers of a cluster are killed and frozen in random order. Clients that hop between gateways
//! receive every trade of the simulation once, in one epoch.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::Context as Jetstream;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tickcast::clock::Clock;
use tokio::time::timeout;

use super::nats::SYNC;
use super::process::{Cluster, Process, wait_for};
use super::takeover::{Seen, metric};
use super::{DEADLINE, MARKET, Reader};

const CHECKPOINTS: &str = "interval: 1s";
/// Clients read nothing while the test puts a fault into the cluster and waits for its end.
const PATIENT: &str = "fanout: {behind: 2m, outbox: 16MiB}\n";
/// Trades that are read at once.
const TRADES: usize = 20;

/// A client, and the number of its gateway.
struct Hopper {
    reader: Reader,
    seen: Seen,
    gateway: usize,
}

impl Hopper {
    async fn connect(gateways: &[Process], gateway: usize) -> Result<Self> {
        let mut reader = Reader::connect(&gateways[gateway]).await?;
        reader.subscribe(None).await?;
        Ok(Self {
            reader,
            seen: Seen::default(),
            gateway,
        })
    }

    async fn hop(&mut self, gateways: &[Process], gateway: usize) -> Result<()> {
        let mut reader = Reader::connect(&gateways[gateway]).await?;
        reader.subscribe(Some(&self.reader.positions)).await?;
        (self.reader, self.gateway) = (reader, gateway);
        Ok(())
    }

    /// Reads everything up to trades that are newer than this call.
    async fn read(&mut self) -> Result<()> {
        let now = Clock::start().now();
        let read = async {
            while self.seen.newest < now {
                self.seen.read(&mut self.reader, TRADES).await?;
            }
            anyhow::Ok(())
        };
        timeout(DEADLINE, read).await.context("trades stopped")?
    }
}

/// Servers whose names are `a` and `b`.
struct Servers {
    cluster: Cluster,
    publishers: HashMap<&'static str, Process>,
    gateways: Vec<Process>,
}

impl Servers {
    fn start_publisher(&mut self, node: &'static str) -> Result<()> {
        let publisher = self.cluster.checkpointing(node, MARKET, CHECKPOINTS)?;
        self.publishers.insert(node, publisher);
        Ok(())
    }

    /// Names of the leader and of the other publisher, once there is one of each. A leader that was
    /// overtaken, because NATS was away for longer than its lease, ends and is started again.
    fn roles(&mut self) -> Result<(&'static str, &'static str)> {
        wait_for("leader and standby", || {
            for node in ["a", "b"] {
                let publisher = self.publishers.get_mut(node).context("it was started")?;
                if publisher.has_ended()? {
                    self.start_publisher(node)?;
                }
            }
            Ok(match (self.leads("a"), self.leads("b")) {
                (Some(true), Some(false)) => Some(("a", "b")),
                (Some(false), Some(true)) => Some(("b", "a")),
                _ => None,
            })
        })
    }

    /// `None` if the publisher is ending and does not answer.
    fn leads(&self, node: &str) -> Option<bool> {
        let leads = metric(&self.publishers[node], "tickcast_cluster_leading ");
        leads.ok().map(|leads| leads == 1)
    }

    fn wait_until_leading(&self, node: &str) -> Result<()> {
        let leads = wait_for("takeover", || {
            Ok(self.leads(node).filter(|leads| *leads).map(drop))
        });
        leads.with_context(|| self.publishers[node].log().unwrap_or_default())
    }

    /// Ends the leader; the other publisher takes over.
    fn crash_leader(&mut self) -> Result<()> {
        let (leader, standby) = self.roles()?;
        let crashed = self.publishers.remove(leader).context("it leads")?;
        crashed.crash()?;
        self.wait_until_leading(standby)?;
        self.start_publisher(leader)
    }

    /// Freezes the leader until the other publisher has taken over: it must not go on.
    fn freeze_leader(&mut self) -> Result<()> {
        let (leader, standby) = self.roles()?;
        let mut frozen = self.publishers.remove(leader).context("it leads")?;
        frozen.signal("-STOP")?;
        self.wait_until_leading(standby)?;
        frozen.signal("-CONT")?;
        let ended = frozen.ended();
        let ended = ended.with_context(|| frozen.log().unwrap_or_default())?;
        ensure!(!ended.success(), "it was overtaken");
        self.start_publisher(leader)
    }

    /// Ends all NATS servers and starts them again.
    fn crash_all_nats(&mut self) -> Result<()> {
        let nats = &mut self.cluster.nats;
        for at in 0..nats.count() {
            nats.crash(at)?;
        }
        for at in 0..nats.count() {
            nats.restart(at)?;
        }
        Ok(())
    }

    /// Ends the NATS server that leads the stream of the log, or one that follows it, and starts it
    /// again once the others have written records without it.
    async fn crash_nats(&mut self, leads: bool) -> Result<()> {
        let leader = stream_leader(&self.cluster.jetstream().await?).await?;
        let leader = self.cluster.nats.named(&leader).context("a NATS server")?;
        let count = self.cluster.nats.count();
        let at = if leads { leader } else { (leader + 1) % count };
        self.cluster.nats.crash(at)?;
        let record = metric(&self.gateways[0], "tickcast_cluster_record ")?;
        wait_for("records without a NATS server", || {
            let now = metric(&self.gateways[0], "tickcast_cluster_record ")?;
            Ok((now > record + 5).then_some(()))
        })?;
        self.cluster.nats.restart(at)
    }

    /// Ends a gateway, whose clients hop to the other one.
    async fn crash_gateway(&mut self, at: usize, hoppers: &mut [Hopper]) -> Result<()> {
        let fresh = self.cluster.gateway_with(["one", "two"][at], PATIENT)?;
        std::mem::replace(&mut self.gateways[at], fresh).crash()?;
        for hopper in hoppers.iter_mut().filter(|hopper| hopper.gateway == at) {
            hopper.hop(&self.gateways, 1 - at).await?;
        }
        Ok(())
    }
}

/// State of all topics of a gateway: epochs, sequence numbers and events.
fn state_of(gateway: &Process) -> Result<String> {
    let topics = "trade:*,quote:*,ticker:*,status:*,bar:*:1s,bar:*:1m";
    let url = format!("http://{}/v1/snapshot?topics={topics}", gateway.address);
    Ok(ureq::get(&url).call()?.body_mut().read_to_string()?)
}

impl Servers {
    /// Ends the publishers; the gateways must have the same state behind the same last record.
    fn compare_gateways(&mut self) -> Result<()> {
        for (_, publisher) in self.publishers.drain() {
            publisher.crash()?;
        }
        let record = |at: usize| metric(&self.gateways[at], "tickcast_cluster_record ");
        wait_for("the same record", || {
            let silent = metric(&self.gateways[0], "tickcast_cluster_log_silent ")?;
            Ok((silent == 1 && record(0)? == record(1)?).then_some(()))
        })?;
        let states = [state_of(&self.gateways[0])?, state_of(&self.gateways[1])?];
        ensure!(states[0].len() > 1000, "{}", states[0]);
        ensure!(states[0] == states[1], "{states:#?}");
        Ok(())
    }
}

/// Name of the NATS server that leads the stream of the log.
pub(crate) async fn stream_leader(jetstream: &Jetstream) -> Result<String> {
    let find = async {
        loop {
            let stream = jetstream.get_stream("TC_LOG_main").await?;
            let cluster = stream.cached_info().cluster.clone();
            if let Some(leader) = cluster.and_then(|cluster| cluster.leader) {
                return Ok(leader);
            }
        }
    };
    timeout(DEADLINE, find).await.context("no leader")?
}

/// Fault of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    LeaderCrashes,
    LeaderFreezes,
    AllNatsCrash,
    GatewayCrashes,
    /// The NATS server that leads the stream.
    NatsLeaderCrashes,
    NatsFollowerCrashes,
}

use Fault::{
    AllNatsCrash, GatewayCrashes, LeaderCrashes, LeaderFreezes, NatsFollowerCrashes,
    NatsLeaderCrashes,
};

/// Puts this number of faults into a cluster, each kind of them early; clients must receive every
/// trade once, in one epoch.
async fn survive(cluster: Cluster, kinds: &[Fault], rounds: usize) -> Result<()> {
    let mut servers = Servers {
        cluster,
        publishers: HashMap::new(),
        gateways: Vec::new(),
    };
    servers.start_publisher("a")?;
    servers.publishers["a"].logs("leading the cluster")?;
    servers.start_publisher("b")?;
    for gateway in ["one", "two"] {
        let gateway = servers.cluster.gateway_with(gateway, PATIENT)?;
        servers.gateways.push(gateway);
    }
    let mut hoppers = Vec::new();
    for gateway in [0, 1] {
        hoppers.push(Hopper::connect(&servers.gateways, gateway).await?);
    }
    let mut rng = SmallRng::seed_from_u64(7);
    let mut done = Vec::new();
    for round in 0..rounds {
        let drawn = rng.random_range(0..kinds.len());
        let kind = *kinds.get(round).unwrap_or(&kinds[drawn]);
        done.push(kind);
        for hopper in &mut hoppers {
            hopper.read().await.with_context(|| format!("{done:?}"))?;
        }
        let outcome = match kind {
            LeaderCrashes => servers.crash_leader(),
            LeaderFreezes => servers.freeze_leader(),
            AllNatsCrash => servers.crash_all_nats(),
            NatsLeaderCrashes => servers.crash_nats(true).await,
            NatsFollowerCrashes => servers.crash_nats(false).await,
            GatewayCrashes => {
                let at = rng.random_range(0..2);
                servers.crash_gateway(at, &mut hoppers).await
            }
        };
        outcome.with_context(|| format!("{done:?}"))?;
    }
    for hopper in &mut hoppers {
        hopper.read().await.with_context(|| format!("{done:?}"))?;
    }
    servers.compare_gateways()
}

/// Number of faults in `./check` or `./check --full`.
fn rounds(daily: usize) -> usize {
    let is_full = std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1");
    if is_full { 100 } else { daily }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_receive_every_trade_once_whatever_dies() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let kinds = [LeaderCrashes, LeaderFreezes, AllNatsCrash, GatewayCrashes];
    survive(cluster, &kinds, rounds(10)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_receive_every_trade_once_whatever_dies_of_three_nats_servers() -> Result<()> {
    let Some(cluster) = Cluster::with_nats(3, SYNC)? else {
        return Ok(());
    };
    let kinds = [
        NatsFollowerCrashes,
        LeaderFreezes,
        NatsLeaderCrashes,
        AllNatsCrash,
        LeaderCrashes,
        GatewayCrashes,
    ];
    survive(cluster, &kinds, rounds(4)).await
}
