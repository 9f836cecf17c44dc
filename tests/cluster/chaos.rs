//! Servers of a cluster are killed and frozen in random order. Clients that hop between gateways
//! receive every trade of the simulation once, in one epoch.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tickcast::clock::Clock;
use tokio::time::timeout;

use super::process::{Cluster, Process, wait_for};
use super::takeover::{Seen, metric};
use super::{DEADLINE, MARKET, Reader};

const CHECKPOINTS: &str = "interval: 1s";
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

    fn crash_nats(&mut self) -> Result<()> {
        self.cluster.crash_nats()?;
        self.cluster.restart_nats()
    }

    /// Ends a gateway, whose clients hop to the other one.
    async fn crash_gateway(&mut self, at: usize, hoppers: &mut [Hopper]) -> Result<()> {
        let fresh = self.cluster.gateway(["one", "two"][at])?;
        std::mem::replace(&mut self.gateways[at], fresh).crash()?;
        for hopper in hoppers.iter_mut().filter(|hopper| hopper.gateway == at) {
            hopper.hop(&self.gateways, 1 - at).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_receive_every_trade_once_whatever_dies() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let is_full = std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1");
    let mut servers = Servers {
        cluster,
        publishers: HashMap::new(),
        gateways: Vec::new(),
    };
    servers.start_publisher("a")?;
    servers.publishers["a"].logs("leading the cluster")?;
    servers.start_publisher("b")?;
    for gateway in ["one", "two"] {
        servers.gateways.push(servers.cluster.gateway(gateway)?);
    }
    let mut hoppers = Vec::new();
    for gateway in [0, 1] {
        hoppers.push(Hopper::connect(&servers.gateways, gateway).await?);
    }
    let mut rng = SmallRng::seed_from_u64(7);
    let mut done = Vec::new();
    for round in 0..if is_full { 100 } else { 10 } {
        // Each kind of fault comes early.
        let kind = if round < 4 {
            round
        } else {
            rng.random_range(0..4)
        };
        done.push(kind);
        for hopper in &mut hoppers {
            hopper.read().await.with_context(|| format!("{done:?}"))?;
        }
        let outcome = match kind {
            0 => servers.crash_leader(),
            1 => servers.freeze_leader(),
            2 => servers.crash_nats(),
            _ => {
                let at = rng.random_range(0..2);
                servers.crash_gateway(at, &mut hoppers).await
            }
        };
        outcome.with_context(|| format!("{done:?}"))?;
    }
    for hopper in &mut hoppers {
        hopper.read().await.with_context(|| format!("{done:?}"))?;
    }
    let states = [0, 1].map(|at| hoppers[at].seen.epochs.clone());
    ensure!(states[0] == states[1], "{states:?}");
    Ok(())
}
