use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::prices::{PriceBand, Prices};
use super::{Rule, RuleAction, SourceRules};
use crate::bus::{Emit, MissedData, MissedKind};
use crate::market::{Trade, TradeId, TradingState, UnixNanos};
use crate::metrics::RuleCounters;

/// Number of recent trade ids among which a repeated one is found.
const IDS_KEPT: usize = 64;
/// Window in which the events of a symbol are counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Knowledge of one instrument.
#[derive(Debug, Clone, Default)]
struct Instrument {
    band: PriceBand,
    /// Newest event times: trades, quotes.
    newest: [UnixNanos; 2],
    /// Hashes of recent trade ids.
    ids: VecDeque<u64>,
    /// Newest numeric trade id.
    last_id: Option<u64>,
    window: UnixNanos,
    in_window: u32,
    /// Events dropped by a flood: trades, quotes; reported before the next accepted one.
    flooded: [u64; 2],
}

/// Judges the events of a source.
#[derive(Debug, Clone)]
pub struct Screen {
    rules: SourceRules,
    counters: RuleCounters,
    /// Instruments by local number.
    instruments: Vec<Instrument>,
    /// Time of the source, from its watermarks.
    present: UnixNanos,
    /// Instruments before the current transaction, if one is open.
    before: Option<HashMap<u32, Instrument>>,
    /// Violations in the current transaction.
    counted: Vec<(Rule, bool)>,
}

/// Event as the rules see it.
struct Judged<'e> {
    emit: &'e Emit,
    local: u32,
    ts: UnixNanos,
    kind: MissedKind,
}

impl Screen {
    /// Screen of a source; `None` if no rule can apply.
    pub fn new(rules: SourceRules, counters: RuleCounters) -> Option<Self> {
        (!rules.are_off()).then(|| Self {
            rules,
            counters,
            instruments: Vec::new(),
            present: UnixNanos::default(),
            before: None,
            counted: Vec::new(),
        })
    }

    /// Judges emitted values: removes dropped events, and inserts what subscribers must know.
    pub fn filter(&mut self, emitted: &mut Vec<Emit>) {
        let mut out = Vec::with_capacity(emitted.len());
        for emit in emitted.drain(..) {
            let _reported_by_counters = self.judge(emit, &mut out);
        }
        *emitted = out;
        self.commit();
    }

    /// Sets the time of a source without watermarks.
    pub const fn set_present(&mut self, now: UnixNanos) {
        self.present = now;
    }

    /// Begins a transaction of [`Self::judge`], which [`Self::commit`] or [`Self::roll_back`] ends.
    pub fn begin(&mut self) {
        self.before = Some(HashMap::new());
    }

    /// Ends a transaction: its violations count.
    pub fn commit(&mut self) {
        self.before = None;
        for (rule, is_dropped) in self.counted.drain(..) {
            self.counters[rule as usize][usize::from(is_dropped)].inc();
        }
    }

    /// Ends a transaction as if its events had never been seen.
    pub fn roll_back(&mut self) {
        self.counted.clear();
        for (local, instrument) in self.before.take().into_iter().flatten() {
            self.instruments[local as usize] = instrument;
        }
    }

    /// Judges one value and appends what is to be emitted; returns the rule that dropped an event.
    pub fn judge(&mut self, emit: Emit, out: &mut Vec<Emit>) -> Option<Rule> {
        let (local, ts, kind) = match &emit {
            Emit::Trade(local, trade) => (*local, trade.ts, MissedKind::Trades),
            Emit::Quote(local, quote) => (*local, quote.ts, MissedKind::Quotes),
            other => {
                self.note(other);
                out.push(emit);
                return None;
            }
        };
        let at = local as usize;
        if self.instruments.len() <= at {
            self.instruments.resize_with(at + 1, Instrument::default);
        }
        if let Some(before) = &mut self.before {
            let instrument = &self.instruments[at];
            before.entry(local).or_insert_with(|| instrument.clone());
        }
        let judged = Judged {
            emit: &emit,
            local,
            ts,
            kind,
        };
        if let Some((rule, action)) = self.violation(&judged) {
            self.counted.push((rule, true));
            let instrument = &mut self.instruments[at];
            if rule == Rule::Flood {
                instrument.flooded[kind as usize] += 1;
            }
            let state = match action {
                RuleAction::Stale => Some(TradingState::Stale),
                RuleAction::Halt => Some(TradingState::Halted),
                RuleAction::Pass | RuleAction::Flag | RuleAction::Drop => None,
            };
            let now = self
                .present
                .max(instrument.newest[0].max(instrument.newest[1]));
            out.extend(state.map(|state| Emit::Trading(local, state, now)));
            return Some(rule);
        }
        self.accept(&judged, out);
        out.push(emit);
        None
    }

