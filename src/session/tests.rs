//! Cost of requests, measured as CPU time of this thread, which is independent of other load on the
//! machine.

use crate::limits::HistoryLimits;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Action, Held, Session, View};
use crate::access::Principal;
use crate::clock::thread_cpu_time;
use crate::log::{Catalog, LogItem, Replica, SourceId, TopicId};
use crate::market::{Instrument, SourceKind, Symbol, UnixNanos};
use crate::protocol::{Control, Encoding, Epoch, Limits};

const LIMITS: Limits = Limits {
    topics: 1024,
    requests_per_s: 10,
    message_bytes: 64 * 1024,
    snapshot_events: 1000,
};

struct Rig {
    session: Session,
    replica: Replica,
    held: BTreeSet<TopicId>,
    now: UnixNanos,
}

impl Rig {
    /// Market with symbols of all lengths, so that many patterns match many of them.
    fn new() -> Self {
        let history = HistoryLimits {
            events: 10,
            bytes: usize::MAX,
            age: Duration::MAX,
        };
        let now = UnixNanos(1_767_225_600_000_000_000);
        let mut rig = Self {
            session: Session::new(Arc::new(LIMITS), now),
            replica: Replica::new(
                Epoch {
                    origin: 7,
                    generation: 0,
                },
                history,
            ),
            held: BTreeSet::new(),
            now,
        };
        rig.announce((0..1_500).map(|n| format!("{}{n:04}", "A".repeat(n % 28))));
        rig
    }

    /// Adds instruments; returns the numbers of their topics.
    fn announce(&mut self, symbols: impl Iterator<Item = String>) -> Range<u32> {
        let instrument = |symbol: String| {
            Instrument::new(
                Symbol::new(&symbol).expect("letters and digits"),
                SourceKind::Sim,
            )
        };
        let mut catalog = Catalog::clone(self.replica.catalog());
        let first = catalog.len() as u32;
        catalog.add(SourceId(0), symbols.map(instrument).collect());
        let new = first..catalog.len() as u32;
        let item = LogItem::Topics {
            new: new.clone(),
            instruments: Vec::new(),
            restored: Vec::new(),
        };
        self.replica.apply(&item, &Arc::new(catalog));
        new
    }

    fn hold(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Subscribe(topic, ..) => assert!(self.held.insert(*topic)),
                Action::Unsubscribe(topic) => assert!(self.held.remove(topic)),
                _ => {}
            }
        }
    }

    /// Handles one message; returns its slices, and the CPU time of the longest slice and of all.
    fn ask(&mut self, payload: &[u8]) -> (Vec<Vec<Action>>, Duration) {
        assert!(payload.len() <= LIMITS.message_bytes as usize);
        self.now = self.now.plus(Duration::from_secs(60));
        let mut slices = Vec::new();
        let before = thread_cpu_time();
        loop {
            let view = View {
                replica: &self.replica,
                principal: &Principal::Everyone,
                held: &self.held,
                now: self.now,
            };
            let actions = if slices.is_empty() {
                self.session.on_request(payload, Encoding::Json, view)
            } else {
                self.session.go_on(view)
            };
            self.hold(&actions);
            slices.push(actions);
            if !self.session.is_busy() {
                return (slices, thread_cpu_time().saturating_sub(before));
            }
        }
    }
}

/// Number of pings that are accepted at once after a request.
fn pings_after(payload: &[u8]) -> usize {
    let mut rig = Rig::new();
    rig.ask(payload);
    let is_pong = |action: &Action| matches!(action, Action::Respond(Control::Pong(_)));
    let mut accepts = || {
        let view = View {
            replica: &rig.replica,
            principal: &Principal::Everyone,
            held: &rig.held,
            now: rig.now,
        };
        let ping = br#"{"op":"ping","t":1}"#;
        let actions = rig.session.on_request(ping, Encoding::Json, view);
        actions.iter().any(is_pong)
    };
    (0..100).take_while(|_| accepts()).count()
}

#[test]
fn a_long_request_consumes_the_documented_share_of_the_rate_limit() {
    let burst = 5 * LIMITS.requests_per_s as usize;
    let short = br#"{"op":"ping","t":1}"#;
    assert_eq!(pings_after(short), burst - 1);
    let long = format!(
        "{{\"op\":\"ping\",\"t\":1,\"x\":\"{}\"}}",
        "x".repeat(64_000)
    );
    let parts = long.len() / (8 * 1024);
    assert_eq!(pings_after(long.as_bytes()), burst - 1 - parts, "bytes");
    let names: Vec<String> = (0..1_000).map(|n| format!("{n:x}")).collect();
    let slices = names.len().div_ceil(128);
    let request = request("subscribe", &names);
    assert!(request.len() < 8 * 1024);
    assert_eq!(pings_after(&request), burst - slices, "names");
    let instruments = 1_500 / 512;
    let request = br#"{"op":"instruments"}"#;
    assert_eq!(pings_after(request), burst - 1 - instruments, "instruments");
}

