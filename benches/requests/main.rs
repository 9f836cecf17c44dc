//! Processor time of the most expensive legal request of each op at the default limits: `cargo
//! bench
//! --bench requests`; `-- flood` measures the pings of neighbours only.
//!
//! Each request is executed as by a shard: it is decoded, its slices are answered, the responses
//! are encoded, and the topics are subscribed. The longest slice is the maximum that one turn of a
//! shard spends on it; the sum is the time of all of its slices.

#![expect(clippy::print_stdout, reason = "it prints a table")]

mod flood;

use std::sync::Arc;
use std::time::Duration;
use tickcast::limits::{HistoryLimits, OutboxLimits};

use tickcast::access::{InstrumentList, Principal};
use tickcast::clock::thread_cpu_time;
use tickcast::log::{Catalog, LogItem, Replica, SourceId};
use tickcast::market::{Instrument, SourceKind, Symbol, UnixNanos};
use tickcast::outbox::{Counts, LastValueCache, Outbox, View};
use tickcast::protocol::{Encoding, Epoch, Limits};
use tickcast::session::{Action, Session};

const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
const OUTBOX: OutboxLimits = OutboxLimits {
    outbox_bytes: 1 << 20,
    control_bytes: 1 << 16,
    frame_bytes: 256 << 10,
    behind_max: Duration::from_secs(10),
};
const LIMITS: Limits = Limits {
    topics: 1024,
    requests_per_s: 10,
    message_bytes: 64 << 10,
    snapshot_events: 1000,
};
const INSTRUMENTS: usize = 20_000;
const RUNS: usize = 15;

struct Rig {
    session: Session,
    outbox: Outbox,
    replica: Replica,
    last_values: LastValueCache,
    counts: Counts,
    now: UnixNanos,
}

/// Time of the longest slice of a request, time of all slices, and number of slices.
type Cost = (Duration, Duration, usize);

impl Rig {
    fn new(catalog: &Arc<Catalog>) -> Self {
        let history = HistoryLimits {
            events: 100,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        };
        let mut replica = Replica::new(
            Epoch {
                origin: 1,
                generation: 0,
            },
            history,
        );
        let topics = LogItem::Topics {
            new: 0..catalog.len() as u32,
            instruments: Vec::new(),
            restored: Vec::new(),
        };
        replica.apply(&topics, catalog);
        Self {
            session: Session::new(Arc::new(LIMITS), NOW),
            outbox: Outbox::new(Encoding::Json, OUTBOX.frame_bytes),
            replica,
            last_values: LastValueCache::default(),
            counts: Counts::default(),
            now: NOW,
        }
    }

    fn execute(&mut self, payload: &[u8]) -> Cost {
        assert!(
            payload.len() <= LIMITS.message_bytes as usize,
            "the request exceeds the message limit"
        );
        self.now = self.now.plus(Duration::from_secs(60));
        let (mut longest, mut sum, mut slices) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let begun = thread_cpu_time();
            let view = tickcast::session::View {
                replica: &self.replica,
                principal: &Principal::Everyone,
                held: &self.outbox,
                now: self.now,
            };
            let actions = if slices == 0 {
                self.session.on_request(payload, Encoding::Json, view)
            } else {
                self.session.go_on(view)
            };
            for action in actions {
                self.act(action);
            }
            let took = thread_cpu_time().saturating_sub(begun);
            (longest, sum, slices) = (longest.max(took), sum + took, slices + 1);
            if !self.session.is_busy() {
                return (longest, sum, slices);
            }
        }
    }

    fn act(&mut self, action: Action) {
        let mut timers = Vec::new();
        let mut view = View {
            replica: &self.replica,
            last_values: &mut self.last_values,
            limits: &OUTBOX,
            counts: &mut self.counts,
            now: self.now,
            timers: &mut timers,
        };
        let outbox = &mut self.outbox;
        match action {
            Action::Respond(control) | Action::Notify(control) => outbox.respond(control),
            Action::Subscribe(topic, settings, join) => {
                outbox.subscribe(topic, settings, join, &mut view);
            }
            Action::Modify(topic, settings) => {
                if let Some(slot) = outbox.slot_of(topic) {
                    outbox.modify(slot, settings, &mut view);
                }
            }
            Action::Snapshot(topic, events) => {
                if let Some(slot) = outbox.slot_of(topic) {
                    outbox.snapshot(slot, events, &mut view);
                }
            }
            Action::Unsubscribe(topic) => _ = outbox.unsubscribe(topic),
            Action::Ledger(id) => outbox.respond_ledger(id),
            Action::Instruments(id, pattern) => {
                let catalog = Arc::clone(self.replica.catalog());
                let list = InstrumentList::new(catalog, &Principal::Everyone, &pattern);
                outbox.respond_instruments(id, list);
            }
            Action::LimitMessages(bytes) => outbox.frames.limit_messages(bytes),
            Action::Authenticate(_) | Action::Close(..) => {}
        }
    }

    /// Drains the outbox into frames, one or two at a time, as for a writable socket; returns costs
    /// like [`Self::execute`].
    fn drain(&mut self) -> Cost {
        let (mut longest, mut sum, mut fills) = (Duration::ZERO, Duration::ZERO, 0);
        loop {
            let mut timers = Vec::new();
            let mut view = View {
                replica: &self.replica,
                last_values: &mut self.last_values,
                limits: &OUTBOX,
                counts: &mut self.counts,
                now: self.now,
                timers: &mut timers,
            };
            let begun = thread_cpu_time();
            view.counts.begin_flush();
            let is_over = self.outbox.fill(&mut view);
            let took = thread_cpu_time().saturating_sub(begun);
            (longest, sum, fills) = (longest.max(took), sum + took, fills + 1);
            self.outbox.frames.seal();
            let len = self.outbox.frames.len();
            self.outbox.frames.advance(len);
            if is_over {
                return (longest, sum, fills);
            }
        }
    }
}

