use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::bus::{Emit, MissedData, MissedKind};
use crate::market::{Aggressor, Level, Price, Qty, Quote, Symbol, Trade, TradeId, UnixNanos};

fn symbol(text: &str) -> Symbol {
    Symbol::new(text).expect("a symbol")
}

fn ts(ms: u64) -> UnixNanos {
    UnixNanos(1_700_000_000_000_000_000).plus(Duration::from_millis(ms))
}

fn trade(local: u32, id: u64, ms: u64) -> Emit {
    let trade = Trade {
        ts: ts(ms),
        px: Price(Decimal::new(10_000, 2)),
        qty: Qty(Decimal::ONE),
        side: Aggressor::Buy,
        id: TradeId::Number(id),
    };
    Emit::Trade(local, trade)
}

fn quote(local: u32, ms: u64) -> Emit {
    let level = |px| {
        Some(Level {
            px: Price(Decimal::new(px, 2)),
            qty: Some(Qty(Decimal::ONE)),
        })
    };
    let (bid, ask) = (level(9_999), level(10_001));
    Emit::Quote(
        local,
        Quote {
            ts: ts(ms),
            bid,
            ask,
        },
    )
}

fn spec(kind: FaultKind, symbols: &str) -> FaultSpec {
    FaultSpec {
        kind,
        symbols: SymbolPattern::parse(symbols).expect("a pattern"),
        after: Duration::ZERO,
        repeat: None,
        lasting: Duration::from_secs(1),
        count: None,
        share: Decimal::ONE,
        size: Decimal::new(5, 1),
        step_ns: -60_000_000_000,
    }
}

fn injector(schedule: &[FaultSpec]) -> (Injector, Arc<FaultBoard>) {
    let board = Arc::new(FaultBoard::new(true));
    let mut injector = Injector::new(schedule, 7, Arc::clone(&board));
    injector.announce(symbol("BTC-USD"));
    injector.announce(symbol("ETH-USD"));
    (injector, board)
}

/// Trades and quotes of both instruments, one each 10 ms.
fn market(ms: u64) -> Vec<Emit> {
    (0..ms / 10)
        .flat_map(|at| {
            let now = at * 10;
            [
                Emit::Watermark(ts(now)),
                trade(0, at + 1, now),
                quote(0, now),
                trade(1, at + 1, now),
            ]
        })
        .collect()
}

fn run(schedule: &[FaultSpec], ms: u64) -> Vec<Emit> {
    let (mut injector, _) = injector(schedule);
    let mut all = Vec::new();
    for chunk in market(ms).chunks(7) {
        let mut emitted = chunk.to_vec();
        injector.inject(&mut emitted);
        all.extend(emitted);
    }
    all.extend(injector.finish());
    all
}

fn ids(emitted: &[Emit], local: u32) -> Vec<u64> {
    let id = |emit: &Emit| match emit {
        Emit::Trade(at, trade) if *at == local => match trade.id {
            TradeId::Number(id) => Some(id),
            _ => None,
        },
        _ => None,
    };
    emitted.iter().filter_map(id).collect()
}

fn missed(emitted: &[Emit], local: u32, wanted: MissedKind) -> u64 {
    let count = |emit: &Emit| match emit {
        Emit::Missed(at, MissedData { kind, count }) if *at == local && *kind == wanted => {
            count.unwrap_or_default()
        }
        _ => 0,
    };
    emitted.iter().map(count).sum()
}

#[test]
fn kinds_have_the_names_of_the_metric() {
    let metrics = crate::metrics::Metrics::new();
    let text = String::from_utf8(metrics.render()).expect("metrics are text");
    for kind in FaultKind::ALL {
        assert_eq!(FaultKind::parse(kind.name()), Some(kind));
        let series = format!(
            "tickcast_injected_faults_total{{kind=\"{}\"}} 0",
            kind.name()
        );
        assert!(text.contains(&series), "{series}");
    }
}

#[test]
fn without_faults_nothing_changes() {
    assert_eq!(run(&[], 500), market(500));
}

#[test]
fn dropped_events_are_reported_before_the_next_event() {
    let drop = FaultSpec {
        after: Duration::from_millis(100),
        count: Some(3),
        ..spec(FaultKind::Drop, "BTC-*")
    };
    let emitted = run(&[drop], 300);
    assert_eq!(ids(&emitted, 1), (1..=30).collect::<Vec<_>>());
    let left = ids(&emitted, 0);
    let trades = missed(&emitted, 0, MissedKind::Trades);
    assert_eq!(left.len() as u64 + trades, 30);
    assert_eq!(trades + missed(&emitted, 0, MissedKind::Quotes), 3);
    let gap =
        |emit: &Emit| matches!(emit, Emit::Missed(0, missed) if missed.kind == MissedKind::Trades);
    let at = emitted.iter().position(gap).expect("a report");
    assert_eq!(ids(&emitted[..at], 0), (1..=10).collect::<Vec<_>>());
    assert_eq!(ids(&emitted[at..], 0)[0], 11 + trades);
}

#[test]
fn a_freeze_is_silent_and_reports_what_was_lost() {
    let freeze = |symbols| FaultSpec {
        after: Duration::from_millis(100),
        lasting: Duration::from_millis(50),
        ..spec(FaultKind::Freeze, symbols)
    };
    let emitted = run(&[freeze("BTC-USD")], 300);
    assert_eq!(ids(&emitted, 0).len(), 25);
    assert_eq!(missed(&emitted, 0, MissedKind::Trades), 5);
    assert_eq!(missed(&emitted, 0, MissedKind::Quotes), 5);
    assert_eq!(ids(&emitted, 1).len(), 30);
    let marks = |emitted: &[Emit]| {
        let is_mark = |emit: &&Emit| matches!(emit, Emit::Watermark(_));
        emitted.iter().filter(is_mark).count()
    };
    assert_eq!(marks(&emitted), 30);
    // The whole source is silent.
    assert_eq!(marks(&run(&[freeze("*")], 300)), 25);
}

