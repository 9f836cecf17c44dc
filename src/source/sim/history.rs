//! History before the start. The price model generates bars directly: minute bars, then second bars
//! for the most recent part.

use std::time::Duration;

use rust_decimal::Decimal;

use super::SimConfig;
use super::instrument::SimInstrument;
use super::model::year_spread;
use super::stream::{Role, Stream};
use crate::bus::derive::SessionSoFar;
use crate::log::CLOSED_BARS_KEPT;
use crate::market::{Bar, Interval, UnixNanos};

/// Length of the most recent part, which consists of second bars.
const FINE: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// State of an instrument before the start.
#[derive(Debug)]
pub(super) struct Past {
    /// Bars by interval, oldest first; the last one may still be open.
    pub bars: Vec<(Interval, Vec<Bar>)>,
    /// Session summary up to the start, if any.
    pub session: Option<SessionSoFar>,
}

/// Generates the last `span` before `start`, ending at the start price.
pub(super) fn past(spec: &SimInstrument, config: &SimConfig, start: UnixNanos) -> Past {
    let grains = grains(spec, config, start);
    let mut bars = Vec::new();
    for interval in Interval::ALL {
        let fine_enough = |bar: &&Bar| interval != Interval::S1 || bar.start >= start.minus(FINE);
        let mut made: Vec<Bar> = Vec::new();
        for grain in grains.iter().filter(fine_enough) {
            let from = grain.start.floor(interval.span());
            match made.last_mut() {
                // `SimInstrument::qty` bounds each grain so that 60 days of seconds fit.
                Some(bar) if bar.start == from => {
                    bar.extend(grain)
                        .expect("a grain is far below the sum's bound");
                }
                _ => made.push(Bar {
                    start: from,
                    ..grain.clone()
                }),
            }
        }
        for bar in &mut made {
            let end = bar.start.plus(interval.span());
            if end <= start {
                (bar.ts, bar.done) = (end, true);
            }
        }
        let skip = made.len().saturating_sub(CLOSED_BARS_KEPT + 1);
        bars.push((interval, made.split_off(skip)));
    }
    Past {
        bars,
        session: session(&grains, start, spec.session_start),
    }
}

fn session(grains: &[Bar], start: UnixNanos, session_start: Duration) -> Option<SessionSoFar> {
    let today = start.minus(session_start).floor(DAY).plus(session_start);
    let mut grains = grains.iter().filter(|grain| grain.start >= today);
    let first = grains.next()?;
    // Omit the summary if it does not fit into 28 digits.
    let value = |grain: &Bar| grain.close.0.checked_mul(grain.vol.0);
    let mut so_far = SessionSoFar {
        bar: first.clone(),
        notional: value(first)?,
    };
    for grain in grains {
        so_far.bar.extend(grain).ok()?;
        so_far.notional = so_far.notional.checked_add(value(grain)?)?;
    }
    Some(so_far)
}

/// Minute bars, then second bars, oldest first; intervals without trades are omitted.
fn grains(spec: &SimInstrument, config: &SimConfig, start: UnixNanos) -> Vec<Bar> {
    let (seed, span) = (config.seed, config.history);
    let mut stream = Stream::new(seed, Role::History, spec.symbol.as_str());
    // All instruments share the same grains, so those of one factor draw the same moves from its
    // stream.
    let mut factor = spec
        .factor
        .map(|(factor, _)| Stream::new(seed, Role::FactorHistory, &config.factors[factor]));
    let (closeness, own) = spec.shares();
    let fine_from = start.minus(FINE.min(span)).floor(MINUTE);
    let mut times = Vec::new();
    let mut at = start.minus(span).floor(MINUTE);
    while at < start {
        let step = if at < fine_from { MINUTE } else { SECOND };
        times.push((at, step));
        at = at.plus(step);
    }
    // Generate backwards from the start price, the only known price.
    let (mut log, mut moves) = (0.0, Vec::with_capacity(times.len()));
    for (_, step) in times.iter().rev() {
        let close = log;
        let common = factor.as_mut().map_or(0.0, |factor| {
            closeness * year_spread(step.as_secs_f64()) * factor.normal()
        });
        log = spec
            .model
            .step(log, step.as_secs_f64(), common, own, &mut stream);
        moves.push((log, close));
    }
    let start_ticks = spec.start_ticks();
    let mut bars = Vec::new();
    for ((at, step), (open, close)) in times.into_iter().zip(moves.into_iter().rev()) {
        if spec.hours.as_ref().is_none_or(|hours| hours.is_open(at)) {
            bars.extend(grain(
                spec,
                &mut stream,
                start_ticks,
                at,
                step,
                open,
                close,
                start,
            ));
        }
    }
    bars
}

