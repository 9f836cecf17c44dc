//! The `sources` section.

mod faults;
mod hours;
mod instrument;
mod push;
mod recorded;
mod rules;
mod simulated;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::reader::Section;
use super::{Config, shared};
use crate::market::{Instrument, Symbol};
use crate::replay::ReplayConfig;
use crate::source::faults::FaultSpec;
use crate::source::push::PushRules;
use crate::source::rules::SourceRules;
use crate::source::sim::SimConfig;

/// Configuration of one source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Name of the source in messages, metrics and logs.
    pub name: Arc<str>,
    /// Silence after which the source is stale.
    pub stale_after: Duration,
    /// Rules for bad market data.
    pub rules: SourceRules,
    /// Scheduled faults.
    pub faults: Vec<FaultSpec>,
    /// True if operators may inject faults (`faults.admin`).
    pub takes_faults: bool,
    /// Settings specific to the kind of source.
    pub details: SourceDetails,
}

impl SourceConfig {
    /// Source without faults and with the default settings.
    pub fn new(name: &str, stale_after: Duration, details: SourceDetails) -> Self {
        Self {
            name: shared(name),
            stale_after,
            rules: SourceRules::default(),
            faults: Vec::new(),
            takes_faults: matches!(details, SourceDetails::Sim(_)),
            details,
        }
    }

    /// Seed of the random choices of faults.
    pub const fn seed(&self) -> u64 {
        match &self.details {
            SourceDetails::Sim(sim) => sim.seed,
            SourceDetails::Replay(_) | SourceDetails::Push { .. } => 1,
        }
    }

    /// Symbols known before the source runs.
    fn symbols(&self) -> Vec<&Symbol> {
        match &self.details {
            SourceDetails::Sim(sim) => sim
                .instruments
                .iter()
                .map(|instrument| &instrument.symbol)
                .collect(),
            SourceDetails::Push { instruments, .. } => instruments
                .iter()
                .map(|instrument| &instrument.symbol)
                .collect(),
            // Files may contain more symbols; the bus rejects duplicates and counts their events.
            SourceDetails::Replay(replay) => replay.symbol.iter().collect(),
        }
    }
}

/// Settings of a source by its kind.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few, made once")]
pub enum SourceDetails {
    /// A simulated market.
    Sim(SimConfig),
    /// Recorded files.
    Replay(ReplayConfig),
    /// Prices published over HTTP.
    Push {
        /// Instruments that may be published.
        instruments: Vec<Instrument>,
        /// Rules for published events.
        rules: PushRules,
        /// SHA-256 of the publisher's token; `None`: open to all programs on this machine.
        token_sha256: Option<[u8; 32]>,
    },
}

impl Config {
    /// Names of the sources that accept published events.
    pub(super) fn push_sources(&self) -> Vec<&str> {
        let sources = self.sources.iter();
        let push = sources.filter(|one| matches!(one.details, SourceDetails::Push { .. }));
        push.map(|source| &*source.name).collect()
    }
}

impl SourceDetails {
    /// Symbols that the config lists; those of a replay are in its files.
    pub fn symbols(&self) -> Vec<Symbol> {
        match self {
            Self::Sim(sim) => sim
                .instruments
                .iter()
                .map(|one| one.symbol.clone())
                .collect(),
            Self::Push { instruments, .. } => {
                instruments.iter().map(|one| one.symbol.clone()).collect()
            }
            Self::Replay(_) => Vec::new(),
        }
    }
}

/// Maximum number of sources.
const SOURCES_MAX: usize = 1000;

pub(super) fn read(root: &Section<'_>) -> Vec<SourceConfig> {
    let sections = root.sections("sources");
    if sections.is_empty() {
        let message = if root.has("sources") {
            "expected at least one source"
        } else {
            "missing; expected at least one source of kind sim, replay or push"
        };
        root.problem("sources", message);
    }
    if sections.len() > SOURCES_MAX {
        root.problem(
            "sources",
            format!("too many sources; expected at most {SOURCES_MAX}"),
        );
    }
    let mut names = HashSet::new();
    let sources: Vec<SourceConfig> = sections
        .into_iter()
        .filter_map(|section| read_one(section, &mut names))
        .collect();
    let mut symbols: HashMap<&Symbol, &str> = HashMap::new();
    for source in &sources {
        for symbol in source.symbols() {
            if let Some(other) = symbols
                .insert(symbol, &source.name)
                .filter(|other| *other != &*source.name)
            {
                root.problem(
                    "sources",
                    format!(
                        "duplicate symbol \"{symbol}\": listed by sources {other} and {}",
                        source.name
                    ),
                );
            }
        }
    }
    sources
}

fn read_one(section: Section<'_>, names: &mut HashSet<String>) -> Option<SourceConfig> {
    let name = section.required("name");
    if !name.is_empty() && !names.insert(name.clone()) {
        section.problem(
            "name",
            format!("duplicate source name \"{}\"", name.escape_debug()),
        );
    }
    section.required("kind");
    let kind = section.word("kind");
    let stale_after = section.duration("stale_after");
    let (rules, faults) = (rules::read(&section), faults::read(&section));
    if kind == "push" && !faults.is_empty() {
        section.problem("faults", "expected a source of kind sim or replay");
    }
    if kind.is_empty() {
        return None;
    }
    let section = section.for_kind(kind);
    let details = match kind {
        "sim" => SourceDetails::Sim(simulated::read(&section)),
        "replay" => SourceDetails::Replay(recorded::read(&section)),
        _ => push::read(&section),
    };
    section.finish();
    Some(SourceConfig {
        rules,
        faults,
        ..SourceConfig::new(&name, stale_after, details)
    })
}
