//! Plan of a simulation: everything that a seed decides before the first step, and the steps.

use std::time::Duration;

use tickcast::config::Config;
use tickcast::limits::ShardLimits;

use crate::Violation;
use crate::rng::Rng;
use crate::server::Sizes;

/// Kinds of faults and changes. A seed has some of them, and the shrinker leaves them out one by
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Clients read nothing for a while.
    Stall,
    /// Clients break off and resume.
    Disconnect,
    /// Sources fail and start over in new epochs.
    SourceFails,
    /// Sources announce more instruments.
    Growth,
    /// Reloads add, change and remove sources.
    Reload,
    /// Reloads change limits.
    Tune,
    /// Much is published while the shards do nothing.
    Overrun,
    /// The server drains and restarts from its saved state.
    Restart,
    /// The server ends without saving its state.
    Kill,
    /// The server is paused.
    Pause,
    /// Clients answer no pings.
    Deaf,
    /// Clients are refused at the handshake.
    Refuse,
    /// Clients ask for more than their sockets take at once.
    AskForMuch,
    /// Sources start over again and again while a client reads nothing.
    EpochsPileUp,
    /// Sources miss data.
    SourceGap,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::Stall,
        Self::Disconnect,
        Self::SourceFails,
        Self::Growth,
        Self::Reload,
        Self::Tune,
        Self::Overrun,
        Self::Restart,
        Self::Kill,
        Self::Pause,
        Self::Deaf,
        Self::Refuse,
        Self::AskForMuch,
        Self::EpochsPileUp,
        Self::SourceGap,
    ];
}

/// Plan of a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Numbers of the steps that are made.
    pub(crate) steps: Vec<usize>,
    /// Number of clients that take part.
    pub(crate) clients: usize,
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    /// The whole plan of a seed.
    pub(crate) fn of(seed: u64, steps: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let clients = 2 + rng.below(5);
        let faults = Fault::ALL.into_iter().filter(|_| rng.chance(50)).collect();
        Self {
            seed,
            steps: (0..steps).collect(),
            clients,
            faults,
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// Settings of the server.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) sizes: Sizes,
    pub(crate) limits: ShardLimits,
    pub(crate) sources: usize,
    /// Bytes of the kernels between server and client.
    pub(crate) capacity: usize,
    /// Time that passes with each reading of the clock.
    pub(crate) per_reading: Duration,
}

/// Limits of the default config, of which a seed changes those that matter here.
pub(crate) fn default_limits() -> Result<ShardLimits, Violation> {
    let text = "sources: [{name: s, kind: push, instruments: [{symbol: A}], open: true}]";
    let config = Config::parse(text, "simulation");
    let config = config.map_err(|error| Violation::new(error.to_string()))?;
    Ok(config.limits)
}

/// Limits drawn by a seed or a reload.
pub(crate) fn limits(rng: &mut Rng, defaults: ShardLimits) -> ShardLimits {
    let ms = Duration::from_millis;
    let mut limits = defaults;
    limits.outbox.outbox_bytes = *rng.pick(&[3000, 8000, 30_000, 1 << 20]);
    limits.outbox.frame_bytes = *rng.pick(&[1000, 4000, 32_000]);
    limits.outbox.control_bytes = *rng.pick(&[20_000, 100_000]);
    limits.outbox.behind_max = ms(*rng.pick(&[400, 1000, 5000]));
    limits.history.events = *rng.pick(&[10, 60, 500]);
    limits.history.age = Duration::from_secs(*rng.pick(&[2, 60]));
    limits.history.bytes = *rng.pick(&[20_000, 4 << 20]);
    limits.requests.topics = *rng.pick(&[6, 100]);
    limits.requests.requests_per_s = 100_000;
    limits.heartbeat = ms(*rng.pick(&[500, 3000]));
    limits.ping_after = ms(*rng.pick(&[2000, 20_000]));
    limits.drop_after = limits.ping_after * 3;
    limits.close_timeout = ms(*rng.pick(&[500, 30_000]));
    limits.stall_timeout = ms(*rng.pick(&[20_000, 3_600_000]));
    limits.flush_window = ms(*rng.pick(&[0, 0, 0, 5]));
    limits
}

impl Setup {
    pub(crate) fn of(seed: u64) -> Result<Self, Violation> {
        let mut rng = Rng::new(seed ^ 0x5e7);
        let limits = limits(&mut rng, default_limits()?);
        let nanos = *rng.pick(&[0, 0, 100, 20_000]);
        Ok(Self {
            sizes: Sizes {
                shards: 1 + rng.below(2),
                log_bytes: *rng.pick(&[6000, 40_000, 4 << 20]),
            },
            limits,
            sources: 1 + rng.below(3),
            capacity: *rng.pick(&[300, 2000, 20_000, 200_000]),
            per_reading: Duration::from_nanos(nanos),
        })
    }
}
