//! A reader that starts from a checkpoint continues like one that has read all records.

use proptest::prelude::*;

use super::super::checkpoint::{
    CheckpointFault, LogCheckpoint, Place, body_of, decode_checkpoint, encode_checkpoint, open,
    seal,
};
use super::super::items::{Packer, Unpacker};
use super::super::record::{Author, Position};
use super::{eventful_day, listing, published, trade};
use crate::bus::{Bus, Emit, Emitter, MissedData, MissedKind, RestoredState, input_queue};
use crate::clock::Clock;
use crate::log::{Catalog, Checkpoint, Log};
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::Epoch;

use std::sync::Arc;

pub(super) const BYTES_MAX: usize = 1 << 20;
pub(super) const PLACE: Place = Place {
    origin: 7,
    position: Position { number: 3, sum: 9 },
    author: Author { term: 2, node: 5 },
};

/// Server that follows the log of another one.
pub(super) struct Follower {
    pub(super) bus: Emitter,
    unpacker: Unpacker,
    thread: std::thread::JoinHandle<()>,
}

impl Follower {
    pub(super) fn start() -> Self {
        let clock = Clock::start();
        let (emitter, queue) = input_queue(1 << 20, clock);
        let epoch = Epoch {
            origin: PLACE.origin,
            generation: 0,
        };
        let bus = Bus::new(
            clock,
            Log::new(1 << 30, 0),
            Arc::new(Metrics::new()),
            Vec::new(),
            epoch,
            RestoredState::default(),
        );
        Self {
            bus: emitter,
            unpacker: Unpacker::default(),
            thread: std::thread::spawn(move || drop(bus.run(queue))),
        }
    }

    pub(super) async fn restore(&mut self, checkpoint: LogCheckpoint) {
        let restored = self.bus.restore(checkpoint.state()).await;
        assert_eq!(restored, Some(true));
        self.unpacker = Unpacker::behind(checkpoint.catalog);
    }

    pub(super) async fn read(&mut self, bodies: &[bytes::Bytes]) {
        for body in bodies {
            let items = self.unpacker.unpack(body).expect("a body of this server");
            let catalog = Arc::clone(self.unpacker.catalog());
            assert_eq!(self.bus.follow(items, catalog).await, Some(true));
        }
    }

    pub(super) async fn checkpoint(&self) -> Arc<Checkpoint> {
        self.bus.checkpoint().await.expect("the bus runs")
    }

    pub(super) async fn stop(self) {
        self.bus.stop().await;
        self.thread.join().expect("the bus ends");
    }
}

/// An eventful day, then more gaps than are kept, and several ended epochs.
fn long_day() -> Vec<(u16, Vec<Emit>)> {
    let missed = MissedData {
        kind: MissedKind::Trades,
        count: Some(2),
    };
    let gap = |second| vec![Emit::Missed(1, missed), trade(1, second, "8")];
    let mut day = eventful_day();
    for hour in 0..4 {
        day.push((0, vec![Emit::StartOver]));
        let seconds = (0..40).map(|second| 200 + 100 * hour + second);
        day.push((0, seconds.flat_map(gap).collect()));
    }
    day
}

/// Bodies of the records of a day.
async fn bodies() -> Vec<bytes::Bytes> {
    let mut packer = Packer::new(0);
    let batches = published(long_day()).await;
    let bodies = batches.iter().flat_map(|batch| packer.pack(batch));
    bodies.collect()
}

fn state(checkpoint: &Checkpoint) -> String {
    let text = format!("{checkpoint:?}");
    let (_, topics) = text.split_once("topics: [TopicState").unwrap_or_default();
    let catalog = checkpoint.catalog();
    format!("{} {topics}", listing(catalog))
}

async fn checkpoint_of(bodies: &[bytes::Bytes]) -> Arc<Checkpoint> {
    let mut follower = Follower::start();
    follower.read(bodies).await;
    let checkpoint = follower.checkpoint().await;
    follower.stop().await;
    checkpoint
}

