//! What the bus makes out of trades and silence: tickers, bars, status. Pure: a function of what sources emitted.
//!
//! A ticker or an open bar is published at most once a time mark, if it changed. A bar closes at the first mark, or the
//! instrument's first trade, at or past its end; no trade, no bar. A late trade counts in the bar that is open, or, where
//! none is, in that of the source's present time.

use std::collections::HashSet;
use std::time::Duration;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use super::saved::SavedTime;
use crate::log::{Catalog, InstrumentId, InstrumentInfo, TopicId};
use crate::market::{
    Bar, Body, Interval, Price, PriceFault, SourceKind, Status, Ticker, Trade, TradingState,
    UnixNanos,
};
use crate::topic::Channel;

/// Takes what is made.
pub trait Publish {
    /// Publishes one event on `topic`.
    fn publish(&mut self, topic: TopicId, body: Body);
}

/// What an instrument's session had come to before the source began.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSoFar {
    /// The session's summary as one bar.
    pub bar: Bar,
    /// Σ price·quantity.
    pub notional: Decimal,
}

/// What is derived of one instrument, as it is kept while the server is down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedInstrument {
    /// Its symbol.
    pub symbol: String,
    session: Option<(UnixNanos, Bar, Decimal)>,
    bars: [Option<(Bar, UnixNanos, bool)>; Interval::ALL.len()],
    ticker_changed: bool,
    trading: Option<TradingState>,
    last_seen: UnixNanos,
}

/// The least decimals of what is divided.
const DIVIDED_SCALE_MIN: u32 = 8;
/// The least significant digits of what is divided.
const DIVIDED_DIGITS_MIN: i64 = 6;
/// Digits that every decimal has room for.
const DIGITS_MAX: i64 = 28;
const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
struct Session {
    day: UnixNanos,
    sum: Bar,
    notional: Decimal,
}

#[derive(Debug)]
struct OpenBar {
    bar: Bar,
    end: UnixNanos,
    changed: bool,
}

#[derive(Debug)]
struct State {
    topics: [Option<TopicId>; Channel::COUNT],
    src: SourceKind,
    stale_after: Duration,
    session_start: Duration,
    session: Option<Session>,
    bars: [Option<OpenBar>; Interval::ALL.len()],
    /// Its source has given it up: it is on no list.
    removed: bool,
    /// Whether it stands in its source's list of what to publish at the next mark.
    changed: bool,
    ticker_changed: bool,
    trading: Option<TradingState>,
    last_seen: UnixNanos,
}

#[derive(Debug, Default)]
struct SourceTime {
    present: UnixNanos,
    instruments: Vec<InstrumentId>,
    changed: Vec<InstrumentId>,
    /// No open bar of this source ends before.
    next_end: UnixNanos,
}

/// The state from which everything is derived.
#[derive(Debug, Default)]
pub struct Derive {
    states: Vec<State>,
    sources: Vec<SourceTime>,
}

impl Derive {
    /// Nothing yet, for so many sources.
    pub fn new(sources: usize) -> Self {
        Self {
            states: Vec::new(),
            sources: (0..sources).map(|_| SourceTime::default()).collect(),
        }
    }

    /// One source more.
    pub fn add_source(&mut self) {
        self.sources.push(SourceTime::default());
    }

    /// Takes an instrument in that is new, or described otherwise; new ones must come in the order of their numbers.
    pub fn add(&mut self, id: InstrumentId, info: &InstrumentInfo, stale_after: Duration) {
        if let Some(state) = self.states.get_mut(id.0 as usize) {
            state.stale_after = info.instrument.stale_after.unwrap_or(stale_after);
            state.session_start = info.instrument.session_start;
            (state.topics, state.src) = (info.topics, info.instrument.src);
            if std::mem::take(&mut state.removed) {
                let source = &mut self.sources[info.source.0 as usize];
                state.last_seen = source.present;
                source.instruments.push(id);
            }
            return;
        }
        let source = &mut self.sources[info.source.0 as usize];
        source
            .instruments
            .push(InstrumentId(self.states.len() as u32));
        self.states.push(State {
            topics: info.topics,
            src: info.instrument.src,
            stale_after: info.instrument.stale_after.unwrap_or(stale_after),
            session_start: info.instrument.session_start,
            session: None,
            bars: [const { None }; Interval::ALL.len()],
            removed: false,
            changed: false,
            ticker_changed: false,
            trading: None,
            last_seen: source.present,
        });
    }

