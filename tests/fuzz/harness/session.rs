//! Requests as a session executes them, over a market of some hundred instruments.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tickcast::access::Principal;
use tickcast::limits::HistoryLimits;
use tickcast::log::{Catalog, LogItem, Replica, SourceId, TopicId};
use tickcast::market::{Instrument, SourceKind, Symbol, UnixNanos};
use tickcast::protocol::{Control, Encoding, Epoch, Limits};
use tickcast::session::{Action, Held, Session, View};

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "session",
    check,
    work,
    // A response repeats each name with its settings or its error.
    memory: Memory {
        per_byte: 400,
        constant: 1 << 20,
    },
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"{\"op\":\"subscribe\",\"topics\":[\"quote:*\"]}\n",
        b"{\"op\":\"unsubscribe\",\"all\":true}\n",
        b"{\"op\":\"ledger\"}\n",
        b"\"status:A*\",",
        b"\"trade:A0007\",",
        b"\"trade:A0007\":7,",
        b"\"atomic\":true,",
        b"\"from\":{\"epoch\":\"0000000000000007-0\",\"seqs\":{",
        b"\"epochs\":{",
        b"\"snapshot\":100,",
        b"\"mode\":\"interval\",\"interval_ms\":100,",
        b"\"max_message\":4096,",
    ],
};

const INSTRUMENTS: usize = 200;
const LIMITS: Limits = Limits {
    topics: 300,
    requests_per_s: 10,
    message_bytes: 64 * 1024,
    snapshot_events: 1000,
};
const START: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

thread_local! {
    static REPLICA: Replica = replica();
}

fn replica() -> Replica {
    let instrument = |n: usize| {
        let symbol = Symbol::new(&format!("{}{n:04}", "A".repeat(n % 5))).expect("letters");
        Instrument::new(symbol, SourceKind::Sim)
    };
    let mut catalog = Catalog::new(vec!["sim".into()]);
    catalog.add(SourceId(0), (0..INSTRUMENTS).map(instrument).collect());
    let history = HistoryLimits {
        events: 10,
        bytes: usize::MAX,
        age: Duration::MAX,
    };
    let epoch = Epoch {
        origin: 7,
        generation: 0,
    };
    let mut replica = Replica::new(epoch, history);
    let topics = LogItem::Topics {
        new: 0..catalog.len() as u32,
        instruments: Vec::new(),
        restored: Vec::new(),
    };
    replica.apply(&topics, &Arc::new(catalog));
    replica
}

/// Actions concern only topics that are subscribed, never more than the limit, and errors are
/// printable.
pub(crate) fn check(bytes: &[u8]) {
    run(bytes, &mut |action, held| {
        match action {
            Action::Subscribe(topic, ..) => assert!(!held.holds(*topic), "{action:?}"),
            Action::Modify(topic, _) | Action::Snapshot(topic, _) | Action::Unsubscribe(topic) => {
                assert!(held.holds(*topic), "{action:?}");
            }
            Action::Respond(Control::Error(error)) => assert_printable(&error.message),
            Action::Respond(Control::Subscribed(answer)) => {
                for refusal in &answer.err {
                    assert_printable(&refusal.message);
                }
            }
            _ => {}
        }
        assert!(held.count() <= LIMITS.topics as usize);
    });
}

pub(crate) fn work(bytes: &[u8]) {
    run(bytes, &mut |_, _| {});
}

/// Executes the requests of an input: one in MessagePack, or one in JSON per line.
fn run(bytes: &[u8], on_action: &mut dyn FnMut(&Action, &BTreeSet<TopicId>)) {
    let (encoding, requests): (_, Vec<&[u8]>) = match bytes.first() {
        Some(0x80..) => (Encoding::Msgpack, vec![bytes]),
        _ => (Encoding::Json, bytes.split(|byte| *byte == b'\n').collect()),
    };
    REPLICA.with(|replica| {
        let (mut session, mut held) = (Session::new(Arc::new(LIMITS), START), BTreeSet::new());
        let mut now = START;
        for request in requests {
            now = now.plus(Duration::from_secs(60));
            let mut is_first = true;
            while is_first || session.is_busy() {
                let view = View {
                    replica,
                    principal: &Principal::Everyone,
                    held: &held,
                    now,
                };
                let actions = if is_first {
                    session.on_request(request, encoding, view)
                } else {
                    session.go_on(view)
                };
                is_first = false;
                for action in &actions {
                    on_action(action, &held);
                    match action {
                        Action::Subscribe(topic, ..) => _ = held.insert(*topic),
                        Action::Unsubscribe(topic) => _ = held.remove(topic),
                        Action::Close(..) => return,
                        _ => {}
                    }
                }
            }
        }
    });
}
