//! Derivation of tickers, bars and status from trades and watermarks. Pure: a function of the
//! values that sources emit.
//!
//! A ticker or an open bar is published at most once per watermark, and only if it changed. A bar
//! closes at the first watermark, or the first trade of its instrument, at or past its end. An
//! interval without trades has no bar. A late trade counts in the open bar or, if no bar is open,
//! in the bar of the current source time.

mod schedule;
mod state;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use schedule::Schedule;
use state::{OpenBar, State, place};
use summary::Session;

use crate::log::{Catalog, InstrumentId, InstrumentInfo, TopicId};
use crate::market::{Bar, Body, Interval, PriceFault, Trade, TradingState, UnixNanos};
use crate::topic::Channel;

/// Receiver of derived events.
pub trait Publish {
    /// Publishes one event on `topic`.
    fn publish(&mut self, topic: TopicId, body: Body);
}

/// Session of an instrument before the source started.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSoFar {
    /// Session summary, as one bar.
    pub bar: Bar,
    /// Σ price·quantity.
    pub notional: Decimal,
}

/// Current time of a source, as known to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SavedTime {
    pub(super) present: UnixNanos,
    pub(super) next_end: UnixNanos,
}

/// Derived state of one instrument, as saved for a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedInstrument {
    /// Symbol of the instrument.
    pub symbol: String,
    session: Option<(UnixNanos, Bar, Decimal)>,
    bars: [Option<(Bar, UnixNanos, bool)>; Interval::ALL.len()],
    ticker_changed: bool,
    trading: Option<TradingState>,
    last_seen: UnixNanos,
}

#[derive(Debug, Default)]
struct SourceTime {
    present: UnixNanos,
    instruments: Vec<InstrumentId>,
    changed: Vec<InstrumentId>,
    /// Ends of open bars.
    bar_ends: Schedule,
    /// Times at which instruments become stale unless they emit events before.
    silence: Schedule,
}

/// State from which all derived events are computed.
#[derive(Debug, Default)]
pub struct Derive {
    states: Vec<State>,
    sources: Vec<SourceTime>,
}

impl Derive {
    /// Creates an empty state for `sources` sources.
    pub fn new(sources: usize) -> Self {
        Self {
            states: Vec::new(),
            sources: (0..sources).map(|_| SourceTime::default()).collect(),
        }
    }

    /// Adds a source.
    pub fn add_source(&mut self) {
        self.sources.push(SourceTime::default());
    }

    /// Adds an instrument or updates its description. New instruments must be added in the order of
    /// their numbers.
    pub fn add(&mut self, id: InstrumentId, info: &InstrumentInfo, stale_after: Duration) {
        let at = info.source.0 as usize;
        let source = &mut self.sources[at];
        if let Some(state) = self.states.get_mut(id.0 as usize) {
            state.stale_after = info.instrument.stale_after.unwrap_or(stale_after);
            state.session_start = info.instrument.session_start;
            (state.topics, state.src) = (info.topics, info.instrument.src);
            if std::mem::take(&mut state.removed) {
                state.source = at;
                state.last_seen = source.present;
                source.instruments.push(id);
            }
            state.silent_at = None;
        } else {
            source.instruments.push(id);
            let mut state = State::new(at, info, stale_after);
            state.last_seen = source.present;
            self.states.push(state);
        }
        self.watch(id);
    }

    /// Number of the source of an instrument.
    pub fn source_of(&self, id: InstrumentId) -> usize {
        self.states[id.0 as usize].source
    }

    /// Schedules the check for silence of an instrument.
    fn watch(&mut self, id: InstrumentId) {
        let state = &mut self.states[id.0 as usize];
        if state.silent_at.is_none() && state.may_fall_silent() {
            let at = state.last_seen.plus(state.stale_after);
            state.silent_at = Some(at);
            self.sources[state.source].silence.push(at, id);
        }
    }