#[tokio::test]
async fn a_reader_from_any_checkpoint_has_the_state_of_one_from_the_first_record() {
    let bodies = bodies().await;
    let mut whole = Follower::start();
    let mut saved = vec![whole.checkpoint().await];
    for body in &bodies {
        whole.read(std::slice::from_ref(body)).await;
        saved.push(whole.checkpoint().await);
    }
    let expected = state(&*whole.checkpoint().await);
    assert!(expected.contains("count: 40"), "gaps were joined");
    assert!(
        expected.contains("), (3, Seq("),
        "several epochs have ended"
    );
    for (at, checkpoint) in saved.iter().enumerate() {
        let bytes =
            encode_checkpoint(checkpoint, None, PLACE, BYTES_MAX).expect("a small checkpoint");
        let read = decode_checkpoint(&bytes, BYTES_MAX).expect("a checkpoint of this server");
        assert_eq!((read.place, read.tx), (PLACE, checkpoint.tx));
        let mut reader = Follower::start();
        reader.restore(read).await;
        assert_eq!(
            state(&*reader.checkpoint().await),
            state(checkpoint),
            "{at}"
        );
        assert!(reader.checkpoint().await.tx >= checkpoint.tx);
        reader.read(&bodies[at..]).await;
        assert_eq!(state(&*reader.checkpoint().await), expected, "from {at}");
        reader.stop().await;
    }
    whole.stop().await;
}

#[tokio::test]
async fn a_new_leader_publishes_nothing_before_the_time_of_its_checkpoint() {
    let checkpoint = checkpoint_of(&bodies().await).await;
    let bytes = encode_checkpoint(&checkpoint, None, PLACE, BYTES_MAX).expect("a small checkpoint");
    let mut read = decode_checkpoint(&bytes, BYTES_MAX).expect("a checkpoint of this server");
    let later = Clock::start()
        .now()
        .plus(std::time::Duration::from_secs(3600));
    read.tx = later;
    let mut reader = Follower::start();
    reader.restore(read).await;
    assert!(reader.checkpoint().await.tx >= later);
    reader.stop().await;
}

#[tokio::test]
async fn large_damaged_and_foreign_checkpoints_are_refused() {
    let checkpoint = checkpoint_of(&bodies().await).await;
    let bytes = encode_checkpoint(&checkpoint, None, PLACE, BYTES_MAX).expect("a small checkpoint");
    let size = open(&bytes, BYTES_MAX).expect("a checkpoint").len();
    let refused = |bytes: &[u8], max| decode_checkpoint(bytes, max).expect_err("it is refused");
    let too_large = encode_checkpoint(&checkpoint, None, PLACE, size - 1);
    assert_eq!(too_large, Err(CheckpointFault::Size(size - 1)));
    assert_eq!(refused(&bytes, size - 1), CheckpointFault::Size(size - 1));
    assert!(decode_checkpoint(&bytes, size).is_ok());
    assert_eq!(refused(b"", size), CheckpointFault::Magic);
    assert_eq!(refused(&bytes[..15], size), CheckpointFault::Magic);
    assert_eq!(
        refused(&bytes[..bytes.len() - 1], size),
        CheckpointFault::Sum
    );
    let zeros = seal(&vec![0; 64 << 20]).expect("a bomb of a few KiB");
    assert_eq!(refused(&zeros, BYTES_MAX), CheckpointFault::Size(BYTES_MAX));
    assert_eq!(
        refused(&seal(b"").expect("empty"), BYTES_MAX),
        CheckpointFault::Body
    );
    // The newest event of a topic is missing.
    let body = open(&bytes, BYTES_MAX).expect("a checkpoint");
    let mut form: rmpv::Value = rmpv::decode::read_value(&mut &body[..]).expect("MessagePack");
    let mut topics = form.as_map().expect("named fields").iter();
    let topics = topics
        .position(|(name, _)| name.as_str() == Some("topics"))
        .expect("topics");
    let rmpv::Value::Map(fields) = &mut form else {
        unreachable!("checked above")
    };
    let rmpv::Value::Array(states) = &mut fields[topics].1 else {
        unreachable!("a list")
    };
    let last = states.pop().expect("topics");
    let written = |form: &rmpv::Value| {
        let mut body = Vec::new();
        rmpv::encode::write_value(&mut body, form).expect("room");
        seal(&body).expect("small")
    };
    let count = checkpoint.topics() as u32;
    assert_eq!(
        refused(&written(&form), BYTES_MAX),
        CheckpointFault::Topic(count - 1)
    );
    let rmpv::Value::Map(fields) = &mut form else {
        unreachable!("checked above")
    };
    let rmpv::Value::Array(states) = &mut fields[topics].1 else {
        unreachable!("a list")
    };
    states.push(last);
    states.swap(0, 1);
    assert_eq!(
        refused(&written(&form), BYTES_MAX),
        CheckpointFault::Topic(0)
    );
}

