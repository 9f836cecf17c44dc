//! Checkpoint of a simulated market, including its generators.

use serde::{Deserialize, Serialize};

use super::Market;
use super::instrument::GeneratorPlace;
use super::model::FactorPlace;
use crate::market::UnixNanos;

/// Checkpoint of a market. Times are simulated, except for `begun`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Simulated start time of the market.
    pub start: UnixNanos,
    /// Server time that corresponds to `start`.
    pub begun: UnixNanos,
    next_mark: UnixNanos,
    factors: Vec<FactorPlace>,
    generators: Vec<GeneratorPlace>,
}

impl Market {
    /// Current checkpoint of the market.
    pub(super) fn place(&self, begun: UnixNanos) -> Place {
        Place {
            start: self.start,
            begun,
            next_mark: self.next_mark,
            factors: self
                .factors
                .iter()
                .map(super::model::Factor::place)
                .collect(),
            generators: self
                .generators
                .iter()
                .map(super::instrument::Generator::place)
                .collect(),
        }
    }

    /// Resumes from a checkpoint of a market with the same config, and hence the same generators.
    pub(super) fn go_on(&mut self, place: Place) {
        self.next_mark = place.next_mark;
        for (factor, place) in self.factors.iter_mut().zip(place.factors) {
            factor.go_on(place);
        }
        for (generator, place) in self.generators.iter_mut().zip(place.generators) {
            generator.go_on(place);
        }
        self.schedule_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::instrument;
    use super::super::{Arrivals, Model, SimConfig};
    use super::*;

    #[test]
    fn a_restored_simulation_emits_the_same_events() {
        let mut other = instrument("B", 40.0);
        other.model = Model::Jump {
            volatility: 0.5,
            jumps_per_day: 1000.0,
            jump: 0.01,
        };
        other.arrivals = Arrivals::Hawkes {
            branching: 0.5,
            decay: Duration::from_millis(300),
        };
        let config = SimConfig {
            seed: 3,
            start: None,
            history: Duration::ZERO,
            every: Duration::ZERO,
            factors: vec!["f".to_owned()],
            instruments: vec![instrument("A", 30.0), other],
        };
        let start = UnixNanos(1_700_000_000_000_000_000);
        let at = |ms| start.plus(Duration::from_millis(ms));
        for stop in [0, 1, 777, 5_000] {
            let (mut whole, mut first) = (Market::new(&config, start), Market::new(&config, start));
            let (mut wanted, mut replayed) = (Vec::new(), Vec::new());
            whole.advance(at(10_000), &mut wanted, usize::MAX);
            first.advance(at(stop), &mut replayed, usize::MAX);
            let bytes = rmp_serde::to_vec(&first.place(start)).expect("plain values");
            let mut second = Market::new(&config, start);
            second.go_on(rmp_serde::from_slice(&bytes).expect("what was written"));
            second.advance(at(10_000), &mut replayed, usize::MAX);
            assert!(wanted.len() > 600);
            assert_eq!(replayed, wanted, "stopped after {stop} ms");
        }
    }
}