    /// Goes on with a new instrument where it was; returns whether it is stale.
    pub fn restore(&mut self, id: InstrumentId, source: usize, saved: SavedInstrument) -> bool {
        let state = &mut self.states[id.0 as usize];
        state.session = saved
            .session
            .map(|(day, sum, notional)| Session { day, sum, notional });
        state.bars = saved
            .bars
            .map(|bar| bar.map(|(bar, end, changed)| OpenBar { bar, end, changed }));
        let has_changes =
            saved.ticker_changed || state.bars.iter().flatten().any(|open| open.changed);
        (state.trading, state.last_seen, state.ticker_changed) =
            (saved.trading, saved.last_seen, saved.ticker_changed);
        state.changed = has_changes;
        if has_changes {
            self.sources[source].changed.push(id);
        }
        saved.trading == Some(TradingState::Stale)
    }

    /// Goes on with a source's time where it was.
    pub fn restore_time(&mut self, source: usize, saved: SavedTime) {
        let time = &mut self.sources[source];
        (time.present, time.next_end) = (saved.present, saved.next_end);
    }

    /// What is to be kept: the sources' times, and the instruments' states.
    pub fn save(self, catalog: &Catalog) -> (Vec<SavedTime>, Vec<SavedInstrument>) {
        let times = self
            .sources
            .iter()
            .map(|time| SavedTime {
                present: time.present,
                next_end: time.next_end,
            })
            .collect();
        let save = |(at, state): (usize, State)| SavedInstrument {
            symbol: catalog
                .instrument(InstrumentId(at as u32))
                .instrument
                .symbol
                .to_string(),
            session: state
                .session
                .map(|Session { day, sum, notional }| (day, sum, notional)),
            bars: state
                .bars
                .map(|bar| bar.map(|OpenBar { bar, end, changed }| (bar, end, changed))),
            ticker_changed: state.ticker_changed,
            trading: state.trading,
            last_seen: state.last_seen,
        };
        (
            times,
            self.states.into_iter().enumerate().map(save).collect(),
        )
    }

    /// A trade: counts in the ticker and in every bar, and may close bars. One that a sum has no room for changes nothing.
    pub fn on_trade(
        &mut self,
        source: usize,
        id: InstrumentId,
        trade: &Trade,
        out: &mut impl Publish,
    ) -> Result<(), PriceFault> {
        let time = &mut self.sources[source];
        let state = &mut self.states[id.0 as usize];
        let notional = state.room_for(trade)?;
        state.seen(trade.ts, out);
        state.add_to_session(trade, notional);
        for (at, interval) in Interval::ALL.into_iter().enumerate() {
            state.close_bar(at, trade.ts, out);
            let end = state.add_to_bar(at, interval, trade, time.present);
            time.next_end = time.next_end.min(end);
        }
        if !state.changed {
            state.changed = true;
            time.changed.push(id);
        }
        Ok(())
    }

    /// A quote: a sign of life.
    pub fn on_quote(&mut self, id: InstrumentId, ts: UnixNanos, out: &mut impl Publish) {
        self.states[id.0 as usize].seen(ts, out);
    }