/// Checkpoint at a fixed publication time.
fn at_99(checkpoint: Arc<Checkpoint>) -> Checkpoint {
    let mut checkpoint = Arc::into_inner(checkpoint).expect("the only owner");
    checkpoint.tx = UnixNanos(99);
    checkpoint
}

/// Checkpoint of a stored form. `TICKCAST_GOLDEN=write` writes it again.
#[tokio::test]
async fn the_form_of_checkpoints_is_stable() {
    let file =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/tests/golden.tcc");
    if std::env::var("TICKCAST_GOLDEN").is_ok_and(|mode| mode == "write") {
        let checkpoint = at_99(checkpoint_of(&bodies().await).await);
        let bytes =
            encode_checkpoint(&checkpoint, None, PLACE, BYTES_MAX).expect("a small checkpoint");
        std::fs::write(&file, bytes).expect("room");
    }
    let golden = std::fs::read(&file).expect("the golden checkpoint");
    let read = decode_checkpoint(&golden, BYTES_MAX).expect("a checkpoint of this form");
    assert_eq!((read.place, read.tx), (PLACE, UnixNanos(99)));
    let mut reader = Follower::start();
    reader.restore(read).await;
    let checkpoint = at_99(reader.checkpoint().await);
    reader.stop().await;
    let body = open(&golden, BYTES_MAX).expect("a checkpoint of this form");
    assert!(
        body == body_of(&checkpoint, None, PLACE),
        "the form of checkpoints has changed"
    );
}

/// Body of a checkpoint with a bit of everything.
fn golden_body() -> Vec<u8> {
    let golden = include_bytes!("golden.tcc");
    open(golden, BYTES_MAX).expect("a checkpoint of this form")
}

proptest! {
    #[test]
    fn damaged_checkpoints_are_refused(at: proptest::sample::Index, bit in 0..8u32) {
        let mut bytes = include_bytes!("golden.tcc").to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        // The reserved bytes have no meaning.
        prop_assert!((4..8).contains(&at) || decode_checkpoint(&bytes, BYTES_MAX).is_err());
    }

    #[test]
    fn foreign_bodies_never_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8), cut: proptest::sample::Index) {
        let mut body = golden_body();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        for body in [&body[..], &body[..cut.index(body.len())]] {
            let sealed = seal(body).expect("a small body");
            if let Ok(read) = decode_checkpoint(&sealed, BYTES_MAX) {
                apply(&read);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _refused = decode_checkpoint(&bytes, BYTES_MAX);
        let _refused = decode_checkpoint(&seal(&bytes).expect("a small body"), BYTES_MAX);
    }
}

/// Applies an accepted checkpoint to a replica.
fn apply(read: &LogCheckpoint) {
    let limits = crate::limits::HistoryLimits {
        events: 100,
        bytes: 1 << 20,
        age: std::time::Duration::from_secs(60),
    };
    let origin = Epoch {
        origin: read.place.origin,
        generation: 0,
    };
    let mut replica = crate::log::Replica::new(origin, limits);
    let catalog: &Arc<Catalog> = &read.catalog;
    for item in read.items() {
        assert!(replica.continues(&item, catalog));
        replica.apply(&item, catalog);
    }
    for topic in (0..catalog.len() as u32).map(crate::log::TopicId) {
        let head = replica.head(topic);
        let _events = replica.snapshot(topic, head, 1000).len();
    }
}
