//! New epochs of all topics: they keep the states of the topics, and no client can take them for
//! epochs that it knows.

use super::super::checkpoint::{LogCheckpoint, Place, decode_checkpoint, encode_checkpoint};
use super::checkpoints::{BYTES_MAX, Follower, PLACE};
use super::eventful_day;
use super::takeover::led;
use crate::limits::HistoryLimits;
use crate::log::{Checkpoint, Next, Replica, TopicId};
use crate::protocol::Epoch;

/// The checkpoint as another server reads it.
fn read(checkpoint: &Checkpoint, origin: u64) -> LogCheckpoint {
    let place = Place { origin, ..PLACE };
    let bytes = encode_checkpoint(checkpoint, None, place, BYTES_MAX).expect("a small checkpoint");
    decode_checkpoint(&bytes, BYTES_MAX).expect("a checkpoint of this server")
}

#[tokio::test]
async fn new_epochs_keep_the_states_of_their_topics() {
    let (mut leader, bodies) = led(eventful_day()).await;
    let begun = leader.begin_origin(9).await.checkpoint;
    let interruption = leader.log.read(begun.next - 1);
    assert!(matches!(interruption, Next::Overrun));
    let mut reader = Follower::start();
    reader.read(&bodies).await;
    let before = reader.checkpoint().await;
    reader.restore(read(&begun, 9)).await;
    let after = reader.checkpoint().await;
    // A reader that asks late still gets the state at the interruption, and then all batches.
    reader.bus.follow(Vec::new(), after.catalog().clone()).await;
    let at_interruption = reader.bus.checkpoint_instead_of(before.next).await;
    let at_interruption = at_interruption.expect("the bus runs");
    let later = reader.checkpoint().await;
    reader.stop().await;
    assert_eq!(after.origin(), begun.origin());
    assert_eq!(after.next, before.next + 1, "readers find an overrun");
    assert_eq!(at_interruption.next, after.next);
    assert!(
        later.next > after.next,
        "it is the state behind more batches"
    );
    let limits = HistoryLimits {
        events: 10,
        bytes: usize::MAX,
        age: std::time::Duration::MAX,
    };
    let mut replica = Replica::new(Epoch::first(PLACE.origin), limits);
    replica.restore(&before);
    replica.restore(&after);
    assert!(after.topics() > 0);
    let states = before.save().into_iter().zip(after.save()).zip(0..);
    for ((old, new), topic) in states {
        let topic = TopicId(topic);
        let (known, epoch) = (before.epoch(topic), after.epoch(topic));
        assert_eq!(epoch, after.origin());
        assert!(epoch.generation > known.generation);
        assert_eq!(old.head, new.head);
        assert_eq!(after.ended_at(topic, known), Some(old.head));
        assert_eq!(replica.epoch_of_generation(known.generation), known);
        assert_eq!(replica.epoch_of_generation(epoch.generation), epoch);
    }
}

#[tokio::test]
async fn epochs_that_could_be_taken_for_known_ones_are_refused() {
    let (_, bodies) = led(eventful_day()).await;
    let mut reader = Follower::start();
    reader.read(&bodies).await;
    let known = reader.checkpoint().await;
    let other = read(&known, 8).state();
    assert_eq!(reader.bus.restore(other).await, Some(false));
    reader.stop().await;
}