#[expect(
    clippy::too_many_arguments,
    reason = "one bar's own circumstances, used once"
)]
fn grain(
    spec: &SimInstrument,
    stream: &mut Stream,
    start_ticks: f64,
    at: UnixNanos,
    step: Duration,
    open: f64,
    close: f64,
    start: UnixNanos,
) -> Option<Bar> {
    let expected = spec.rate * spec.trades * step.as_secs_f64();
    let trades =
        libm::floor(expected * libm::exp(0.4 * stream.normal() - 0.08) + stream.unit()) as u64;
    let (up, down) = (stream.exponential(), stream.exponential());
    let lots = spec.size_lots * trades as f64 * libm::exp(0.3 * stream.normal());
    if trades == 0 {
        return None;
    }
    let ticks = |log: f64| libm::round(start_ticks * libm::exp(log)) as i64;
    let range = (close - open).abs() * 0.5 + 1.0 / start_ticks;
    let (high, low) = (
        open.max(close) + range * up * 0.5,
        open.min(close) - range * down * 0.5,
    );
    Some(Bar {
        ts: at.plus(step).min(start),
        start: at,
        open: spec.px(ticks(open)),
        high: spec.px(ticks(high)),
        low: spec.px(ticks(low)),
        close: spec.px(ticks(close)),
        vol: if lots > 0.0 {
            spec.qty(lots)
        } else {
            crate::market::Qty(Decimal::ZERO)
        },
        n: trades,
        done: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::sim::testing::instrument;

    #[test]
    fn longer_bars_aggregate_shorter_ones_and_end_at_the_start_price() {
        let start = UnixNanos::parse_utc("2026-01-16T12:34:56.5Z").expect("a time");
        let config = SimConfig {
            seed: 7,
            start: None,
            history: Duration::from_secs(2 * 86_400),
            every: Duration::ZERO,
            factors: vec!["f".to_owned()],
            instruments: vec![instrument("A", 20.0)],
        };
        let past = past(&config.instruments[0], &config, start);
        let of = |wanted| {
            past.bars
                .iter()
                .find(|(interval, _)| *interval == wanted)
                .map_or(&[][..], |(_, bars)| bars)
        };
        assert_eq!(of(Interval::M1).len(), CLOSED_BARS_KEPT + 1);
        assert!(of(Interval::H1).len() > 47);
        for (interval, bars) in &past.bars {
            let last = bars.last().expect("something traded");
            assert_eq!(
                (last.close, last.done),
                (instrument("A", 20.0).start, false),
                "{interval:?}"
            );
            assert!(
                bars.iter()
                    .rev()
                    .skip(1)
                    .all(|bar| bar.done && bar.ts == bar.start.plus(interval.span()))
            );
            assert!(bars.iter().all(
                |bar| bar.low <= bar.open.min(bar.close) && bar.high >= bar.open.max(bar.close)
            ));
            assert!(bars.windows(2).all(|pair| pair[0].start < pair[1].start));
        }
        let last_five = of(Interval::M5).iter().rev().nth(1).expect("a closed bar");
        let minutes = of(Interval::M1)
            .iter()
            .filter(|bar| bar.start.floor(Interval::M5.span()) == last_five.start);
        assert_eq!(minutes.map(|bar| bar.n).sum::<u64>(), last_five.n);
    }
}
