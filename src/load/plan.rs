//! The plan of a load test.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::plan_error::PlanError;
use super::raw::RawPlan;
use crate::client::{ClientTls, Token};
use crate::protocol::{DeliveryWish, Encoding, INTERVALS_MS, Mode, OnSlow};

/// The random numbers of a plan: the same seed, the same plan.
pub(super) type PlanRng = chacha20::ChaCha8Rng;

/// Settings of a load test.
///
/// ```no_run
/// use std::time::Duration;
///
/// use tickcast::load::{
///     ClockCheck, Latency, LatencySummary, LedgerSums, LoadError, ModeMix, Outcome, Plan, Probes, Share,
///     Skew, Slo, Span, TopicChoice, Update, Verdict, run, write_table,
/// };
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let names = vec!["quote:*".to_owned()];
/// let plan = Plan {
///     connections: 1_000,
///     topics: TopicChoice::Draw { names: names.clone(), each: 20, skew: Skew::Zipf(1.0) },
///     modes: "raw:80,conflate:20".parse::<ModeMix>()?,
///     slow: "5%".parse::<Share>()?,
///     probes: Probes::Count(20),
///     duration: Duration::from_secs(60),
///     ..Plan::new("127.0.0.1:8080".parse()?, names)
/// };
/// let p99 = |latency: &Latency| latency.end_to_end().value_at_quantile(0.99);
/// let mut watch = |update: Update<'_>| {
///     if let Update::Second(Span { tally, latency, .. }) = update {
///         println!("{} deliveries, p99 {} ns", tally.delivered, p99(latency));
///     }
///     false
/// };
/// let outcome: Outcome = match run(&plan, &mut watch) {
///     Err(LoadError::NoTopics(names)) => return Err(format!("no topic matches {names}").into()),
///     other => other?,
/// };
/// write_table(&outcome, &mut std::io::stdout())?;
///
/// let slo: Slo = "p99<5ms,loss=0".parse()?;
/// for Verdict { objective, measured_text, holds, .. } in slo.judge(&outcome) {
///     println!("{objective}: {measured_text}, {}", if holds { "met" } else { "missed" });
/// }
/// let p50 = outcome.end_to_end().map(|summary: LatencySummary| summary.p50);
/// let merged = outcome.ledger.map(|ledger: LedgerSums| ledger.merged);
/// let offset = outcome.clock.map(|clock: ClockCheck| clock.offset_ns);
/// # let _ = (p50, merged, offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    /// Address of the server.
    pub address: SocketAddr,
    /// Host name sent in the handshake.
    pub host: String,
    /// Path of the feed; `/v1/feed`, with the prefix of a proxy in front of it.
    pub path: String,
    /// Trusted certificates for connections with TLS; `None`: without TLS.
    pub tls: Option<ClientTls>,
    /// Token of a server with authentication, which all connections present and renew.
    pub token: Option<Token>,
    /// Protocol of the server.
    pub dialect: Dialect,
    /// Number of connections.
    pub connections: usize,
    /// Period over which the connections are opened.
    pub ramp: Duration,
    /// Time for which all handshakes are held back; then all are sent at once.
    pub silence: Duration,
    /// Topics of each connection.
    pub topics: TopicChoice,
    /// Wire encoding.
    pub encoding: Encoding,
    /// Delivery modes and their weights.
    pub modes: ModeMix,
    /// Slow-consumer policy; the channel's default if `None`.
    pub on_slow: Option<OnSlow>,
    /// Share of connections that read slowly.
    pub slow: Share,
    /// Read rate of slow consumers, in bytes per second.
    pub slow_bytes_per_s: u64,
    /// Share of connections that never read.
    pub stalled: Share,
    /// Time for which every other connection reads nothing after it has subscribed.
    pub pause: Duration,
    /// Interval at which all of them pause again, together; zero: never.
    pub pause_every: Duration,
    /// Connections per second that are cut and reconnect.
    pub churn_per_s: f64,
    /// Cut all connections at half time; they reconnect at once.
    pub storm: bool,
    /// Measured time.
    pub duration: Duration,
    /// Warm-up excluded from measurement.
    pub warmup: Duration,
    /// Seed of all random choices.
    pub seed: u64,
    /// Number of connections that decode all messages and measure.
    pub probes: Probes,
    /// Number of threads.
    pub workers: usize,
    /// Busy-poll the sockets: steadier latencies, uses a full core.
    pub spin: bool,
    /// Request the ledger of each connection at the end.
    pub ledger: bool,
}

