use std::time::Duration;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::bus::{Emit, MissedData, MissedKind};
use crate::market::{Aggressor, Level, Price, Qty, Quote, Trade, TradeId, TradingState, UnixNanos};
use crate::metrics::Metrics;

fn ts(ms: u64) -> UnixNanos {
    UnixNanos(1_700_000_000_000_000_000).plus(Duration::from_millis(ms))
}

fn trade(px: i64, id: u64, ms: u64) -> Emit {
    let trade = Trade {
        ts: ts(ms),
        px: Price(px.into()),
        qty: Qty(Decimal::ONE),
        side: Aggressor::None,
        id: TradeId::Number(id),
    };
    Emit::Trade(0, trade)
}

fn quote(bid: i64, ask: i64, ms: u64) -> Emit {
    let level = |px: i64| {
        Some(Level {
            px: Price(px.into()),
            qty: Some(Qty(Decimal::ONE)),
        })
    };
    let quote = Quote {
        ts: ts(ms),
        bid: level(bid),
        ask: level(ask),
    };
    Emit::Quote(0, quote)
}

fn screen(rules: SourceRules) -> Screen {
    let counters = Metrics::new().rule_counters("s");
    Screen::new(rules, counters).expect("a rule is on")
}

/// Violated rule of each event, and what was emitted.
fn judged(screen: &mut Screen, emits: Vec<Emit>) -> (Vec<Option<Rule>>, Vec<Emit>) {
    let mut out = Vec::new();
    let rules = emits.into_iter().map(|emit| screen.judge(emit, &mut out));
    (rules.collect(), out)
}

const MOVE: Option<Rule> = Some(Rule::Move);

fn within(percent: i64) -> SourceRules {
    SourceRules {
        max_move: Decimal::new(percent, 2),
        move_confirm: 3,
        ..SourceRules::default()
    }
}

#[test]
fn rules_are_named_as_in_the_metric_and_off_by_default() {
    let metrics = Metrics::new();
    assert!(Screen::new(SourceRules::default(), metrics.rule_counters("s")).is_none());
    let text = String::from_utf8(metrics.render()).expect("metrics are text");
    for rule in Rule::ALL {
        let name = rule.name();
        let series = format!("{{action=\"dropped\",rule=\"{name}\",source=\"s\"}} 0");
        assert!(text.contains(&series), "{series}");
    }
    for (at, name) in RuleAction::NAMES.iter().enumerate() {
        let action = RuleAction::parse(name).expect("a name of an action");
        assert_eq!(action as usize, at);
    }
}

#[test]
fn off_market_prices_are_dropped_until_the_market_has_moved() {
    let mut screen = screen(within(10));
    let prices = [100, 109, 200, 110, 50, 51, 110];
    let emits = (0..).zip(prices).map(|(at, px)| trade(px, at, at));
    let (rules, _) = judged(&mut screen, emits.collect());
    assert_eq!(rules, [None, None, MOVE, None, MOVE, MOVE, None]);
    // Three consecutive events around another price, whatever their channel.
    let moved = vec![trade(200, 9, 10), quote(199, 201, 11), trade(201, 10, 12)];
    assert_eq!(judged(&mut screen, moved).0, [MOVE, MOVE, None]);
    assert_eq!(judged(&mut screen, vec![trade(110, 11, 13)]).0, [MOVE]);
    // A price that is older than a minute is no reference.
    assert_eq!(judged(&mut screen, vec![trade(50, 12, 70_000)]).0, [None]);
    // One side of a quote is enough.
    assert_eq!(judged(&mut screen, vec![quote(50, 90, 70_001)]).0, [MOVE]);
}

#[test]
fn actions_flag_drop_and_change_the_status() {
    for (action, dropped, state) in [
        (RuleAction::Flag, false, None),
        (RuleAction::Drop, true, None),
        (RuleAction::Stale, true, Some(TradingState::Stale)),
        (RuleAction::Halt, true, Some(TradingState::Halted)),
    ] {
        let counters = Metrics::new().rule_counters("s");
        let rules = SourceRules {
            on_crossed: action,
            ..SourceRules::default()
        };
        let mut screen = Screen::new(rules, counters.clone()).expect("a rule is on");
        let mut emitted = vec![quote(1, 2, 0), quote(3, 2, 1)];
        screen.filter(&mut emitted);
        let crossed = |emit: &Emit| matches!(emit, Emit::Quote(_, quote) if quote.is_crossed());
        assert_eq!(emitted.iter().any(crossed), !dropped, "{action:?}");
        let found = emitted.iter().find_map(|emit| match emit {
            Emit::Trading(0, state, _) => Some(*state),
            _ => None,
        });
        assert_eq!(found, state);
        let expected = RuleReport {
            rule: "crossed",
            flagged: u64::from(!dropped),
            dropped: u64::from(dropped),
        };
        assert_eq!(rule_reports(&counters), [expected]);
    }
}

#[test]
fn duplicates_and_late_events_are_found() {
    let mut screen = screen(SourceRules {
        on_duplicate: RuleAction::Drop,
        on_late: RuleAction::Drop,
        ..SourceRules::default()
    });
    let emits = vec![
        trade(1, 1, 10),
        trade(1, 1, 10),
        trade(1, 2, 9),
        quote(1, 2, 5),
        trade(1, 2, 10),
    ];
    let (duplicate, late) = (Some(Rule::Duplicate), Some(Rule::Late));
    assert_eq!(
        judged(&mut screen, emits).0,
        [None, duplicate, late, None, None]
    );
}

