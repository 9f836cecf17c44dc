//! Pauses that clients of a gateway notice when the leading publisher is killed, and when it hands
//! the log over.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::market::UnixNanos;
use tickcast::protocol::{Encoding, Op, ServerMessage, Subscribe};
use tokio::time::timeout;

use crate::latency::{GATEWAY, PUBLISHER, market};
use crate::process::{Cluster, DEADLINE, Process};
use crate::report::Report;
use crate::{Engine, ONE, Span, THREE};

/// Events between two of which the pause is measured.
const EVENTS_PER_S: f64 = 1_000.0;
/// Time of events behind the fault, after which the pause is over.
const SETTLED: Duration = Duration::from_millis(300);

/// A client of a gateway, and the times between its events.
struct Listener {
    client: Client,
    clock: Clock,
    heard: UnixNanos,
}

impl Listener {
    async fn connect(gateway: &Process) -> Result<Self> {
        let mut client = Client::connect(gateway.address, Encoding::Msgpack).await?;
        let request = Subscribe {
            topics: vec!["quote:*".into()],
            ..Subscribe::default()
        };
        client.request(Op::Subscribe(request)).await?;
        let clock = Clock::start();
        let heard = clock.now();
        Ok(Self {
            client,
            clock,
            heard,
        })
    }

    /// Reads until an event that was published at this time or later; returns the longest time
    /// without one.
    async fn longest(&mut self, until: UnixNanos) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        let mut newest = UnixNanos(0);
        while newest < until {
            let message = timeout(DEADLINE, self.client.next()).await;
            if let ServerMessage::Events(events) = message.context("no message")?? {
                let now = self.clock.now();
                longest = longest.max(now.since(self.heard));
                self.heard = now;
                newest = events
                    .iter()
                    .map(|event| event.tx)
                    .fold(newest, UnixNanos::max);
            }
        }
        Ok(longest)
    }
}

fn publisher(cluster: &Cluster, node: &str) -> Result<Process> {
    cluster.member(node, PUBLISHER, &market(EVENTS_PER_S))
}

/// Pauses after kills, and over handovers.
async fn pauses(cluster: &Cluster, rounds: usize) -> Result<[Vec<f64>; 2]> {
    let mut leader = publisher(cluster, "a")?;
    leader.logs("leading the cluster")?;
    let gateway = cluster.member("one", GATEWAY, "")?;
    let mut listener = Listener::connect(&gateway).await?;
    let (mut killed, mut handed_over) = (Vec::new(), Vec::new());
    let mut nodes = ["a", "b"];
    for round in 0..2 * rounds {
        let standby = publisher(cluster, nodes[1])?;
        // Nothing waits to be read any more.
        listener.longest(listener.clock.now()).await?;
        let is_kill = round % 2 == 0;
        let begun = listener.clock.now();
        if is_kill {
            leader.crash()?;
        } else {
            let (code, text) = cluster.command(nodes[0], &["handover"])?;
            ensure!(code == Some(0), "{text}");
        }
        let pause = listener.longest(begun.plus(SETTLED)).await?;
        standby.logs("leading the cluster")?;
        let values = if is_kill {
            &mut killed
        } else {
            &mut handed_over
        };
        values.push(pause.as_secs_f64() * 1e3);
        leader = standby;
        nodes.swap(0, 1);
    }
    Ok([killed, handed_over])
}

pub(crate) fn run(span: Span, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for engine in [ONE, THREE] {
        let Engine { name, .. } = engine;
        let cluster = engine.start()?;
        let [killed, handed_over] = runtime.block_on(pauses(&cluster, span.rounds))?;
        let what = format!("pause after kill -9 of the leader, {name}");
        report.add(what, killed, "ms", "≤ lease (2 s) + 1 s");
        let what = format!("pause over a handover, {name}");
        report.add(what, handed_over, "ms", "≤ 100 ms");
    }
    Ok(())
}