impl Plan {
    /// A small test of a server: ten connections for ten seconds, each with all of `names`.
    pub fn new(address: SocketAddr, names: Vec<String>) -> Self {
        Self {
            address,
            host: address.to_string(),
            path: "/v1/feed".to_owned(),
            tls: None,
            token: None,
            dialect: Dialect::Tickcast,
            connections: 10,
            ramp: Duration::ZERO,
            silence: Duration::ZERO,
            topics: TopicChoice::All(names),
            encoding: Encoding::Msgpack,
            modes: ModeMix::raw(),
            on_slow: None,
            slow: Share::default(),
            slow_bytes_per_s: 10 * 1024,
            stalled: Share::default(),
            pause: Duration::ZERO,
            pause_every: Duration::ZERO,
            churn_per_s: 0.0,
            storm: false,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(1),
            seed: 1,
            probes: Probes::Count(10),
            workers: 1,
            spin: false,
            ledger: true,
        }
    }
}

/// Protocol of the tested server.
#[derive(Debug, Clone)]
pub enum Dialect {
    /// The tickcast protocol.
    Tickcast,
    /// Any other protocol over WebSocket.
    Raw(RawPlan),
}

impl Dialect {
    /// True for a server of another protocol, which has no ledgers.
    pub(super) const fn is_raw(&self) -> bool {
        matches!(self, Self::Raw(_))
    }
}

/// Topics that each connection subscribes to.
#[derive(Debug, Clone, PartialEq)]
pub enum TopicChoice {
    /// Each connection subscribes to all of these names.
    All(Vec<String>),
    /// Topics drawn from those that the names match.
    Draw {
        /// Topics and patterns.
        names: Vec<String>,
        /// Topics per connection.
        each: usize,
        /// Distribution of the draw.
        skew: Skew,
    },
}

/// Distribution of drawn topics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Skew {
    /// Uniform distribution.
    Uniform,
    /// The k-th with weight 1/k^s.
    Zipf(f64),
}

/// Number of connections that decode all messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probes {
    /// This number of probes.
    Count(usize),
    /// All connections that read at full speed.
    All,
}

/// Share of the connections.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Share(f64);

impl Share {
    /// Share of a number of connections, rounded to the nearest integer.
    pub fn of(self, all: usize) -> usize {
        (all as f64 * self.0).round() as usize
    }
}

impl FromStr for Share {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let number = text
            .strip_suffix('%')
            .and_then(|percent| percent.parse::<f64>().ok());
        let share = number
            .filter(|percent| (0.0..=100.0).contains(percent))
            .map(|percent| Self(percent / 100.0));
        share.ok_or_else(|| PlanError::new(text, "a percentage of connections from 0% to 100%"))
    }
}

impl FromStr for Probes {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text {
            "all" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Count)
                .map_err(|_invalid| PlanError::new(text, "a number of connections, or all")),
        }
    }
}

impl FromStr for Skew {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let zipf = text
            .strip_prefix("zipf")
            .map(|rest| rest.strip_prefix(':').map_or(Some(1.0), |s| s.parse().ok()));
        match (text, zipf) {
            ("uniform", _) => Ok(Self::Uniform),
            (_, Some(Some(s))) if (0.0..=10.0).contains(&s) => Ok(Self::Zipf(s)),
            _ => Err(PlanError::new(
                text,
                "uniform, zipf, or zipf:S with exponent S from 0 to 10",
            )),
        }
    }
}

