//! Derived data from trades with extreme values: bars, tickers and status.

use std::time::Duration;

use rust_decimal::Decimal;
use tickcast::bus::derive::{Derive, Publish};
use tickcast::codec::{EventHead, encode_event};
use tickcast::log::{Catalog, InstrumentId, SourceId, TopicId};
use tickcast::market::{
    Aggressor, Body, Instrument, Price, PriceRules, Qty, SourceKind, Symbol, Trade, TradeId,
    TradingState, UnixNanos,
};
use tickcast::protocol::{Encoding, Seq};

use super::{MILLIS, Memory, Target};

pub(crate) const TARGET: Target = Target {
    name: "derive",
    check,
    work,
    // The state of three instruments and their schedules; events are not kept.
    memory: Memory {
        per_byte: 16,
        constant: 256 << 10,
    },
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01\x00",
        b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x1c\xff\x1c\xff",
        b"\x01\x7f",
        b"\x01\xff",
        b"\x05",
    ],
};

const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
/// Negative prices are allowed, so that all signs occur.
const RULES: PriceRules = PriceRules {
    negative: true,
    zero: true,
    crossed: true,
    zero_size_is_empty: false,
};

/// Published events are consistent and can be encoded.
pub(crate) fn check(bytes: &[u8]) {
    struct Checked;
    impl Publish for Checked {
        fn publish(&mut self, topic: TopicId, body: Body) {
            assert_consistent(&body);
            let head = CATALOG.with(|catalog| EventHead::new(&catalog.topic(topic).topic));
            for encoding in Encoding::ALL {
                let mut out = Vec::new();
                encode_event(&mut out, encoding, &head, Seq(1), START, &body);
                assert!(out.len() < 1000, "{body:?}");
            }
        }
    }
    run(bytes, &mut Checked);
}

pub(crate) fn work(bytes: &[u8]) {
    struct Ignored;
    impl Publish for Ignored {
        fn publish(&mut self, _: TopicId, body: Body) {
            std::hint::black_box(body);
        }
    }
    run(bytes, &mut Ignored);
}

fn assert_consistent(body: &Body) {
    match body {
        Body::Bar(bar) => {
            let inside = |px| bar.low <= px && px <= bar.high;
            assert!(
                inside(bar.open) && inside(bar.close) && bar.n > 0,
                "{bar:?}"
            );
            assert!(bar.vol.0 > Decimal::ZERO, "{bar:?}");
        }
        Body::Ticker(ticker) => {
            let inside = |px| ticker.low <= px && px <= ticker.high;
            assert!(inside(ticker.open) && inside(ticker.last), "{ticker:?}");
            assert!(ticker.vol.0 > Decimal::ZERO && ticker.n > 0, "{ticker:?}");
        }
        _ => {}
    }
}

thread_local! {
    static CATALOG: Catalog = {
        let mut catalog = Catalog::new(vec!["one".into(), "two".into()]);
        for (source, names) in [(0, &["A", "B"][..]), (1, &["C"])] {
            let instrument = |name: &&str| {
                Instrument::new(Symbol::new(name).expect("a letter"), SourceKind::Live)
            };
            catalog.add(SourceId(source), names.iter().map(instrument).collect());
        }
        catalog
    };
}

/// Bytes as a list of operations.
struct Operations<'a>(&'a [u8]);

impl Operations<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A decimal of any size: some bytes of mantissa, and a scale.
    fn decimal(&mut self) -> Option<Decimal> {
        let shape = self.byte()?;
        let mut mantissa = 0_i128;
        for _ in 0..shape % 13 {
            mantissa = mantissa << 8 | i128::from(self.byte()?);
        }
        let sign = if shape & 0x80 == 0 { 1 } else { -1 };
        let scale = u32::from(self.byte()? % 29);
        Decimal::try_from_i128_with_scale(sign * mantissa, scale).ok()
    }

    /// A time: near the start, or anywhere.
    fn time(&mut self) -> Option<UnixNanos> {
        let shape = self.byte()?;
        let step = u64::from(self.byte()?);
        Some(match shape % 4 {
            0 => START.plus(Duration::from_millis(step)),
            1 => START.plus(Duration::from_secs(step * 600)),
            2 => START.minus(Duration::from_secs(step << 24)),
            _ => UnixNanos(u64::MAX >> (step % 64)),
        })
    }
}

fn run(bytes: &[u8], out: &mut impl Publish) {
    let mut derive = Derive::new(2);
    CATALOG.with(|catalog| {
        for id in (0..3).map(InstrumentId) {
            derive.add(id, catalog.instrument(id), Duration::from_secs(5));
        }
    });
    let mut operations = Operations(bytes);
    while let Some(()) = step(&mut derive, &mut operations, out) {}
}

/// Executes one operation; `None` at the end.
fn step(
    derive: &mut Derive,
    operations: &mut Operations<'_>,
    out: &mut impl Publish,
) -> Option<()> {
    let kind = operations.byte()?;
    let id = InstrumentId(u32::from(kind >> 4) % 3);
    let source = usize::from(id == InstrumentId(2));
    match kind % 8 {
        0..=2 => {
            let (px, qty) = (operations.decimal()?, operations.decimal()?);
            let trade = Trade {
                ts: operations.time()?,
                px: Price(px),
                qty: Qty(qty),
                side: Aggressor::Buy,
                id: TradeId::None,
            };
            if RULES.check_trade(&trade).is_ok() {
                // A trade that would overflow a sum is refused.
                let _refused = derive.on_trade(source, id, &trade, out);
            }
        }
        3 => _ = derive.on_mark(source, operations.time()?, out),
        4 => derive.on_quote(id, operations.time()?, out),
        5 => {
            let states = [
                TradingState::Live,
                TradingState::Halted,
                TradingState::Closed,
            ];
            let state = states[usize::from(operations.byte()?) % 3];
            derive.on_trading(id, state, operations.time()?, out);
        }
        6 => derive.on_source_lost(source, out),
        _ => drop(derive.on_start_over(source).count()),
    }
    Some(())
}
