//! Restores the state that the last server saved in `state_dir`.

use std::collections::HashMap;
use std::path::Path;

use super::StartError;
use super::sources::Sources;
use crate::bus::RestoredState;
use crate::clock::Clock;
use crate::config::{Config, SourceConfig};
use crate::metrics::Metrics;
use crate::state::{ClockStep, Found, SavedSource, State, StateDir};

/// Opens the directory and reads the state that the last server saved there.
pub(super) fn open_state_dir(
    folder: &Path,
    clock: Clock,
    metrics: &Metrics,
) -> Result<(StateDir, Option<Box<State>>), StartError> {
    let failed = |error| StartError::State {
        folder: folder.to_owned(),
        error,
    };
    let mut dir = StateDir::open(folder).map_err(failed)?;
    let (found, step) = dir.take_up(&clock.moment()).map_err(failed)?;
    if let Some(step) = step {
        let (direction, by) = match step {
            ClockStep::Forward(by) => ("forward", by),
            ClockStep::Back(by) => ("back", by),
        };
        metrics.clock_steps.with_label_values(&[direction]).inc();
        tracing::warn!(direction, ?by, "wall clock stepped since the last run");
    }
    let left = match found {
        Found::Nothing => None,
        Found::State(state) => {
            tracing::info!(topics = state.topics.len(), "state restored");
            Some(state)
        }
        Found::Refused(refusal) => {
            let reason = refusal.reason();
            metrics.states_rejected.with_label_values(&[reason]).inc();
            tracing::warn!(reason, why = %refusal, "starting a new epoch");
            None
        }
    };
    Ok((dir, left))
}

/// Saved state for the bus and resume positions for the sources; a source whose config changed
/// starts over.
pub(super) fn restored_state(
    state: State,
    config: &Config,
) -> (RestoredState, Vec<Option<Vec<u8>>>) {
    let mut saved: HashMap<String, SavedSource> = state
        .sources
        .into_iter()
        .map(|source| (source.name.clone(), source))
        .collect();
    let mut of = |source: &SourceConfig| {
        let saved = saved.remove(&*source.name)?;
        let is_unchanged = saved.config == Sources::checksum(source);
        saved
            .place
            .filter(|_| is_unchanged)
            .map(|place| (saved.time, place.to_vec()))
    };
    let (sources, positions) = config
        .sources
        .iter()
        .map(|source| of(source).unzip())
        .unzip();
    let restored = RestoredState {
        origin: state.origin,
        tx: state.tx,
        sources,
        instruments: state
            .instruments
            .into_iter()
            .map(|saved| (saved.symbol.clone(), saved))
            .collect(),
        topics: state
            .topics
            .into_iter()
            .map(|saved| (saved.topic.clone(), saved))
            .collect(),
    };
    (restored, positions)
}