#[test]
fn wrong_clocks_are_found_in_both_directions() {
    let mut screen = screen(SourceRules {
        max_clock_error: Duration::from_secs(5),
        ..SourceRules::default()
    });
    let emits = vec![
        trade(1, 1, 90_000),
        Emit::Watermark(ts(10_000)),
        trade(1, 2, 15_000),
        trade(1, 3, 15_001),
        trade(1, 4, 4_999),
        trade(1, 5, 5_000),
    ];
    let clock = Some(Rule::Clock);
    let (rules, _) = judged(&mut screen, emits);
    assert_eq!(rules, [None, None, None, clock, clock, None]);
}

#[test]
fn a_flood_is_dropped_and_reported_as_missed() {
    let mut screen = screen(SourceRules {
        max_rate: 10,
        ..SourceRules::default()
    });
    let mut emits = vec![Emit::Watermark(ts(0))];
    emits.extend((0..25).map(|id| trade(1, id, 1)));
    emits.push(Emit::Watermark(ts(1000)));
    emits.push(trade(1, 25, 1001));
    let (rules, out) = judged(&mut screen, emits);
    let dropped = rules
        .iter()
        .filter(|rule| **rule == Some(Rule::Flood))
        .count();
    assert_eq!(dropped, 15);
    let missed = MissedData {
        kind: MissedKind::Trades,
        count: Some(15),
    };
    let last = &out[out.len() - 2..];
    assert_eq!(last, [Emit::Missed(0, missed), trade(1, 25, 1001)]);
}

/// Numbers of missed trades, in order.
fn holes(out: &[Emit]) -> Vec<Option<u64>> {
    let count = |emit: &Emit| match emit {
        Emit::Missed(_, missed) => Some(missed.count),
        _ => None,
    };
    out.iter().filter_map(count).collect()
}

#[test]
fn holes_in_consecutive_trade_ids_are_reported_once() {
    let mut screen = screen(SourceRules {
        consecutive_ids: true,
        ..SourceRules::default()
    });
    let ids = [1000, 1001, 1005, 1003, 1006, 7, 8, 10];
    let emits = ids.map(|id| trade(1, id, id)).to_vec();
    let (_, out) = judged(&mut screen, emits);
    assert_eq!(holes(&out), [Some(3), Some(1)]);
    // The source reports the next hole itself.
    let missed = MissedData {
        kind: MissedKind::Trades,
        count: Some(4),
    };
    let emits = vec![Emit::Missed(0, missed), trade(1, 15, 15)];
    assert_eq!(holes(&judged(&mut screen, emits).1), [Some(4)]);
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_no_trace() {
    let counters = Metrics::new().rule_counters("s");
    let rules = SourceRules {
        on_duplicate: RuleAction::Drop,
        ..SourceRules::default()
    };
    let mut screen = Screen::new(rules, counters.clone()).expect("a rule is on");
    let twice = || vec![trade(1, 1, 1), trade(1, 1, 1)];
    for _ in 0..2 {
        screen.begin();
        assert_eq!(
            judged(&mut screen, twice()).0,
            [None, Some(Rule::Duplicate)]
        );
        screen.roll_back();
        assert_eq!(rule_reports(&counters), []);
    }
    screen.begin();
    assert_eq!(
        judged(&mut screen, twice()).0,
        [None, Some(Rule::Duplicate)]
    );
    screen.commit();
    assert_eq!(rule_reports(&counters).len(), 1);
}

proptest! {
    /// A market that has really moved is published again after `move_confirm` events, whatever came
    /// before; and no published price is off the market otherwise.
    #[test]
    fn the_band_follows_the_market(prices in proptest::collection::vec(1i64..1000, 1..60), now in 1i64..1000) {
        let mut screen = screen(within(10));
        for (at, px) in (0..).zip(&prices) {
            let _dropped_or_not = judged(&mut screen, vec![trade(*px, at, at)]);
        }
        let after = (100..103).map(|at| trade(now, at, at));
        let (rules, _) = judged(&mut screen, after.collect());
        prop_assert_eq!(rules[2], None);
        let next = judged(&mut screen, vec![trade(now, 200, 200)]);
        prop_assert_eq!(next.0, vec![None]);
    }

    /// Screening changes nothing of a market that keeps the rules.
    #[test]
    fn a_market_within_the_rules_passes_unchanged(steps in proptest::collection::vec(-4i64..5, 1..100)) {
        let mut screen = screen(SourceRules {
            on_crossed: RuleAction::Drop,
            on_duplicate: RuleAction::Drop,
            on_late: RuleAction::Drop,
            max_clock_error: Duration::from_secs(5),
            max_rate: 1000,
            consecutive_ids: true,
            ..within(10)
        });
        let mut px = 1000;
        let emits: Vec<Emit> = (0..)
            .zip(steps)
            .map(|(at, step)| {
                px += step;
                trade(px, at, at)
            })
            .collect();
        let (_, out) = judged(&mut screen, emits.clone());
        prop_assert_eq!(out, emits);
    }
}