fn catalog() -> Arc<Catalog> {
    let instrument = |n: usize| {
        Instrument::new(
            Symbol::new(&symbol(n)).expect("valid symbol"),
            SourceKind::Sim,
        )
    };
    let mut catalog = Catalog::new(vec!["sim".into()]);
    catalog.add(SourceId(0), (0..INSTRUMENTS).map(instrument).collect());
    Arc::new(catalog)
}

fn list(texts: impl Iterator<Item = String>) -> String {
    texts
        .map(|text| format!("\"{text}\""))
        .collect::<Vec<_>>()
        .join(",")
}

fn topics(op: &str, names: impl Iterator<Item = String>) -> Vec<u8> {
    let names = list(names);
    format!("{{\"op\":\"{op}\",\"mode\":\"conflate\",\"topics\":[{names}]}}").into_bytes()
}

/// Symbols of many lengths with common prefixes.
fn symbol(n: usize) -> String {
    format!("{}{n:05}", "A".repeat(n % 24))
}

fn held(n: usize) -> String {
    format!("quote:{}", symbol(n))
}

/// Measured request: its name, the requests before it, and its payload.
type Case = (&'static str, Vec<Vec<u8>>, Vec<u8>);

fn subscribe_cases() -> Vec<Case> {
    let all = || topics("subscribe", (0..1024).map(held));
    let nothing = |n: usize| format!("bar:Z{n}*:1m");
    let unrelated = {
        let names = list((0..2_800).map(|n| format!("a:{n}*")));
        let seqs: Vec<_> = (0..3_600).map(|n| format!("\"a:{n}\":0")).collect();
        let from = format!("{{\"epoch\":\"0\",\"seqs\":{{{}}}}}", seqs.join(","));
        format!("{{\"op\":\"subscribe\",\"topics\":[{names}],\"from\":{from}}}").into_bytes()
    };
    let refused_patterns = {
        let names = list((0..1_900).map(|n| format!("status:{n}*")));
        let seqs: Vec<_> = (0..1_900).map(|n| format!("\"trade:{n}\":0")).collect();
        let from = format!("{{\"epoch\":\"0\",\"seqs\":{{{}}}}}", seqs.join(","));
        format!("{{\"op\":\"subscribe\",\"snapshot\":9,\"topics\":[{names}],\"from\":{from}}}")
            .into_bytes()
    };
    let resume = {
        let seqs: Vec<_> = (0..1024).map(|n| format!("\"{}\":0", held(n))).collect();
        let from = format!(
            "{{\"epoch\":\"0000000000000001\",\"seqs\":{{{}}}}}",
            seqs.join(",")
        );
        format!(
            "{{\"op\":\"subscribe\",\"topics\":[{}],\"from\":{from}}}",
            list((0..1024).map(held))
        )
        .into_bytes()
    };
    vec![
        ("subscribe: 1,024 topics", vec![], all()),
        (
            "subscribe: 8,500 invalid topic names",
            vec![],
            topics("subscribe", (0..8_500).map(|n| format!("{n:x}"))),
        ),
        ("subscribe, atomic: 8,500 invalid topic names", vec![], {
            let names = list((0..8_500).map(|n| format!("{n:x}")));
            format!("{{\"op\":\"subscribe\",\"atomic\":true,\"topics\":[{names}]}}").into_bytes()
        }),
        (
            "subscribe: 4,700 unknown topics",
            vec![],
            topics("subscribe", (0..4_700).map(|n| format!("trade:{n:x}"))),
        ),
        (
            "subscribe: new patterns without matches",
            vec![],
            topics("subscribe", (0..4_000).map(nothing)),
        ),
        (
            "subscribe: rejected names, unrelated resume positions",
            vec![],
            unrelated,
        ),
        (
            "subscribe: rejected patterns, unrelated resume positions",
            vec![],
            refused_patterns,
        ),
        ("subscribe: resume", vec![], resume),
        ("subscribe: 3,000 epochs", vec![], {
            let epochs: Vec<_> = (0..3_000).map(|n| format!("\"trade:{n}\":\"0\"")).collect();
            let from = format!("{{\"epoch\":\"0\",\"epochs\":{{{}}}}}", epochs.join(","));
            format!("{{\"op\":\"subscribe\",\"topics\":[],\"from\":{from}}}").into_bytes()
        }),
    ]
}

/// Cases of the other ops.
fn other_cases() -> Vec<Case> {
    let all = || topics("subscribe", (0..1024).map(held));
    let nothing = |n: usize| format!("bar:Z{n}*:1m");
    let deep: Vec<_> = (0..24)
        .map(|n| format!("quote:{}*", "A".repeat(n)))
        .collect();
    vec![
        (
            "modify: 1,024 topics",
            vec![all()],
            topics("modify", (0..1024).map(held)),
        ),
        (
            "modify: 8,500 invalid topic names",
            vec![],
            topics("modify", (0..8_500).map(|n| format!("{n:x}"))),
        ),
        (
            "resync: 1,024 topics",
            vec![all()],
            topics("resync", (0..1024).map(held)),
        ),
        (
            "unsubscribe: 1,024 topics",
            vec![all()],
            topics("unsubscribe", (0..1024).map(held)),
        ),
        (
            "unsubscribe: all",
            vec![all()],
            br#"{"op":"unsubscribe","all":true}"#.to_vec(),
        ),
        (
            "subscriptions: 1,024 topics, 1,024 patterns",
            vec![
                all(),
                topics("subscribe", deep.into_iter()),
                topics("subscribe", (0..1024).map(nothing)),
            ],
            br#"{"op":"subscriptions"}"#.to_vec(),
        ),
        (
            "ledger: 1,024 topics",
            vec![all()],
            br#"{"op":"ledger"}"#.to_vec(),
        ),
        (
            "instruments: 20,000",
            vec![],
            br#"{"op":"instruments"}"#.to_vec(),
        ),
        ("ping with 64 KiB of other fields", vec![], {
            let others: Vec<_> = (0..7_000).map(|n| format!("\"{n}\":0")).collect();
            format!("{{\"op\":\"ping\",\"t\":1,{}}}", others.join(",")).into_bytes()
        }),
        (
            "invalid request: a list of 32,000 numbers",
            vec![],
            format!("[{}0]", "0,".repeat(32_000)).into_bytes(),
        ),
    ]
}

fn main() {
    if !std::env::args().any(|argument| argument == "flood") {
        table();
    }
    flood::run();
}

/// Prints the cost of each request.
fn table() {
    let catalog = catalog();
    println!(
        "| request | longest slice, ms | all slices, ms | slices | longest fill, ms | all fills, ms |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, before, payload) in subscribe_cases().into_iter().chain(other_cases()) {
        let mut costs: Vec<(Cost, Cost)> = (0..RUNS)
            .map(|_| {
                let mut rig = Rig::new(&catalog);
                for request in &before {
                    rig.execute(request);
                    rig.drain();
                }
                (rig.execute(&payload), rig.drain())
            })
            .collect();
        costs.sort_by_key(|(execution, _)| execution.0);
        let ((longest, sum, slices), (longest_fill, fills, _)) = costs[RUNS / 2];
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "| {name} | {:.3} | {:.2} | {slices} | {:.3} | {:.2} |",
            ms(longest),
            ms(sum),
            ms(longest_fill),
            ms(fills)
        );
    }
}