    /// Takes in a value that is no event.
    fn note(&mut self, emit: &Emit) {
        match emit {
            Emit::Watermark(now) => self.present = self.present.max(*now),
            Emit::StartOver => {
                self.instruments.clear();
                self.present = UnixNanos::default();
            }
            // The source has reported the hole itself.
            Emit::Missed(local, missed) if missed.kind == MissedKind::Trades => {
                let instrument = self.instruments.get_mut(*local as usize);
                if let (Some(instrument), Some(count)) = (instrument, missed.count) {
                    instrument.last_id = instrument.last_id.and_then(|id| id.checked_add(count));
                }
            }
            _ => {}
        }
    }

    /// First rule that drops the event; violations that are only flagged are counted.
    fn violation(&mut self, judged: &Judged<'_>) -> Option<(Rule, RuleAction)> {
        for rule in [
            Rule::Flood,
            Rule::Crossed,
            Rule::Late,
            Rule::Duplicate,
            Rule::Clock,
            Rule::Move,
        ] {
            let action = self.action(rule);
            if action == RuleAction::Pass || !self.violates(rule, judged) {
                continue;
            }
            if action != RuleAction::Flag {
                return Some((rule, action));
            }
            self.counted.push((rule, false));
        }
        None
    }

    fn action(&self, rule: Rule) -> RuleAction {
        let rules = &self.rules;
        let (is_on, action) = match rule {
            Rule::Crossed => (true, rules.on_crossed),
            Rule::Move => (!rules.max_move.is_zero(), rules.on_move),
            Rule::Duplicate => (true, rules.on_duplicate),
            Rule::Late => (true, rules.on_late),
            Rule::Clock => (!rules.max_clock_error.is_zero(), rules.on_clock),
            Rule::Flood => (rules.max_rate > 0, rules.on_flood),
        };
        if is_on { action } else { RuleAction::Pass }
    }

    fn violates(&mut self, rule: Rule, judged: &Judged<'_>) -> bool {
        let (rules, present) = (&self.rules, self.present);
        let instrument = &mut self.instruments[judged.local as usize];
        match (rule, judged.emit) {
            (Rule::Crossed, Emit::Quote(_, quote)) => quote.is_crossed(),
            (Rule::Late, _) => judged.ts < instrument.newest[judged.kind as usize],
            (Rule::Duplicate, Emit::Trade(_, trade)) => {
                hash_of(trade).is_some_and(|id| instrument.ids.contains(&id))
            }
            (Rule::Clock, _) => {
                let error = judged.ts.since(present).max(present.since(judged.ts));
                present != UnixNanos::default() && error > rules.max_clock_error
            }
            (Rule::Flood, _) => {
                if present.since(instrument.window) >= RATE_WINDOW {
                    (instrument.window, instrument.in_window) = (present, 0);
                }
                instrument.in_window = instrument.in_window.saturating_add(1);
                instrument.in_window > rules.max_rate
            }
            (Rule::Move, Emit::Trade(_, trade)) => {
                let prices = Prices::of_trade(trade.px.0);
                instrument.band.is_off_market(prices, judged.ts, rules)
            }
            (Rule::Move, Emit::Quote(_, quote)) => Prices::of_quote(quote)
                .is_some_and(|prices| instrument.band.is_off_market(prices, judged.ts, rules)),
            _ => false,
        }
    }

    /// Takes in an accepted event, and reports holes before it.
    fn accept(&mut self, judged: &Judged<'_>, out: &mut Vec<Emit>) {
        let keeps_ids = self.rules.on_duplicate != RuleAction::Pass;
        let instrument = &mut self.instruments[judged.local as usize];
        let newest = &mut instrument.newest[judged.kind as usize];
        *newest = judged.ts.max(*newest);
        let mut missed = std::mem::take(&mut instrument.flooded[judged.kind as usize]);
        if let Emit::Trade(_, trade) = judged.emit {
            if keeps_ids && let Some(id) = hash_of(trade) {
                instrument.ids.push_back(id);
                if instrument.ids.len() > IDS_KEPT {
                    instrument.ids.pop_front();
                }
            }
            if self.rules.consecutive_ids
                && let TradeId::Number(id) = trade.id
            {
                // Trades that a flood dropped are part of the hole.
                missed = instrument.hole_before(id).max(missed);
            }
        }
        if missed > 0 {
            let missed = MissedData {
                kind: judged.kind,
                count: Some(missed),
            };
            out.push(Emit::Missed(judged.local, missed));
        }
    }
}

impl Instrument {
    /// Number of trades between the newest one and this one, by their ids.
    fn hole_before(&mut self, id: u64) -> u64 {
        let Some(last) = self.last_id else {
            self.last_id = Some(id);
            return 0;
        };
        // A much lower id is that of a new numbering, a slightly lower one that of a late trade.
        let is_new = id.saturating_add(IDS_KEPT as u64) < last;
        if id <= last && !is_new {
            return 0;
        }
        self.last_id = Some(id);
        if is_new { 0 } else { id - last - 1 }
    }
}

fn hash_of(trade: &Trade) -> Option<u64> {
    match &trade.id {
        TradeId::None => None,
        TradeId::Number(id) => Some(*id),
        TradeId::Text(text) => {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            Some(hasher.finish())
        }
    }
}
