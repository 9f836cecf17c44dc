//! Throughput from the simulator through the bus to encoded batches, on one core: source events per
//! second.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tickcast::bus::{Bus, Emit, RestoredState, SourceSpec, input_queue};
use tickcast::clock::Clock;
use tickcast::config::{Config, SourceDetails};
use tickcast::log::{Log, Next, SourceId};
use tickcast::market::UnixNanos;
use tickcast::metrics::Metrics;
use tickcast::protocol::{Encoding, Epoch};
use tickcast::source::sim::{Market, SimConfig, SimInstrument};

const EVENTS: usize = 200_000;
const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

fn market(instruments: usize) -> SimConfig {
    let list: Vec<_> = (0..instruments)
        .map(|n| format!("{{symbol: S{n}, start: 100, rate: 10000/s}}"))
        .collect();
    let text = format!(
        "sources: [{{name: sim, kind: sim, instruments: [{}]}}]",
        list.join(", ")
    );
    let config = Config::parse(&text, "bench").expect("valid config");
    match config
        .sources
        .into_iter()
        .next()
        .map(|source| source.details)
    {
        Some(SourceDetails::Sim(sim)) => sim,
        _ => unreachable!("the source is simulated"),
    }
}

fn simulated(config: &SimConfig) -> Vec<Emit> {
    let mut market = Market::new(config, START);
    let mut events = Vec::with_capacity(EVENTS);
    while events.len() < EVENTS {
        let now = market.next_due();
        market.advance(now, &mut events, EVENTS);
    }
    events
}

/// Publishes the events through a bus on this thread, and encodes each batch.
fn publish(config: &SimConfig, events: Vec<Emit>) -> usize {
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let log = Log::new(1 << 30, 0);
    let spec = SourceSpec {
        name: "sim".into(),
        stale_after: std::time::Duration::from_secs(3600),
        is_present: true,
        config: bytes::Bytes::new(),
    };
    let bus = Bus::new(
        clock,
        Arc::clone(&log),
        Arc::clone(&metrics),
        vec![spec],
        Epoch {
            origin: 1,
            generation: 0,
        },
        RestoredState::default(),
    );
    let (emitter, queue) = input_queue(1 << 30, clock);
    let source = emitter.of(SourceId(0));
    let instruments = config
        .instruments
        .iter()
        .map(SimInstrument::instrument)
        .collect();
    source
        .try_emit_pieces(vec![vec![Emit::Instruments(instruments)]])
        .expect("the queue has room");
    let pieces = events
        .chunks(tickcast::bus::EMITTED_MAX)
        .map(<[Emit]>::to_vec)
        .collect();
    source.try_emit_pieces(pieces).expect("the queue has room");
    drop((source, emitter));
    bus.run(queue);
    let batches = (0..log.head()).filter_map(|number| match log.read(number) {
        Next::Batch(batch) => Some(batch),
        Next::Empty | Next::Overrun => None,
    });
    batches
        .map(|batch| {
            batch
                .encode(Encoding::Msgpack)
                .0
                .item(batch.items.len() - 1)
                .len()
        })
        .sum()
}

fn pipeline(criterion: &mut Criterion) {
    let config = market(100);
    let mut group = criterion.benchmark_group("pipeline");
    group
        .throughput(Throughput::Elements(EVENTS as u64))
        .sample_size(10);
    group.bench_function("simulate", |bencher| bencher.iter(|| simulated(&config)));
    let events = simulated(&config);
    group.bench_function("publish_and_encode", |bencher| {
        bencher.iter_batched(
            || events.clone(),
            |events| publish(&config, events),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("simulate_publish_and_encode", |bencher| {
        bencher.iter(|| publish(&config, simulated(&config)));
    });
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
