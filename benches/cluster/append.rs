//! Rate at which an uplink appends to the log, by events per record, and the latency of an append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prometheus::core::Collector as _;
use tickcast::bus::{Bus, Emit, Emitter, InputQueue, RestoredState, SourceSpec, input_queue};
use tickcast::clock::Clock;
use tickcast::cluster::{
    ClusterSettings, ClusterStatus, Command, Follower, Store, Uplink, UplinkParts,
};
use tickcast::config::{Config, SourceDetails};
use tickcast::log::{Batch, Catalog, Event, Log, LogItem, Next, Pace, SourceId};
use tickcast::metrics::{Histogram, Metrics};
use tickcast::protocol::Epoch;
use tickcast::source::sim::{Market, SimInstrument};
use tokio::sync::mpsc;

use crate::latency::{PUBLISHER, market};
use crate::process::Cluster;
use crate::report::Report;
use crate::{ENGINES, Engine, Span};

const ORIGIN: u64 = 1;
/// Events of a record.
const SIZES: [usize; 4] = [1, 10, 100, 1000];
/// Records per second of the paced case.
const PACED: f64 = 1_000.0;
/// Events that are appended again and again: a record of them is compressed for itself.
const EVENTS: usize = 100_000;
/// Memory of the log of the process.
const LOG_BYTES: usize = 256 << 20;
const BATCHES_MAX: usize = 8192;

/// The built-in market's kind of events: trades, quotes, and what the bus derives from them.
fn market_events() -> Result<(Vec<Event>, Arc<Catalog>)> {
    let list: Vec<String> = (0..100)
        .map(|n| format!("{{symbol: S{n}-USD, start: 100, rate: 100/s}}"))
        .collect();
    let text = format!(
        "sources: [{{name: sim, kind: sim, instruments: [{}]}}]",
        list.join(", ")
    );
    let source = Config::parse(&text, "bench")?.sources.pop();
    let Some(SourceDetails::Sim(sim)) = source.map(|source| source.details) else {
        anyhow::bail!("the source is simulated");
    };
    let clock = Clock::start();
    let log = Log::new(LOG_BYTES, 0);
    let spec = SourceSpec {
        name: "sim".into(),
        stale_after: Duration::from_secs(3600),
        is_present: true,
        config: bytes::Bytes::new(),
    };
    let epoch = Epoch {
        origin: ORIGIN,
        generation: 0,
    };
    let metrics = Arc::new(Metrics::new());
    let state = RestoredState::default();
    let bus = Bus::new(clock, Arc::clone(&log), metrics, vec![spec], epoch, state);
    let (emitter, queue) = input_queue(LOG_BYTES, clock);
    let source = emitter.of(SourceId(0));
    let instruments = sim.instruments.iter().map(SimInstrument::instrument);
    let mut market = Market::new(&sim, clock.now());
    let mut emits = Vec::new();
    while emits.len() < EVENTS {
        let due = market.next_due();
        market.advance(due, &mut emits, EVENTS);
    }
    let pieces = emits
        .chunks(tickcast::bus::EMITTED_MAX)
        .map(<[Emit]>::to_vec);
    let announced = vec![Emit::Instruments(instruments.collect())];
    let pieces = std::iter::once(announced).chain(pieces).collect();
    let queued = source.try_emit_pieces(pieces);
    ensure!(queued.is_ok(), "the queue has room");
    drop((source, emitter));
    bus.run(queue);
    let mut events = Vec::new();
    let mut catalog = None;
    for number in 0..log.head() {
        let Next::Batch(batch) = log.read(number) else {
            continue;
        };
        catalog = Some(Arc::clone(&batch.catalog));
        events.extend(batch.items.iter().filter_map(|item| match item {
            LogItem::Event(event) => Some(event.clone()),
            _ => None,
        }));
    }
    Ok((events, catalog.context("a batch")?))
}

/// An uplink that appends what a log of this process contains.
struct Writer {
    store: Arc<Store>,
    log: Arc<Log>,
    pace: Arc<Pace>,
    times: Histogram,
    task: tokio::task::JoinHandle<()>,
    /// Requests and bus, which nobody uses.
    _idle: (mpsc::Sender<Command>, Emitter, InputQueue),
}

impl Writer {
    async fn start(settings: &ClusterSettings) -> Result<Self> {
        let clock = Clock::start();
        let metrics = Metrics::new().add_cluster("publisher");
        let times = metrics.appends.time.clone();
        let status = Arc::new(ClusterStatus::new(metrics));
        let store = Arc::new(Store::open(settings, Arc::clone(&status), true).await?);
        let (bus, queue) = input_queue(1 << 20, clock);
        let log = Log::new(LOG_BYTES, 1);
        let pace = Arc::new(Pace::new(settings.buffer, BATCHES_MAX));
        let mut follower = Follower::new(
            Arc::<Store>::clone(&store),
            clock,
            bus.clone(),
            Arc::clone(&status),
            Epoch::first(ORIGIN),
            settings.clone(),
        );
        let mut live = follower.start().await?;
        let claimed = follower.stand_by(&mut live).await?;
        let (commands, received) = mpsc::channel(1);
        let parts = UplinkParts {
            store: Arc::<Store>::clone(&store),
            clock,
            bus: bus.clone(),
            log: Arc::clone(&log),
            reader: 0,
            pace: Arc::clone(&pace),
            status,
            commands: received,
        };
        let uplink = Uplink::new(parts, settings, claimed, 0);
        let task = tokio::spawn(async move {
            if let Err(error) = uplink.run().await {
                println!("  the uplink ended: {error}");
            }
        });
        Ok(Self {
            store,
            log,
            pace,
            times,
            task,
            _idle: (commands, bus, queue),
        })
    }
}