    /// Resumes a new instrument from its saved state; returns true if it is stale.
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
        (state.changed, state.silent_at) = (has_changes, None);
        let time = &mut self.sources[source];
        if has_changes {
            time.changed.push(id);
        }
        for open in state.bars.iter().flatten() {
            time.bar_ends.push(open.end, id);
        }
        self.watch(id);
        saved.trading == Some(TradingState::Stale)
    }

    /// Resumes the time of a source from its saved state.
    pub fn restore_time(&mut self, source: usize, saved: SavedTime) {
        self.sources[source].present = saved.present;
    }

    /// State to save: the sources' times, and the instruments' states.
    pub fn save(&self, catalog: &Catalog) -> (Vec<SavedTime>, Vec<SavedInstrument>) {
        let times = self
            .sources
            .iter()
            .map(|time| SavedTime {
                present: time.present,
                next_end: time.bar_ends.next().unwrap_or(UnixNanos(u64::MAX)),
            })
            .collect();
        let save = |(at, state): (usize, &State)| SavedInstrument {
            symbol: catalog
                .instrument(InstrumentId(at as u32))
                .instrument
                .symbol
                .to_string(),
            session: state
                .session
                .clone()
                .map(|Session { day, sum, notional }| (day, sum, notional)),
            bars: state
                .bars
                .clone()
                .map(|bar| bar.map(|OpenBar { bar, end, changed }| (bar, end, changed))),
            ticker_changed: state.ticker_changed,
            trading: state.trading,
            last_seen: state.last_seen,
        };
        (times, self.states.iter().enumerate().map(save).collect())
    }

    /// Adds a trade to the ticker and to every bar; may close bars. A trade that would overflow a
    /// sum changes nothing.
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
            if let Some(end) = state.add_to_bar(at, interval, trade, time.present) {
                time.bar_ends.push(end, id);
            }
        }
        if !state.changed {
            state.changed = true;
            time.changed.push(id);
        }
        self.watch(id);
        Ok(())
    }

    /// Records a quote as activity of the instrument.
    pub fn on_quote(&mut self, id: InstrumentId, ts: UnixNanos, out: &mut impl Publish) {
        self.states[id.0 as usize].seen(ts, out);
        self.watch(id);
    }

    /// Advances the time of a source to `now`: publishes changes, closes ended bars and marks
    /// silent instruments as stale. Returns the number of instruments visited.
    pub fn on_mark(&mut self, source: usize, now: UnixNanos, out: &mut impl Publish) -> usize {
        let time = &mut self.sources[source];
        let mut looked_at = 0;
        if time.present == UnixNanos::default() {
            looked_at += time.instruments.len();
            for id in &time.instruments {
                let state = &mut self.states[id.0 as usize];
                state.last_seen = state.last_seen.max(now);
            }
        }
        time.present = time.present.max(now);
        let mut ended = time.bar_ends.take_due(now);
        ended.dedup_by_key(|(id, _)| *id);
        ended.retain(|(id, _)| self.states[id.0 as usize].source == source);
        for (id, _) in &ended {
            let state = &mut self.states[id.0 as usize];
            for at in 0..state.bars.len() {
                state.close_bar(at, now, out);
            }
        }
        looked_at += ended.len() + time.changed.len();
        for id in time.changed.drain(..) {
            self.states[id.0 as usize].publish_changes(out);
        }
        let due = time.silence.take_due(now);
        looked_at += due.len();
        for (id, at) in due {
            let state = &mut self.states[id.0 as usize];
            if state.source != source || state.silent_at != Some(at) {
                continue;
            }
            state.silent_at = None;
            let silent = now.since(state.last_seen) >= state.stale_after;
            if silent && state.may_fall_silent() {
                state.set_trading(TradingState::Stale, now, out);
            }
            self.watch(id);
        }
        looked_at
    }

    /// Handles a venue's opening, halt or close of an instrument.
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
        self.watch(id);
    }

    /// Marks all live instruments as stale, because the source failed or became silent as a whole.
    pub fn on_source_lost(&mut self, source: usize, out: &mut impl Publish) {
        let time = &self.sources[source];
        for id in &time.instruments {
            let state = &mut self.states[id.0 as usize];
            if state.trading == Some(TradingState::Live) {
                state.set_trading(TradingState::Stale, time.present, out);
            }
        }
    }

    /// Restarts a source: its instruments are reset to new.
    pub fn on_start_over(&mut self, source: usize) -> impl Iterator<Item = TopicId> + '_ {
        let time = &mut self.sources[source];
        time.present = UnixNanos::default();
        time.bar_ends.clear();
        time.silence.clear();
        time.changed.clear();
        let instruments = time.instruments.clone();
        for id in &instruments {
            self.states[id.0 as usize].reset(UnixNanos::default());
            self.watch(*id);
        }
        let states = &self.states;
        instruments
            .into_iter()
            .flat_map(move |id| states[id.0 as usize].topics.into_iter().flatten())
    }

    /// Removes instruments; nothing is derived from them until they are added again as new.
    pub fn remove(&mut self, ids: &[InstrumentId]) {
        let gone: HashSet<InstrumentId> = ids.iter().copied().collect();
        for time in &mut self.sources {
            time.instruments.retain(|known| !gone.contains(known));
            time.changed.retain(|known| !gone.contains(known));
        }
        for id in gone {
            let state = &mut self.states[id.0 as usize];
            state.reset(UnixNanos::default());
            state.removed = true;
        }
    }

    /// Moves instruments to another source and resets them to new. Returns their topics.
    pub fn move_to(&mut self, ids: &HashSet<InstrumentId>, source: usize) -> Vec<TopicId> {
        for time in &mut self.sources {
            time.instruments.retain(|known| !ids.contains(known));
            time.changed.retain(|known| !ids.contains(known));
        }
        self.sources[source].instruments.extend(ids);
        let mut topics = Vec::new();
        for id in ids {
            let state = &mut self.states[id.0 as usize];
            state.reset(self.sources[source].present);
            (state.source, state.removed) = (source, false);
            topics.extend(state.topics.into_iter().flatten());
            self.watch(*id);
        }
        topics
    }

    /// Handles bars from before the source started, oldest first; a bar that is not done continues.
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
                self.sources[source].bar_ends.push(end, id);
                out.publish(topic, Body::Bar(bar.clone()));
                state.bars[at] = Some(OpenBar {
                    bar,
                    end,
                    changed: false,
                });
            }
        }
    }

    /// Handles the session as of the start of the source.
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
