//! Plan of a seed: its kinds of faults, and the settings of its servers.

use std::time::Duration;

use tickcast::cluster::ClusterSettings;
use tickcast::config::Config;

use crate::Violation;
use crate::rng::Rng;

/// Kinds of faults. A seed has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Requests to the log are lost, or their answers.
    Loss,
    /// Requests arrive late, also after their sender has given up.
    Late,
    /// Requests overtake each other.
    Reorder,
    /// Copies of new records are lost, late, doubled, damaged, or overtake each other.
    Copies,
    /// The log refuses records without a reason.
    Refusal,
    /// Replicas lag behind, and answers are out of date.
    Stale,
    /// The log has no leader for a while, and loses what was not committed.
    NoLeader,
    /// The log forgets acknowledged records.
    RollBack,
    /// The stream of the log is lost.
    LostStream,
    /// A server is cut off from the log for a while.
    Cut,
    /// A publisher is frozen for a while.
    Freeze,
    /// A publisher ends without notice.
    Kill,
    /// The leading publisher hands the log over.
    HandOver,
    /// A gateway is frozen, or ends without notice.
    Gateway,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Loss,
        Self::Late,
        Self::Reorder,
        Self::Copies,
        Self::Refusal,
        Self::Stale,
        Self::NoLeader,
        Self::RollBack,
        Self::LostStream,
        Self::Cut,
        Self::Freeze,
        Self::Kill,
        Self::HandOver,
        Self::Gateway,
    ];

    /// True for faults that happen at a moment, rather than with a probability.
    pub(crate) const fn is_event(self) -> bool {
        matches!(
            self,
            Self::NoLeader
                | Self::RollBack
                | Self::LostStream
                | Self::Cut
                | Self::Freeze
                | Self::Kill
                | Self::HandOver
                | Self::Gateway
        )
    }
}

/// Plan of a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) publishers: usize,
    pub(crate) gateways: usize,
    /// Settings of all servers but for their names.
    pub(crate) settings: ClusterSettings,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Result<Self, Violation> {
        let mut rng = Rng::new(seed ^ 0xc105);
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| rng.chance(40)).collect();
        let mut settings = default_settings()?;
        let ms = Duration::from_millis;
        settings.tick = ms(*rng.pick(&[150, 400]));
        settings.window = *rng.pick(&[1, 4, 256]);
        settings.repair = *rng.pick(&[600, 1 << 20, 1 << 20]);
        if faults.contains(&Fault::LostStream) {
            // Without checkpoints a log is readable from its first record only.
            settings.repair = 1 << 20;
        }
        // Simulations have no object store.
        settings.checkpoints.interval = Duration::from_secs(1 << 30);
        Ok(Self {
            seed,
            faults,
            publishers: 2 + rng.below(2),
            gateways: 2,
            settings,
        })
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// Settings of the default config.
fn default_settings() -> Result<ClusterSettings, Violation> {
    let text = "cluster: {role: publisher, node: a, nats: {urls: [\"nats://none\"]}}\n\
         sources: [{name: s, kind: push, instruments: [{symbol: A}], open: true}]";
    let config = Config::parse(text, "simulation");
    let config = config.map_err(|error| Violation::new(error.to_string()))?;
    let settings = config.cluster;
    settings.ok_or_else(|| Violation::new("the config has no cluster"))
}