/// Publishes batches of `size` events until it is stopped; at a rate if one is given.
#[expect(
    clippy::disallowed_methods,
    reason = "a pace of its own, on its own thread"
)]
fn publish(
    (events, catalog): &(Vec<Event>, Arc<Catalog>),
    size: usize,
    writer: (Arc<Log>, Arc<Pace>),
    records_per_s: Option<f64>,
    stop: &AtomicBool,
) {
    let (log, pace) = writer;
    let clock = Clock::start();
    let mut due = clock.now();
    for chunk in events.chunks_exact(size).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let items = chunk.iter().cloned().map(LogItem::Event).collect();
        let batch = Batch::new(items, Arc::clone(catalog));
        pace.add(batch.footprint());
        log.publish(batch);
        if let Some(rate) = records_per_s {
            due = due.plus(Duration::from_secs_f64(1.0 / rate));
            std::thread::sleep(due.since(clock.now()));
        }
    }
}

/// Events per second, and the median latency of an append in milliseconds.
fn measure(
    cluster: &Cluster,
    events: &Arc<(Vec<Event>, Arc<Catalog>)>,
    size: usize,
    records_per_s: Option<f64>,
    span: Span,
) -> Result<[f64; 2]> {
    let config = cluster.config("bench", PUBLISHER, &market(1.0));
    let settings = Config::parse(&config, "bench")?
        .cluster
        .context("section")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let writer = Writer::start(&settings).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let publisher = {
            let (events, stop) = (Arc::clone(events), Arc::clone(&stop));
            let to = (Arc::clone(&writer.log), Arc::clone(&writer.pace));
            std::thread::spawn(move || publish(&events, size, to, records_per_s, &stop))
        };
        let clock = Clock::start();
        clock
            .sleep_until(clock.now().plus(Duration::from_secs(1)))
            .await;
        let (from, since) = (writer.store.last().await?, clock.now());
        clock.sleep_until(since.plus(span.measured)).await;
        let (to, until) = (writer.store.last().await?, clock.now());
        let median = median(&writer.times).context("no append was measured")?;
        stop.store(true, Ordering::Relaxed);
        writer.pace.release();
        ensure!(publisher.join().is_ok(), "the publisher panicked");
        writer.task.abort();
        let records = (to - from) as f64;
        let seconds = until.since(since).as_secs_f64();
        Ok([records * size as f64 / seconds, median * 1e3])
    })
}

/// Median of a histogram in seconds, interpolated within its bucket.
fn median(times: &Histogram) -> Option<f64> {
    let families = times.collect();
    let metric = families.first()?.get_metric().first()?.get_histogram();
    let half = metric.get_sample_count() as f64 / 2.0;
    let (mut below, mut bound) = (0.0, 0.0);
    for bucket in metric.get_bucket() {
        let (count, upper) = (bucket.cumulative_count() as f64, bucket.upper_bound());
        if count >= half && count > below {
            return Some(bound + (upper - bound) * (half - below) / (count - below));
        }
        (below, bound) = (count, upper);
    }
    None
}

fn wanted(engine: Engine, size: usize) -> &'static str {
    match (engine.servers, engine.sync, size) {
        (1, _, 100) => "≥ 1 M",
        (_, "always", 100) => "≥ 200 k",
        (3, _, 100) => "≥ 300 k",
        _ => "",
    }
}

pub(crate) fn run(span: Span, report: &mut Report) -> Result<()> {
    let events = Arc::new(market_events()?);
    for engine in ENGINES {
        for size in SIZES {
            let mut rates = Vec::new();
            for _ in 0..span.rounds {
                let cluster = engine.start()?;
                rates.push(measure(&cluster, &events, size, None, span)?[0]);
            }
            let what = format!("append, {}, events a record: {size}", engine.name);
            report.add(what, rates, "events/s", wanted(engine, size));
        }
        let mut medians = Vec::new();
        for _ in 0..span.rounds {
            let cluster = engine.start()?;
            medians.push(measure(&cluster, &events, 100, Some(PACED), span)?[1]);
        }
        let what = format!("append, {}, 1,000 records/s: p50", engine.name);
        let wanted = if engine.sync == "always" {
            "≤ 5 ms"
        } else {
            ""
        };
        report.add(what, medians, "ms", wanted);
    }
    Ok(())
}
