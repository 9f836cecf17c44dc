use super::*;
use crate::log::SourceId;
use crate::market::{Aggressor, Instrument, Price, Qty, SourceKind, Symbol, TradeId};

/// Counts what is published by channel name.
#[derive(Default)]
struct Counted(usize);

impl Publish for Counted {
    fn publish(&mut self, _: TopicId, _: Body) {
        self.0 += 1;
    }
}

const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
const INSTRUMENTS: usize = 5_000;

fn derived() -> Derive {
    let instrument = |n: usize| {
        Instrument::new(
            Symbol::new(&format!("S{n:05}")).expect("valid symbol"),
            SourceKind::Sim,
        )
    };
    let mut catalog = Catalog::new(vec!["sim".into()]);
    let ids = catalog.add(SourceId(0), (0..INSTRUMENTS).map(instrument).collect());
    let mut derive = Derive::new(1);
    for id in ids.into_iter().flatten() {
        derive.add(id, catalog.instrument(id), Duration::from_secs(5));
    }
    derive
}

fn trade(at: UnixNanos) -> Trade {
    Trade {
        ts: at,
        px: Price(Decimal::ONE),
        qty: Qty(Decimal::ONE),
        side: Aggressor::Buy,
        id: TradeId::None,
    }
}

#[test]
fn a_watermark_visits_only_instruments_with_due_work() {
    let (mut derive, mut out) = (derived(), Counted::default());
    derive.on_mark(0, START, &mut out);
    let ms = |ms: u64| START.plus(Duration::from_millis(ms));
    // All of them are alive, one of them trades on.
    for id in 0..INSTRUMENTS as u32 {
        derive.on_quote(InstrumentId(id), ms(1), &mut out);
    }
    let mut looked_at = Vec::new();
    for mark in 1..=40 {
        let now = ms(100 * mark);
        let id = InstrumentId(7);
        assert!(derive.on_trade(0, id, &trade(now), &mut out).is_ok());
        looked_at.push(derive.on_mark(0, now, &mut out));
    }
    assert!(looked_at.iter().all(|count| *count <= 3), "{looked_at:?}");
    let before = out.0;
    let count = derive.on_mark(0, ms(5_100), &mut out);
    assert!(
        count >= INSTRUMENTS - 1 && out.0 >= before + INSTRUMENTS - 1,
        "all but one are silent: {count}"
    );
    let count = derive.on_mark(0, ms(5_200), &mut out);
    assert!(count <= 3, "stale ones cost nothing more: {count}");
}