fn list(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// A number of names of every form with a cost: known and unknown topics, patterns and invalid
/// names.
fn names(count: usize) -> Vec<String> {
    let name = |n: usize| match n % 4 {
        0 => format!("quote:{}{:04}", "A".repeat(n % 28), n % 1_500),
        1 => format!("trade:X{n}"),
        2 => format!("quote:{n}*"),
        _ => format!("?{n}"),
    };
    (0..count).map(name).collect()
}

fn request(op: &str, names: &[String]) -> Vec<u8> {
    let topics = list(names.iter().map(|name| format!("\"{name}\"")));
    format!("{{\"op\":\"{op}\",\"mode\":\"raw\",\"topics\":[{topics}]}}").into_bytes()
}

/// A `subscribe` that takes effect completely or not at all.
fn atomic_request(names: &[String]) -> Vec<u8> {
    let topics = list(names.iter().map(|name| format!("\"{name}\"")));
    format!("{{\"op\":\"subscribe\",\"atomic\":true,\"topics\":[{topics}]}}").into_bytes()
}

/// Refused patterns, and names in `from.seqs` that none of them covers.
fn refused_and_stray(count: usize) -> Vec<u8> {
    let topics = list((0..count).map(|n| format!("\"status:{n}*\"")));
    let seqs = list((0..count).map(|n| format!("\"trade:{n}\":0")));
    let from = format!("{{\"epoch\":\"0\",\"seqs\":{{{seqs}}}}}");
    format!("{{\"op\":\"subscribe\",\"snapshot\":5,\"topics\":[{topics}],\"from\":{from}}}")
        .into_bytes()
}

/// CPU time of the request that `make` returns, the shortest of several runs.
fn cost(make: impl Fn(usize) -> Vec<u8>, count: usize) -> Duration {
    let mut rig = Rig::new();
    let payload = make(count);
    let shortest = (0..3).map(|_| rig.ask(&payload).1).min();
    shortest.unwrap_or_default().max(Duration::from_micros(100))
}

#[test]
fn the_cost_of_a_request_is_linear_in_its_names() {
    type Make = fn(usize) -> Vec<u8>;
    let cases: [(&str, Make); 6] = [
        ("refused and stray names", refused_and_stray),
        ("subscribe", |count| request("subscribe", &names(count))),
        ("unsubscribe", |count| request("unsubscribe", &names(count))),
        ("modify", |count| request("modify", &names(count))),
        ("resync", |count| request("resync", &names(count))),
        ("new patterns", |count| {
            let names: Vec<_> = (0..count).map(|n| format!("quote:B{n}*")).collect();
            request("subscribe", &names)
        }),
    ];
    for (what, make) in cases {
        let (few, many) = (cost(make, 220), cost(make, 8 * 220));
        // Linear growth is a factor of 8, the product of two lists 64.
        assert!(
            many < 24 * few,
            "{what}: {few:?} for some, {many:?} for eight times as many"
        );
    }
}

#[test]
fn unrelated_patterns_do_not_slow_down_responses() {
    let list = br#"{"op":"subscriptions"}"#;
    let with_patterns = |count: usize| {
        let mut rig = Rig::new();
        rig.ask(br#"{"op":"subscribe","topics":["ticker:AAAAAAAAAAAA*"]}"#);
        assert!(rig.held.count() > 500, "{} are held", rig.held.count());
        let patterns: Vec<_> = (0..count).map(|n| format!("ticker:B{n}*")).collect();
        rig.ask(&request("subscribe", &patterns));
        assert_eq!(rig.session.names.patterns(), count + 1);
        let shortest = (0..3).map(|_| rig.ask(list).1).min();
        shortest.unwrap_or_default().max(Duration::from_micros(200))
    };
    let (few, many) = (with_patterns(25), with_patterns(1_000));
    assert!(
        many < 8 * few,
        "{few:?} with 25 patterns, {many:?} with 1,000"
    );
}

fn entries(action: &Action) -> (usize, Vec<&str>) {
    let (ok, err, gone) = match action {
        Action::Respond(Control::Subscribed(part)) => (&part.ok, &part.err[..], &[][..]),
        Action::Respond(Control::Unsubscribed(part)) => (&part.ok, &part.err[..], &part.topics[..]),
        Action::Respond(Control::Subscriptions(part)) => (&part.ok, &[][..], &[][..]),
        _ => return (0, Vec::new()),
    };
    let names = ok.iter().map(|entry| entry.topic.as_str());
    let names = names.chain(err.iter().map(|refusal| refusal.topic.as_str()));
    let names = names.chain(gone.iter().map(String::as_str));
    let matched = ok.iter().filter_map(|entry| entry.matched.as_ref());
    let names: Vec<_> = names.collect();
    (names.len() + matched.map(Vec::len).sum::<usize>(), names)
}

#[test]
fn a_long_request_is_answered_in_slices_with_each_name_in_exactly_one_list() {
    let mut rig = Rig::new();
    let asked = names(1_600);
    let requests = [
        request("subscribe", &asked),
        request("modify", &asked),
        atomic_request(&asked),
        request("resync", &asked),
        br#"{"op":"subscriptions"}"#.to_vec(),
        br#"{"op":"subscribe","topics":["trade:AAAAAAAAAAAAAA*","ticker:AAAAAAAAAAAAAAAAAAAA*"]}"#
            .to_vec(),
        request("unsubscribe", &asked),
        br#"{"op":"unsubscribe","all":true}"#.to_vec(),
    ];
    for payload in requests {
        let (slices, _) = rig.ask(&payload);
        let text = String::from_utf8_lossy(&payload[..40.min(payload.len())]).into_owned();
        let answers: Vec<&Action> = slices
            .iter()
            .flatten()
            .filter(|action| matches!(action, Action::Respond(_)))
            .collect();
        let is_last = |action: &Action| match action {
            Action::Respond(Control::Subscribed(part)) => !part.more,
            Action::Respond(Control::Unsubscribed(part)) => !part.more,
            Action::Respond(Control::Subscriptions(part)) => !part.more,
            _ => false,
        };
        let ends: Vec<usize> = (0..answers.len())
            .filter(|at| is_last(answers[*at]))
            .collect();
        assert_eq!(
            ends,
            [answers.len() - 1],
            "{text}: only the last part says so"
        );
        for slice in &slices {
            let listed: usize = slice.iter().map(|action| entries(action).0).sum();
            assert!(
                listed <= 2 * super::SLICE + 1,
                "{text}: a slice lists {listed}"
            );
        }
        if text.contains("topics\":[\"") && !text.contains("AAAA") && !text.contains("unsub") {
            let named: Vec<&str> = answers.iter().flat_map(|part| entries(part).1).collect();
            let distinct: HashSet<&str> = named.iter().copied().collect();
            assert_eq!(named.len(), distinct.len(), "{text}: a name stands twice");
            assert_eq!(
                distinct,
                asked.iter().map(String::as_str).collect(),
                "{text}"
            );
        }
    }
    assert_eq!(rig.held.count(), 0);
}

#[test]
fn a_pattern_that_has_grown_beyond_the_limit_can_be_replaced() {
    let mut rig = Rig::new();
    rig.ask(br#"{"op":"subscribe","topics":["quote:Z*"]}"#);
    let new = rig.announce((0..1_100).map(|n| format!("Z{n:04}")));
    let view = View {
        replica: &rig.replica,
        principal: &Principal::Everyone,
        held: &rig.held,
        now: rig.now,
    };
    let actions = rig.session.on_topics(new.map(TopicId), view);
    rig.hold(&actions);
    assert_eq!(
        rig.held.count(),
        1_024,
        "the others are refused by `topics`"
    );
    let (slices, _) = rig.ask(br#"{"op":"subscribe","topics":["quote:Z*"],"mode":"conflate"}"#);
    let actions: Vec<&Action> = slices.iter().flatten().collect();
    let listed: usize = actions.iter().map(|action| entries(action).0).sum();
    let refused = actions.iter().any(
        |action| matches!(action, Action::Respond(Control::Subscribed(part)) if !part.err.is_empty()),
    );
    let set = actions
        .iter()
        .filter(|action| matches!(action, Action::Modify(..)))
        .count();
    assert!(!refused && set == 1_024, "{set} are set anew");
    assert!(listed >= 1_024 + slices.len(), "{listed} are listed");
}

#[test]
fn a_long_request_is_decoded_in_a_slice_of_its_own() {
    let mut rig = Rig::new();
    for (count, slices_at_least) in [(10, 1), (1_600, 7)] {
        let (slices, _) = rig.ask(&request("subscribe", &names(count)));
        assert_eq!(slices[0].is_empty(), count > 10, "{count} names");
        assert!(slices.len() >= slices_at_least, "{} slices", slices.len());
    }
}
