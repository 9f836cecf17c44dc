//! Objectives: `p99<5ms,p99.9<20ms,loss=0`.

use std::str::FromStr;

use super::Outcome;
use super::figures::{count, time};
use super::plan_error::PlanError;

/// Service-level objectives of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Slo(Vec<Objective>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    /// A percentile of the latency, in nanoseconds.
    Percentile(f64),
    Max,
    Loss,
    Merged,
    /// Deliveries per second.
    Rate,
    /// Connections that ended before the test did.
    Closed,
}

impl Figure {
    fn text(self, value: f64) -> String {
        match self {
            Self::Percentile(_) | Self::Max => time(value as u64),
            Self::Rate => format!("{}/s", count(value as u64)),
            Self::Loss | Self::Merged => format!("{} events", count(value as u64)),
            Self::Closed => format!("{} connections", count(value as u64)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

#[derive(Debug, Clone, PartialEq)]
struct Objective {
    text: String,
    figure: Figure,
    relation: Relation,
    bound: f64,
}

/// Verdict on one objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The objective as it was written.
    pub objective: String,
    /// Measured value, latencies in nanoseconds; `None` if nothing was measured.
    pub measured: Option<f64>,
    /// The same with its unit, as in `1.83 ms` or `8 000/s`.
    pub measured_text: String,
    /// True if the objective is met; an unmeasured one is not.
    pub holds: bool,
}

fn figure(name: &str) -> Option<Figure> {
    match name {
        "max" => Some(Figure::Max),
        "loss" => Some(Figure::Loss),
        "merged" => Some(Figure::Merged),
        "rate" => Some(Figure::Rate),
        "closed" => Some(Figure::Closed),
        _ => {
            let percentile: f64 = name.strip_prefix('p')?.parse().ok()?;
            (0.0..=100.0)
                .contains(&percentile)
                .then_some(Figure::Percentile(percentile))
        }
    }
}

/// Latencies have a unit of time, all else has none.
fn bound(figure: Figure, text: &str) -> Option<f64> {
    let number = |text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite() && *number >= 0.0)
    };
    if !matches!(figure, Figure::Percentile(_) | Figure::Max) {
        return number(text);
    }
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
    ];
    units
        .into_iter()
        .find_map(|(unit, scale)| number(text.strip_suffix(unit)?).map(|number| number * scale))
}

impl FromStr for Slo {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let wrong = || {
            let right = "objectives, e.g. p99<5ms,p99.9<20ms,max<=1s,loss=0; measures are p0 to p100, max, loss, merged, closed and rate";
            PlanError::new(text, right)
        };
        let relations = [
            ("<=", Relation::AtMost),
            (">=", Relation::AtLeast),
            ("<", Relation::Below),
            (">", Relation::Above),
            ("=", Relation::Equal),
        ];
        let one = |part: &str| {
            let (sign, relation) = relations
                .into_iter()
                .find(|(sign, _)| part.contains(sign))?;
            let (name, value) = part.split_once(sign)?;
            let figure = figure(name.trim())?;
            let bound = bound(figure, value.trim())?;
            Some(Objective {
                text: part.trim().to_owned(),
                figure,
                relation,
                bound,
            })
        };
        text.split(',')
            .map(one)
            .collect::<Option<Vec<_>>>()
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl Slo {
    /// Judges a test; each objective in the order in which they were written.
    pub fn judge(&self, outcome: &Outcome) -> Vec<Verdict> {
        self.0
            .iter()
            .map(|objective| objective.judge(outcome))
            .collect()
    }
}

impl Objective {
    fn judge(&self, outcome: &Outcome) -> Verdict {
        let end_to_end =
            Some(outcome.latency.end_to_end()).filter(|end_to_end| !end_to_end.is_empty());
        let measured = match self.figure {
            Figure::Percentile(percentile) => {
                end_to_end.map(|end_to_end| end_to_end.value_at_percentile(percentile) as f64)
            }
            Figure::Max => end_to_end.map(|end_to_end| end_to_end.max() as f64),
            Figure::Loss => Some(outcome.tally.lost as f64),
            Figure::Merged => outcome.ledger.map(|ledger| ledger.merged as f64),
            Figure::Rate => Some(outcome.delivered_per_s()),
            Figure::Closed => Some(outcome.tally.closed.values().sum::<u64>() as f64),
        };
        let holds = measured.is_some_and(|measured| match self.relation {
            Relation::Below => measured < self.bound,
            Relation::AtMost => measured <= self.bound,
            Relation::Equal => (measured - self.bound).abs() < 0.5,
            Relation::AtLeast => measured >= self.bound,
            Relation::Above => measured > self.bound,
        });
        Verdict {
            objective: self.text.clone(),
            measured,
            measured_text: measured
                .map_or_else(|| "no samples".to_owned(), |value| self.figure.text(value)),
            holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_values_have_units() {
        assert_eq!(Figure::Percentile(99.0).text(1_830_000.0), "1.83 ms");
        assert_eq!(Figure::Rate.text(8_000.4), "8 000/s");
        assert_eq!(Figure::Loss.text(3.0), "3 events");
    }

    #[test]
    fn valid_objectives_are_parsed_and_invalid_ones_rejected() {
        let slo: Slo = "p99<5ms, p99.9<=20ms,max<1s,loss=0,rate>=1000,closed=0"
            .parse()
            .expect("valid objectives");
        let bounds: Vec<f64> = slo.0.iter().map(|objective| objective.bound).collect();
        assert_eq!(
            format!("{bounds:?}"),
            "[5000000.0, 20000000.0, 1000000000.0, 0.0, 1000.0, 0.0]"
        );
        for wrong in [
            "",
            "p99",
            "p99<5",
            "p101<5ms",
            "loss=0ms",
            "speed>1",
            "p99<5ms,,loss=0",
            "p99<-1ms",
        ] {
            assert!(wrong.parse::<Slo>().is_err(), "{wrong}");
        }
    }
}