/// Reads `raw`, `conflate`, or an interval as in `100ms` or `interval-100ms`.
pub fn parse_mode(text: &str) -> Option<Mode> {
    match text {
        "raw" => Some(Mode::Raw),
        "conflate" => Some(Mode::Conflate),
        other => {
            let other = other.strip_prefix("interval-").unwrap_or(other);
            let ms = other
                .strip_suffix("ms")?
                .parse()
                .ok()
                .filter(|ms| INTERVALS_MS.contains(ms))?;
            Some(Mode::Interval(ms))
        }
    }
}

/// Delivery modes, each with its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct ModeMix(Vec<(Mode, f64)>);

impl ModeMix {
    /// Everything raw.
    pub fn raw() -> Self {
        Self(vec![(Mode::Raw, 1.0)])
    }

    pub(super) fn draw(&self, rng: &mut PlanRng) -> Mode {
        let all: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.random::<f64>() * all;
        for (mode, weight) in &self.0 {
            left -= weight;
            if left < 0.0 {
                return *mode;
            }
        }
        self.0[0].0
    }
}

impl FromStr for ModeMix {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let wrong = || {
            PlanError::new(
                text,
                "modes with weights, e.g. raw:80,interval-100ms:20, or one mode, e.g. conflate",
            )
        };
        let mut mix = Vec::new();
        for part in text.split(',') {
            let (mode, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight: f64 = weight.parse().map_err(|_not_a_number| wrong())?;
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(wrong());
            }
            mix.push((parse_mode(mode).ok_or_else(wrong)?, weight));
        }
        Ok(Self(mix))
    }
}

/// Role of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Counts frames, events and bytes.
    Counter,
    /// Decodes everything, measures, and keeps its ledger.
    Probe,
    /// Reads slowly.
    Slow,
    /// Never reads.
    Stalled,
}

/// One connection of a plan.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    pub number: usize,
    pub role: Role,
    pub topics: Vec<String>,
    pub wish: DeliveryWish,
}

/// Assigns the roles, topics and modes of all connections; `known` are the topics that the plan's
/// names match.
pub(super) fn assign(plan: &Plan, known: &[String]) -> Vec<Assignment> {
    let mut rng = PlanRng::seed_from_u64(plan.seed);
    let mut roles = roles(plan);
    roles.shuffle(&mut rng);
    let one = |(number, role)| {
        let mode = plan.modes.draw(&mut rng);
        let wish = DeliveryWish {
            mode: Some(mode),
            interval_ms: mode.interval_ms(),
            on_slow: plan.on_slow,
        };
        Assignment {
            number,
            role,
            topics: plan.topics.of_one(known, &mut rng),
            wish,
        }
    };
    roles.into_iter().enumerate().map(one).collect()
}

fn roles(plan: &Plan) -> Vec<Role> {
    let all = plan.connections;
    let stalled = plan.stalled.of(all);
    let slow = plan.slow.of(all).min(all - stalled);
    let rest = all - stalled - slow;
    let probes = match plan.probes {
        Probes::All => rest,
        Probes::Count(probes) => probes.min(rest),
    };
    let parts = [
        (Role::Stalled, stalled),
        (Role::Slow, slow),
        (Role::Probe, probes),
        (Role::Counter, rest - probes),
    ];
    parts
        .into_iter()
        .flat_map(|(role, count)| std::iter::repeat_n(role, count))
        .collect()
}

impl TopicChoice {
    fn of_one(&self, known: &[String], rng: &mut PlanRng) -> Vec<String> {
        match self {
            Self::All(names) => names.clone(),
            Self::Draw { each, skew, .. } => {
                let each = (*each).min(known.len());
                let places = match skew {
                    Skew::Uniform => rand::seq::index::sample(rng, known.len(), each),
                    Skew::Zipf(s) => {
                        let weight = |place: usize| ((place + 1) as f64).powf(-s);
                        rand::seq::index::sample_weighted(rng, known.len(), weight, each)
                            .expect("1/k^s is positive and finite")
                    }
                };
                places
                    .into_iter()
                    .map(|place| known[place].clone())
                    .collect()
            }
        }
    }

    /// The topics and patterns as they were given.
    pub fn names(&self) -> &[String] {
        match self {
            Self::All(names) | Self::Draw { names, .. } => names,
        }
    }
}
