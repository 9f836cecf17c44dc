//! Derived state of one instrument.

use std::time::Duration;

use rust_decimal::Decimal;

use super::Publish;
use super::summary::{Session, ticker};
use crate::log::{InstrumentInfo, TopicId};
use crate::market::{
    Bar, Body, Interval, PriceFault, SourceKind, Status, Trade, TradingState, UnixNanos,
};
use crate::topic::Channel;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone)]
pub(super) struct OpenBar {
    pub(super) bar: Bar,
    pub(super) end: UnixNanos,
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) struct State {
    /// Index of the source.
    pub(super) source: usize,
    pub(super) topics: [Option<TopicId>; Channel::COUNT],
    pub(super) src: SourceKind,
    pub(super) stale_after: Duration,
    pub(super) session_start: Duration,
    pub(super) session: Option<Session>,
    pub(super) bars: [Option<OpenBar>; Interval::ALL.len()],
    /// True if the source has removed the instrument: it is on no list.
    pub(super) removed: bool,
    /// True while the instrument is in its source's list of changes to publish at the next
    /// watermark.
    pub(super) changed: bool,
    pub(super) ticker_changed: bool,
    pub(super) trading: Option<TradingState>,
    pub(super) last_seen: UnixNanos,
    /// Time of the next check for silence; other entries of the schedule are obsolete.
    pub(super) silent_at: Option<UnixNanos>,
}

pub(super) const fn place(interval: Interval) -> usize {
    Channel::Bar(interval).index() - Channel::Bar(Interval::S1).index()
}

impl State {
    pub(super) fn new(source: usize, info: &InstrumentInfo, stale_after: Duration) -> Self {
        Self {
            source,
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
            last_seen: UnixNanos::default(),
            silent_at: None,
        }
    }

    /// Resets the state to that of a new instrument last seen at `last_seen`.
    pub(super) fn reset(&mut self, last_seen: UnixNanos) {
        self.session = None;
        self.bars = [const { None }; Interval::ALL.len()];
        (self.changed, self.ticker_changed, self.trading) = (false, false, None);
        (self.last_seen, self.silent_at) = (last_seen, None);
    }

    /// True if silence can make the instrument stale.
    pub(super) const fn may_fall_silent(&self) -> bool {
        !self.removed && matches!(self.trading, None | Some(TradingState::Live))
    }

    pub(super) fn day_of(&self, ts: UnixNanos) -> UnixNanos {
        ts.minus(self.session_start).floor(DAY)
    }

    pub(super) fn seen(&mut self, ts: UnixNanos, out: &mut impl Publish) {
        self.last_seen = self.last_seen.max(ts);
        if self.trading != Some(TradingState::Live) {
            self.set_trading(TradingState::Live, ts, out);
        }
    }

    pub(super) fn set_trading(
        &mut self,
        trading: TradingState,
        ts: UnixNanos,
        out: &mut impl Publish,
    ) {
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

    /// Σ price·quantity of the session including a trade, if no sum overflows.
    pub(super) fn room_for(&self, trade: &Trade) -> Result<Decimal, PriceFault> {
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

    /// Adds a trade to the session; `notional` is the result of [`Self::room_for`].
    pub(super) fn add_to_session(&mut self, trade: &Trade, notional: Decimal) {
        self.ticker_changed = true;
        let day = self.day_of(trade.ts);
        match &mut self.session {
            Some(session) if day <= session.day => {
                session
                    .sum
                    .add(trade.ts, trade.px, trade.qty)
                    .expect("room_for has checked the sum");
                session.notional = notional;
            }
            session => {
                let sum = Bar::first(day, trade.ts, trade.px, trade.qty);
                *session = Some(Session { day, sum, notional });
            }
        }
    }

    /// Closes the bar if `now` is at or past its end.
    pub(super) fn close_bar(&mut self, at: usize, now: UnixNanos, out: &mut impl Publish) {
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

    /// Adds a trade to a bar. Returns the end of the bar if the trade opens one.
    pub(super) fn add_to_bar(
        &mut self,
        at: usize,
        interval: Interval,
        trade: &Trade,
        present: UnixNanos,
    ) -> Option<UnixNanos> {
        if let Some(open) = &mut self.bars[at] {
            open.bar
                .add(trade.ts, trade.px, trade.qty)
                .expect("room_for has checked the sum");
            open.changed = true;
            return None;
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
        Some(end)
    }

    pub(super) fn publish_changes(&mut self, out: &mut impl Publish) {
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
