//! Price models: log-price models and the common factors that correlate them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stream::StreamPlace;
use super::stream::{Role, Stream};

const SECONDS_PER_YEAR: f64 = 365.25 * 86_400.0;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Price model of the log-price. Volatilities are annualized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// Geometric Brownian motion.
    Gbm {
        /// Annualized standard deviation.
        volatility: f64,
    },
    /// Brownian motion with jumps (Merton).
    Jump {
        /// Annualized standard deviation, without the jumps.
        volatility: f64,
        /// Average number of jumps per day.
        jumps_per_day: f64,
        /// Standard deviation of a jump.
        jump: f64,
    },
    /// Mean reversion to the start price (Ornstein–Uhlenbeck).
    MeanReverting {
        /// Annualized standard deviation, without mean reversion.
        volatility: f64,
        /// Mean-reversion half-life.
        half_life: Duration,
    },
}

impl Model {
    const fn volatility(&self) -> f64 {
        match self {
            Self::Gbm { volatility }
            | Self::Jump { volatility, .. }
            | Self::MeanReverting { volatility, .. } => *volatility,
        }
    }

    /// Advances a log-price, relative to the start price, by `seconds`. `common` is the move of the
    /// factor over the same time, per unit of volatility; `own` is the idiosyncratic fraction of
    /// the variance.
    pub(super) fn step(
        &self,
        log: f64,
        seconds: f64,
        common: f64,
        own: f64,
        stream: &mut Stream,
    ) -> f64 {
        let sigma = self.volatility();
        let spread = year_spread(seconds);
        let moved = sigma * (own * spread * stream.normal() + common);
        let drift = -0.5 * sigma * sigma * seconds / SECONDS_PER_YEAR;
        match self {
            Self::Gbm { .. } => log + drift + moved,
            Self::Jump {
                jumps_per_day,
                jump,
                ..
            } => {
                let jumps = stream.unit() < jumps_per_day * seconds / SECONDS_PER_DAY;
                log + drift + moved + if jumps { jump * stream.normal() } else { 0.0 }
            }
            Self::MeanReverting { half_life, .. } => {
                let kept = libm::exp2(-seconds / half_life.as_secs_f64());
                log * kept + moved
            }
        }
    }
}

/// Standard deviation over `seconds`, as a fraction of the annualized one.
pub(super) fn year_spread(seconds: f64) -> f64 {
    libm::sqrt(seconds / SECONDS_PER_YEAR)
}

/// Step of a common factor, in nanoseconds.
const FACTOR_STEP_NANOS: u64 = 100_000_000;

/// Checkpoint of a factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FactorPlace {
    pub stream: StreamPlace,
    pub at: u64,
    pub value: f64,
}

/// Brownian motion shared by several instruments: a function of time alone, sampled on a grid.
#[derive(Debug)]
pub(super) struct Factor {
    stream: Stream,
    at: u64,
    value: f64,
}

impl Factor {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        Self {
            stream: Stream::new(seed, Role::Factor, name),
            at: 0,
            value: 0.0,
        }
    }

    /// Current checkpoint of the factor.
    pub(super) fn place(&self) -> FactorPlace {
        FactorPlace {
            stream: self.stream.place(),
            at: self.at,
            value: self.value,
        }
    }

    /// Resumes from a checkpoint.
    pub(super) fn go_on(&mut self, place: FactorPlace) {
        self.stream.go_on(place.stream);
        (self.at, self.value) = (place.at, place.value);
    }

    /// Value at `nanos` after the start, in units of the annualized standard deviation; times must
    /// not decrease.
    pub(super) fn value(&mut self, nanos: u64) -> f64 {
        let spread = year_spread(FACTOR_STEP_NANOS as f64 / 1e9);
        while self.at + FACTOR_STEP_NANOS <= nanos {
            self.at += FACTOR_STEP_NANOS;
            self.value += spread * self.stream.normal();
        }
        self.value
    }
}

/// Arrival process of events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Independent arrivals.
    Poisson,
    /// Arrivals in bursts: each event raises the rate for a while (Hawkes, exponential kernel).
    Hawkes {
        /// Fraction of events triggered by other events, below 1.
        branching: f64,
        /// Average duration of an event's excitation.
        decay: Duration,
    },
}