#[test]
fn duplicates_and_reordered_events_lose_nothing() {
    let duplicate = FaultSpec {
        count: Some(2),
        ..spec(FaultKind::Duplicate, "ETH-USD")
    };
    assert_eq!(ids(&run(&[duplicate], 50), 1), [1, 1, 2, 2, 3, 4, 5]);
    let reorder = spec(FaultKind::Reorder, "ETH-USD");
    assert_eq!(ids(&run(&[reorder], 50), 1), [2, 1, 4, 3, 5]);
}

#[test]
fn prices_and_times_are_wrong_only_during_the_fault() {
    let of = |kind| FaultSpec {
        lasting: Duration::from_millis(20),
        ..spec(kind, "BTC-USD")
    };
    let emitted = run(&[of(FaultKind::Spike)], 50);
    let prices = |emitted: &[Emit]| -> Vec<Decimal> {
        let px = |emit: &Emit| match emit {
            Emit::Trade(0, trade) => Some(trade.px.0),
            _ => None,
        };
        emitted.iter().filter_map(px).collect()
    };
    let (far, usual) = (Decimal::new(15_000, 2), Decimal::new(10_000, 2));
    assert_eq!(prices(&emitted), [far, far, usual, usual, usual]);
    let crossed = |emit: &Emit| matches!(emit, Emit::Quote(_, quote) if quote.is_crossed());
    let emitted = run(&[of(FaultKind::Cross)], 50);
    assert_eq!(emitted.iter().filter(|emit| crossed(emit)).count(), 2);
    let emitted = run(&[of(FaultKind::Clock)], 50);
    let late = |emit: &&Emit| matches!(emit, Emit::Trade(0, trade) if trade.ts < ts(0));
    assert_eq!(emitted.iter().filter(late).count(), 2);
}

#[test]
fn a_restart_starts_over_once() {
    let emitted = run(&[spec(FaultKind::Restart, "*")], 50);
    assert_eq!(emitted[0], Emit::StartOver);
    assert_eq!(emitted[1..], market(50));
}

#[test]
fn a_schedule_repeats_with_the_same_jitter_for_the_same_seed() {
    let fault = FaultSpec {
        repeat: Some(FaultRepeat {
            every: Duration::from_millis(200),
            jitter: Duration::from_millis(100),
        }),
        lasting: Duration::from_millis(30),
        share: Decimal::new(7, 1),
        ..spec(FaultKind::Drop, "*")
    };
    let emitted = run(std::slice::from_ref(&fault), 3000);
    assert_eq!(emitted, run(std::slice::from_ref(&fault), 3000));
    let reports = emitted
        .iter()
        .filter(|emit| matches!(emit, Emit::Missed(..)));
    assert!(reports.count() > 20);
}

#[test]
fn commands_begin_and_end_faults() {
    let (mut injector, board) = injector(&[]);
    let closed = FaultBoard::default();
    let freeze = spec(FaultKind::Freeze, "BTC-USD");
    assert_eq!(closed.inject(freeze.clone()), Err(BoardError::Disabled));
    let none = spec(FaultKind::Freeze, "XRP-*");
    assert!(matches!(board.inject(none), Err(BoardError::NoSymbol(_))));
    let id = board.inject(freeze).expect("accepted").id;
    let mut inject = |emit: Emit| {
        let mut emitted = vec![emit];
        injector.inject(&mut emitted);
        (emitted, injector.take_begun())
    };
    assert_eq!(inject(trade(0, 1, 0)), (vec![], vec![FaultKind::Freeze]));
    assert_eq!(board.reports().len(), 1);
    assert!(board.end(id) && !board.end(id + 1));
    let (emitted, _) = inject(trade(0, 2, 10));
    assert_eq!(missed(&emitted, 0, MissedKind::Trades), 1);
    assert_eq!(ids(&emitted, 0), [2]);
    assert!(board.reports().is_empty());
    for _ in 0..100 {
        assert!(board.inject(spec(FaultKind::Drop, "*")).is_ok());
    }
    assert_eq!(
        board.inject(spec(FaultKind::Drop, "*")),
        Err(BoardError::Full)
    );
}

proptest! {
    /// Whatever happens at once: every trade is emitted or reported as missed.
    #[test]
    fn no_fault_loses_an_event_in_silence(
        kinds in proptest::collection::vec((0usize..8, 0u64..400, 1u64..300, 1u64..10), 1..5),
    ) {
        let schedule: Vec<FaultSpec> = kinds
            .into_iter()
            .map(|(kind, after, lasting, share)| FaultSpec {
                after: Duration::from_millis(after),
                lasting: Duration::from_millis(lasting),
                share: Decimal::new(share as i64, 1),
                ..spec(FaultKind::ALL[kind], "*")
            })
            .collect();
        let emitted = run(&schedule, 600);
        for local in [0, 1] {
            let mut distinct = ids(&emitted, local);
            distinct.sort_unstable();
            distinct.dedup();
            let missed = missed(&emitted, local, MissedKind::Trades);
            prop_assert_eq!(distinct.len() as u64 + missed, 60);
        }
    }
}