    /// The source's time has come to `now`: what changed is published, what ended closes, what is silent becomes stale.
    pub fn on_mark(&mut self, source: usize, now: UnixNanos, out: &mut impl Publish) {
        let time = &mut self.sources[source];
        if time.present == UnixNanos::default() {
            for id in &time.instruments {
                let state = &mut self.states[id.0 as usize];
                state.last_seen = state.last_seen.max(now);
            }
        }
        time.present = time.present.max(now);
        if time.next_end <= now {
            time.next_end = UnixNanos(u64::MAX);
            for id in &time.instruments {
                let state = &mut self.states[id.0 as usize];
                for at in 0..state.bars.len() {
                    state.close_bar(at, now, out);
                    let end = state.bars[at]
                        .as_ref()
                        .map_or(UnixNanos(u64::MAX), |open| open.end);
                    time.next_end = time.next_end.min(end);
                }
            }
        }
        for id in time.changed.drain(..) {
            self.states[id.0 as usize].publish_changes(out);
        }
        for id in &time.instruments {
            let state = &mut self.states[id.0 as usize];
            let silent = now.since(state.last_seen) >= state.stale_after;
            if silent && matches!(state.trading, None | Some(TradingState::Live)) {
                state.set_trading(TradingState::Stale, now, out);
            }
        }
    }

    /// The venue opened, halted or closed an instrument.
    pub fn on_trading(
        &mut self,
        id: InstrumentId,
        trading: TradingState,
        ts: UnixNanos,
        out: &mut impl Publish,
    ) {
        let state = &mut self.states[id.0 as usize];
        state.last_seen = state.last_seen.max(ts);
        state.set_trading(trading, ts, out);
    }

    /// The source failed or fell silent as a whole: whatever was live is stale.
    pub fn on_source_lost(&mut self, source: usize, out: &mut impl Publish) {
        let time = &self.sources[source];
        for id in &time.instruments {
            let state = &mut self.states[id.0 as usize];
            if state.trading == Some(TradingState::Live) {
                state.set_trading(TradingState::Stale, time.present, out);
            }
        }
    }

    /// The source starts over: its instruments begin as new ones.
    pub fn on_start_over(&mut self, source: usize) -> impl Iterator<Item = TopicId> + '_ {
        let time = &mut self.sources[source];
        time.present = UnixNanos::default();
        time.next_end = UnixNanos(u64::MAX);
        time.changed.clear();
        for id in &time.instruments {
            let state = &mut self.states[id.0 as usize];
            state.session = None;
            state.bars = [const { None }; Interval::ALL.len()];
            (state.changed, state.ticker_changed, state.trading) = (false, false, None);
            state.last_seen = UnixNanos::default();
        }
        let states = &self.states;
        time.instruments
            .iter()
            .flat_map(move |id| states[id.0 as usize].topics.into_iter().flatten())
    }

    /// The instruments are gone; nothing is derived of them until they are added again, as new ones.
    pub fn remove(&mut self, ids: &[InstrumentId]) {
        let gone: HashSet<InstrumentId> = ids.iter().copied().collect();
        for time in &mut self.sources {
            time.instruments.retain(|known| !gone.contains(known));
            time.changed.retain(|known| !gone.contains(known));
        }
        for id in gone {
            let state = &mut self.states[id.0 as usize];
            state.session = None;
            state.bars = [const { None }; Interval::ALL.len()];
            (state.changed, state.ticker_changed, state.trading) = (false, false, None);
            state.removed = true;
        }
    }

    /// Another source has these instruments from now on: they begin as new ones. Returns their topics.
    pub fn move_to(&mut self, ids: &HashSet<InstrumentId>, source: usize) -> Vec<TopicId> {
        for time in &mut self.sources {
            time.instruments.retain(|known| !ids.contains(known));
            time.changed.retain(|known| !ids.contains(known));
        }
        self.sources[source].instruments.extend(ids);
        let mut topics = Vec::new();
        for id in ids {
            let state = &mut self.states[id.0 as usize];
            state.session = None;
            state.bars = [const { None }; Interval::ALL.len()];
            (state.changed, state.ticker_changed, state.trading) = (false, false, None);
            state.last_seen = self.sources[source].present;
            state.removed = false;
            topics.extend(state.topics.into_iter().flatten());
        }
        topics
    }

    /// Bars from before the source began, the oldest first; one that isn't done goes on.
    pub fn on_history(
        &mut self,
        source: usize,
        id: InstrumentId,
        interval: Interval,
        bars: Vec<Bar>,
        out: &mut impl Publish,
    ) {
        let state = &mut self.states[id.0 as usize];
        let at = place(interval);
        let Some(topic) = state.topics[Channel::Bar(interval).index()] else {
            return;
        };
        for bar in bars {
            if bar.done {
                out.publish(topic, Body::Bar(bar));
            } else {
                let end = bar.start.plus(interval.span());
                self.sources[source].next_end = self.sources[source].next_end.min(end);
                out.publish(topic, Body::Bar(bar.clone()));
                state.bars[at] = Some(OpenBar {
                    bar,
                    end,
                    changed: false,
                });
            }
        }
    }

    /// The session as it was before the source began.
    pub fn on_session(&mut self, id: InstrumentId, so_far: SessionSoFar, out: &mut impl Publish) {
        let state = &mut self.states[id.0 as usize];
        let day = state.day_of(so_far.bar.ts);
        state.session = Some(Session {
            day,
            sum: so_far.bar,
            notional: so_far.notional,
        });
        state.ticker_changed = true;
        state.publish_changes(out);
    }
}

