//! Unpublishable events are counted by source and reason, and the cost per new symbol is constant.

use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use super::{Bus, Emit, RestoredState, SourceSpec, input_queue};
use crate::clock::{Clock, thread_cpu_time};
use crate::log::{Log, LogItem, Next, SourceId};
use crate::market::{
    Aggressor, Instrument, Price, Qty, SourceKind, Symbol, Trade, TradeId, UnixNanos,
};
use crate::metrics::Metrics;
use crate::protocol::Epoch;

const QUEUE_BYTES: usize = 64 << 30;

fn instrument(symbol: String) -> Instrument {
    Instrument {
        symbol: Symbol::new(&symbol).expect("valid symbol"),
        venue_symbol: None,
        description: String::new(),
        price_scale: 2,
        qty_scale: 0,
        src: SourceKind::Sim,
        has_trades: true,
        has_quotes: false,
        stale_after: None,
        session_start: Duration::ZERO,
    }
}

fn trade() -> Trade {
    Trade {
        ts: UnixNanos(1_767_225_600_000_000_000),
        px: Price(Decimal::new(10_000, 2)),
        qty: Qty(Decimal::ONE),
        side: Aggressor::Buy,
        id: TradeId::None,
    }
}

/// Publishes the output of two sources, in order; returns the metrics, the log, and the processor
/// time.
async fn publish(
    emitted: impl IntoIterator<Item = (u16, Vec<Emit>)>,
    instruments_max: usize,
) -> (Arc<Metrics>, Arc<Log>, Duration) {
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let log = Log::new(1 << 30, 0);
    let (emitter, queue) = input_queue(QUEUE_BYTES, clock);
    for (source, mut emitted) in emitted {
        // The queue has room for all of it.
        assert!(emitter.of(SourceId(source)).emit(&mut emitted).await);
    }
    emitter.stop().await;
    let spec = |name: &str| SourceSpec {
        name: name.into(),
        stale_after: Duration::from_secs(5),
        is_present: false,
        config: bytes::Bytes::new(),
    };
    let bus = Bus::new(
        clock,
        Arc::clone(&log),
        Arc::clone(&metrics),
        vec![spec("first"), spec("second")],
        Epoch {
            origin: 7,
            generation: 0,
        },
        RestoredState::default(),
    )
    .limit_instruments(instruments_max);
    let run = move || {
        let before = thread_cpu_time();
        bus.run(queue);
        thread_cpu_time().saturating_sub(before)
    };
    // The bus blocks its thread, so it cannot run on a runtime thread.
    let took = std::thread::spawn(run).join().expect("the bus stops");
    (metrics, log, took)
}

fn dropped(metrics: &Metrics, source: &str, reason: &str) -> String {
    let text = String::from_utf8(metrics.render()).expect("metrics are text");
    let name =
        format!("tickcast_source_events_dropped_total{{reason=\"{reason}\",source=\"{source}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&*name));
    line.unwrap_or("none").to_owned()
}

#[tokio::test]
async fn dropped_events_are_counted_by_source_and_reason() {
    let symbols = |some: &[&str]| {
        Emit::Instruments(some.iter().map(|text| instrument((*text).into())).collect())
    };
    let emitted = [
        (0, vec![symbols(&["A"])]),
        // The first symbol is owned by another source, the last exceeds the limit, and number 7 was
        // never announced.
        (1, vec![symbols(&["A", "B", "C"])]),
        (1, (0..500).map(|_| Emit::Trade(0, trade())).collect()),
        (1, vec![Emit::Trade(1, trade())]),
        (1, (0..3).map(|_| Emit::Trade(2, trade())).collect()),
        (1, vec![Emit::Trade(7, trade()), Emit::Trade(7, trade())]),
        (
            1,
            vec![Emit::Quote(
                1,
                crate::market::Quote {
                    ts: trade().ts,
                    bid: None,
                    ask: None,
                },
            )],
        ),
    ];
    let (metrics, ..) = publish(emitted, 2).await;
    let of = |reason| dropped(&metrics, "second", reason);
    assert_eq!(
        (
            of("symbol_taken"),
            of("instrument_limit"),
            of("unannounced"),
            of("channel")
        ),
        ("500".into(), "3".into(), "2".into(), "1".into())
    );
    assert_eq!(dropped(&metrics, "first", "symbol_taken"), "0");
}

/// Processor time for `symbols` symbols, each announced separately and followed by a trade, or all
/// at once.
async fn cost(symbols: usize, at_once: bool) -> Duration {
    let all: Vec<Instrument> = (0..symbols)
        .map(|n| instrument(format!("S{:05}", n * 7919 % symbols)))
        .collect();
    let emitted: Vec<(u16, Vec<Emit>)> = if at_once {
        vec![(0, vec![Emit::Instruments(all)])]
    } else {
        let one = |(n, one): (usize, Instrument)| {
            let emitted = vec![Emit::Instruments(vec![one]), Emit::Trade(n as u32, trade())];
            (0, emitted)
        };
        all.into_iter().enumerate().map(one).collect()
    };
    let (_, log, took) = publish(emitted, usize::MAX).await;
    let mut topics = 0;
    for number in 0..log.head() {
        if let Next::Batch(batch) = log.read(number) {
            topics = batch.catalog.len();
            let announced = batch.items.iter().filter_map(|item| match item {
                LogItem::Topics { new, .. } => Some(new.len()),
                _ => None,
            });
            let announced: Vec<usize> = announced.collect();
            assert!(
                announced.len() <= 1,
                "a batch announces its topics together"
            );
        }
    }
    assert_eq!(topics, symbols * 8);
    took.max(Duration::from_millis(1))
}

/// Processor time without the disturbances of other programs, which only add to it.
async fn least_cost(symbols: usize, at_once: bool) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..3 {
        least = least.min(cost(symbols, at_once).await);
    }
    least
}

#[tokio::test]
async fn announcing_symbols_takes_linear_time() {
    for at_once in [false, true] {
        let (few, many) = (
            least_cost(1_000, at_once).await,
            least_cost(8_000, at_once).await,
        );
        // Linear cost gives a factor of 8; a copy of the catalog per symbol gives 64.
        assert!(
            many < 24 * few,
            "at once: {at_once}, {few:?} for 1,000 symbols, {many:?} for 8,000"
        );
    }
}
