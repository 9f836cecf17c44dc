//! The work of one flush for one client alone, by counts.

use std::sync::Arc;
use std::time::Duration;

use crate::access::{InstrumentList, Principal};
use crate::limits::{HistoryLimits, OutboxLimits};
use crate::log::{Catalog, LogItem, Replica, SourceId, TopicId};
use crate::market::{Instrument, SourceKind, Symbol, UnixNanos};
use crate::outbox::{Counts, LastValueCache, Outbox, View};
use crate::protocol::{
    Code, Control, Encoding, Entry, Epoch, Refusal, Settings, Subscriptions, TopicsChange,
};
use crate::session::Join;
use crate::topic::Channel;

const LIMITS: OutboxLimits = OutboxLimits {
    outbox_bytes: 1 << 20,
    control_bytes: 1 << 16,
    frame_bytes: 256 << 10,
    behind_max: Duration::from_secs(10),
};

fn catalog(instruments: usize) -> Arc<Catalog> {
    let instrument = |n: usize| Instrument {
        symbol: Symbol::new(&format!("S{n:05}")).expect("letters and digits"),
        venue_symbol: None,
        description: "x".repeat(40),
        price_scale: 2,
        qty_scale: 0,
        src: SourceKind::Sim,
        has_trades: true,
        has_quotes: true,
        stale_after: None,
        session_start: Duration::ZERO,
    };
    let mut catalog = Catalog::new(vec!["sim".into()]);
    catalog.add(SourceId(0), (0..instruments).map(instrument).collect());
    Arc::new(catalog)
}

/// The bytes that each flush puts on the wire until nothing waits, the socket taking all of it at
/// once.
fn flushes(instruments: usize, ask: impl Fn(&mut Outbox, &mut View<'_>)) -> Vec<String> {
    let catalog = catalog(instruments);
    let history = HistoryLimits {
        events: 10,
        bytes: usize::MAX,
        age: Duration::MAX,
    };
    let mut replica = Replica::new(
        Epoch {
            origin: 7,
            generation: 0,
        },
        history,
    );
    let new = 0..catalog.len() as u32;
    let (instruments, restored) = (Vec::new(), Vec::new());
    replica.apply(
        &LogItem::Topics {
            instruments,
            new,
            restored,
        },
        &catalog,
    );
    let (mut newest, mut timers) = (LastValueCache::default(), Vec::new());
    let mut counts = Counts::default();
    let mut view = View {
        replica: &replica,
        last_values: &mut newest,
        limits: &LIMITS,
        counts: &mut counts,
        now: UnixNanos(1_767_225_600_000_000_000),
        timers: &mut timers,
    };
    let mut outbox = Outbox::new(Encoding::Json, LIMITS.frame_bytes);
    ask(&mut outbox, &mut view);
    let mut flushes = Vec::new();
    loop {
        view.counts.begin_flush();
        let mut written = String::new();
        let is_last = loop {
            let is_last = outbox.fill(&mut view);
            outbox.frames.seal();
            written += &String::from_utf8_lossy(outbox.frames.unsent());
            outbox.frames.advance(outbox.frames.len());
            if is_last || view.counts.has_worked_enough() {
                break is_last;
            }
        };
        flushes.push(written);
        if is_last {
            return flushes;
        }
    }
}

#[test]
fn a_flush_lists_a_bounded_number_of_instruments() {
    for (pattern, listed) in [("*", 5_000), ("S01*", 1_000), ("S00007", 1), ("X*", 0)] {
        let flushes = flushes(5_000, |outbox, view| {
            let catalog = Arc::clone(view.replica.catalog());
            let list = InstrumentList::new(catalog, &Principal::Everyone, pattern);
            outbox.respond_instruments(None, list);
        });
        let count = |flush: &String| flush.matches("\"channels\"").count();
        assert_eq!(
            flushes.iter().map(count).sum::<usize>(),
            listed,
            "{pattern}"
        );
        let most = flushes.iter().map(count).max().unwrap_or_default();
        assert!(most <= 512, "{most} instruments in one flush");
    }
}

#[test]
fn a_flush_makes_a_bounded_number_of_snapshots() {
    let flushes = flushes(3_000, |outbox, view| {
        for topic in (0..view.replica.len() as u32).map(TopicId) {
            let channel = view.replica.catalog().topic(topic).topic.channel;
            if channel == Channel::Quote {
                let settings = Settings::default_of(channel);
                outbox.subscribe(topic, settings, Join::Snapshot(1), view);
            }
        }
    });
    let count = |flush: &String| flush.matches("\"op\":\"snapshot\"").count();
    assert_eq!(flushes.iter().map(count).sum::<usize>(), 3_000);
    let most = flushes.iter().map(String::len).max().unwrap_or_default();
    assert!(most <= 192 << 10, "{most} bytes were made in one flush");
}

#[test]
fn a_flush_encodes_a_bounded_number_of_responses() {
    let answers = 40;
    let flushes = flushes(1, |outbox, _| {
        for _ in 0..answers {
            outbox.respond(Control::Subscriptions(Subscriptions {
                id: None,
                ok: vec![
                    Entry::new(
                        "quote:S00000".to_owned(),
                        Settings::default_of(Channel::Quote)
                    );
                    200
                ],
                count: 200,
                more: false,
            }));
        }
    });
    let count = |flush: &String| flush.matches("\"op\":\"subscriptions\"").count();
    assert_eq!(flushes.iter().map(count).sum::<usize>(), answers);
    let most = flushes.iter().map(String::len).max().unwrap_or_default();
    assert!(most <= 192 << 10, "{most} bytes were encoded in one flush");
}

#[test]
fn new_topics_do_not_pause_reading() {
    _ = flushes(1_000, |outbox, view| {
        assert!(outbox.has_room_for_change(&LIMITS));
        let long = "x".repeat(2 * LIMITS.control_bytes);
        let change = TopicsChange {
            added: Vec::new(),
            removed: vec![Refusal::new("trade:X", Code::UnknownTopic, long)],
            err: Vec::new(),
            more: false,
        };
        outbox.notify_change(Control::Topics(change));
        for topic in (0..view.replica.len() as u32).map(TopicId) {
            let channel = view.replica.catalog().topic(topic).topic.channel;
            if channel == Channel::Quote {
                let settings = Settings::default_of(channel);
                outbox.subscribe(topic, settings, Join::Offered(1), view);
            }
        }
        assert!(!outbox.responses_wait() && outbox.requested_bytes() == 0);
        assert!(outbox.queued_bytes() > 2 * LIMITS.control_bytes + 1_000 * 64);
        assert!(
            !outbox.has_room_for_change(&LIMITS),
            "a client that takes none of them is sent away"
        );
    });
}