const fn place(interval: Interval) -> usize {
    Channel::Bar(interval).index() - Channel::Bar(Interval::S1).index()
}

impl State {
    fn day_of(&self, ts: UnixNanos) -> UnixNanos {
        ts.minus(self.session_start).floor(DAY)
    }

    fn seen(&mut self, ts: UnixNanos, out: &mut impl Publish) {
        self.last_seen = self.last_seen.max(ts);
        if self.trading != Some(TradingState::Live) {
            self.set_trading(TradingState::Live, ts, out);
        }
    }

    fn set_trading(&mut self, trading: TradingState, ts: UnixNanos, out: &mut impl Publish) {
        if self.trading.replace(trading) == Some(trading) {
            return;
        }
        if let Some(topic) = self.topics[Channel::Status.index()] {
            out.publish(
                topic,
                Body::Status(Status {
                    ts,
                    state: trading,
                    since: ts,
                    src: self.src,
                }),
            );
        }
    }

    /// The session's Σ price·quantity with a trade, if every sum has room for it.
    fn room_for(&self, trade: &Trade) -> Result<Decimal, PriceFault> {
        let notional = trade
            .px
            .0
            .checked_mul(trade.qty.0)
            .ok_or(PriceFault::Overflow)?;
        for open in self.bars.iter().flatten() {
            open.bar.vol_with(trade.qty)?;
        }
        match &self.session {
            Some(session) if self.day_of(trade.ts) <= session.day => {
                session.sum.vol_with(trade.qty)?;
                session
                    .notional
                    .checked_add(notional)
                    .ok_or(PriceFault::Overflow)
            }
            _ => Ok(notional),
        }
    }

    /// `notional` is what [`Self::room_for`] returned.
    fn add_to_session(&mut self, trade: &Trade, notional: Decimal) {
        self.ticker_changed = true;
        let day = self.day_of(trade.ts);
        match &mut self.session {
            Some(session) if day <= session.day => {
                session
                    .sum
                    .add(trade.ts, trade.px, trade.qty)
                    .expect("room_for looked");
                session.notional = notional;
            }
            session => {
                let sum = Bar::first(day, trade.ts, trade.px, trade.qty);
                *session = Some(Session { day, sum, notional });
            }
        }
    }

    /// Closes the bar if `now` is at or past its end.
    fn close_bar(&mut self, at: usize, now: UnixNanos, out: &mut impl Publish) {
        let Some(open) = self.bars[at].take_if(|open| open.end <= now) else {
            return;
        };
        if let Some(topic) = self.topics[Channel::Bar(Interval::ALL[at]).index()] {
            out.publish(
                topic,
                Body::Bar(Bar {
                    ts: open.end,
                    done: true,
                    ..open.bar
                }),
            );
        }
    }