/// State of an arrival process.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArrivalState {
    arrivals: Arrivals,
    rate: f64,
    /// Excitation of the rate by past events, as of the last event.
    excited: f64,
}

impl ArrivalState {
    pub(super) const fn new(arrivals: Arrivals, rate: f64) -> Self {
        Self {
            arrivals,
            rate,
            excited: 0.0,
        }
    }

    /// Excitation of the rate by past events.
    pub(super) const fn excited(&self) -> f64 {
        self.excited
    }

    /// Resumes with the given excitation.
    pub(super) const fn go_on(&mut self, excited: f64) {
        self.excited = excited;
    }

    /// Seconds until the next event. Hawkes arrivals use the exact scheme of Dassios and Zhao.
    pub(super) fn next(&mut self, stream: &mut Stream) -> f64 {
        let Arrivals::Hawkes { branching, decay } = self.arrivals else {
            return stream.exponential() / self.rate;
        };
        let base = self.rate * (1.0 - branching);
        let beta = 1.0 / decay.as_secs_f64();
        let by_itself = stream.exponential() / base;
        let left = 1.0 - beta * stream.exponential() / self.excited.max(f64::MIN_POSITIVE);
        let seconds = if left > 0.0 {
            by_itself.min(-libm::log(left) / beta)
        } else {
            by_itself
        };
        self.excited = self.excited * libm::exp(-beta * seconds) + branching * beta;
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_mean_rate() {
        for arrivals in [
            Arrivals::Poisson,
            Arrivals::Hawkes {
                branching: 0.6,
                decay: Duration::from_millis(500),
            },
        ] {
            let mut stream = Stream::new(7, Role::Events, "A");
            let mut state = ArrivalState::new(arrivals, 20.0);
            let seconds: f64 = (0..200_000).map(|_| state.next(&mut stream)).sum();
            let rate = 200_000.0 / seconds;
            assert!(
                (19.0..21.0).contains(&rate),
                "{arrivals:?}: {rate} events a second"
            );
        }
    }

    #[test]
    fn a_year_of_brownian_motion_has_its_volatility() {
        let model = Model::Gbm { volatility: 0.6 };
        let mut stream = Stream::new(7, Role::Events, "A");
        let ends: Vec<f64> = (0..20_000)
            .map(|_| model.step(0.0, SECONDS_PER_YEAR, 0.0, 1.0, &mut stream))
            .collect();
        let mean = ends.iter().sum::<f64>() / ends.len() as f64;
        let deviation = (ends
            .iter()
            .map(|end| (end - mean) * (end - mean))
            .sum::<f64>()
            / ends.len() as f64)
            .sqrt();
        assert!((0.59..0.61).contains(&deviation), "{deviation}");
        assert!((-0.20..-0.16).contains(&mean), "{mean}");
    }

    #[test]
    fn jumps_have_their_number_and_size() {
        let model = Model::Jump {
            volatility: 0.0,
            jumps_per_day: 5.0,
            jump: 0.02,
        };
        let mut stream = Stream::new(7, Role::Events, "A");
        let minutes = 1_440 * 200;
        let moves: Vec<f64> = (0..minutes)
            .map(|_| model.step(0.0, 60.0, 0.0, 1.0, &mut stream))
            .filter(|step| step.abs() > 0.0)
            .collect();
        let per_day = moves.len() as f64 / 200.0;
        assert!((4.5..5.5).contains(&per_day), "{per_day} jumps per day");
        let squares = moves.iter().map(|step| step * step).sum::<f64>();
        let deviation = (squares / moves.len() as f64).sqrt();
        assert!((0.018..0.022).contains(&deviation), "{deviation}");
    }

    #[test]
    fn half_of_a_deviation_remains_after_the_half_life() {
        let model = Model::MeanReverting {
            volatility: 0.0,
            half_life: Duration::from_secs(600),
        };
        let mut stream = Stream::new(7, Role::Events, "A");
        let log = (0..600).fold(0.4, |log, _| model.step(log, 1.0, 0.0, 1.0, &mut stream));
        assert!((0.199..0.201).contains(&log), "{log}");
    }
}