    /// Returns the end of the bar in which the trade counts.
    fn add_to_bar(
        &mut self,
        at: usize,
        interval: Interval,
        trade: &Trade,
        present: UnixNanos,
    ) -> UnixNanos {
        if let Some(open) = &mut self.bars[at] {
            open.bar
                .add(trade.ts, trade.px, trade.qty)
                .expect("room_for looked");
            open.changed = true;
            return open.end;
        }
        let own = trade.ts.floor(interval.span());
        let is_late = own.plus(interval.span()) <= present;
        let start = if is_late {
            present.floor(interval.span())
        } else {
            own
        };
        let end = start.plus(interval.span());
        let bar = Bar::first(start, trade.ts, trade.px, trade.qty);
        self.bars[at] = Some(OpenBar {
            bar,
            end,
            changed: true,
        });
        end
    }

    fn publish_changes(&mut self, out: &mut impl Publish) {
        self.changed = false;
        if let (Some(topic), Some(session), true) = (
            self.topics[Channel::Ticker.index()],
            &self.session,
            self.ticker_changed,
        ) {
            out.publish(topic, Body::Ticker(ticker(session)));
        }
        self.ticker_changed = false;
        for (open, interval) in self.bars.iter_mut().zip(Interval::ALL) {
            let (Some(open), Some(topic)) = (open, self.topics[Channel::Bar(interval).index()])
            else {
                continue;
            };
            if std::mem::take(&mut open.changed) {
                out.publish(topic, Body::Bar(open.bar.clone()));
            }
        }
    }
}

fn ticker(session: &Session) -> Ticker {
    let Session { sum, notional, .. } = session;
    Ticker {
        ts: sum.ts,
        last: sum.close,
        open: sum.open,
        high: sum.high,
        low: sum.low,
        vol: sum.vol,
        vwap: divided(
            notional.checked_div(sum.vol.0).unwrap_or(sum.close.0),
            [sum.open, sum.high, sum.low, sum.close]
                .map(|px| px.0.scale())
                .into_iter()
                .max(),
        ),
        n: sum.n,
        chg: change(sum.close, sum.open),
    }
}

fn change(last: Price, open: Price) -> Option<Decimal> {
    last.0
        .checked_div(open.0)
        .and_then(|ratio| ratio.checked_sub(Decimal::ONE))
        .map(|change| divided(change, None))
}

/// At least 8 decimals, `scale` and 6 significant digits, as far as 28 digits reach; half to even, all decimals written.
fn divided(value: Decimal, scale: Option<u32>) -> Decimal {
    let digits = i64::from(
        value
            .mantissa()
            .unsigned_abs()
            .checked_ilog10()
            .map_or(0, |log| log + 1),
    );
    // Digits in front of the point; negative for each zero behind it.
    let whole = digits - i64::from(value.scale());
    let significant = if digits == 0 {
        0
    } else {
        DIVIDED_DIGITS_MIN - whole
    };
    let least = i64::from(scale.unwrap_or(0).max(DIVIDED_SCALE_MIN));
    let scale = least.max(significant).min(DIGITS_MAX - whole.max(0)).max(0) as u32;
    let mut rounded = value.round_dp_with_strategy(scale, RoundingStrategy::MidpointNearestEven);
    rounded.rescale(scale);
    if rounded.is_zero() {
        rounded.abs()
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        crate::market::parse_decimal(text).expect("a decimal")
    }

    #[test]
    fn what_is_divided_has_digits_enough_for_its_size() {
        for (value, scale, written) in [
            ("64250.123456789", 2, "64250.12345679"),
            ("0.00000123456789", 8, "0.00000123457"),
            ("0.00000123456789", 14, "0.00000123456789"),
            (
                "0.000000000000000000012345678",
                8,
                "0.0000000000000000000123457",
            ),
            ("-0.00000001", 0, "-0.0000000100000"),
            ("0", 0, "0.00000000"),
            ("0.000000005", 8, "0.00000000500000"),
            (
                "100000000000000000000000",
                2,
                "100000000000000000000000.0000",
            ),
            (
                "79228162514264337593543950335",
                2,
                "79228162514264337593543950335",
            ),
        ] {
            let value = decimal(value);
            assert_eq!(divided(value, Some(scale)).to_string(), written);
        }
    }
}
