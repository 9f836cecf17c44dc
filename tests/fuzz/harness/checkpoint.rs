//! Checkpoints of the shared log of a cluster.

use std::sync::Arc;
use std::time::Duration;

use tickcast::cluster::{LogCheckpoint, decode_checkpoint, encode_checkpoint, seal_checkpoint};
use tickcast::limits::HistoryLimits;
use tickcast::log::Replica;
use tickcast::protocol::Epoch;

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "checkpoint",
    check,
    work,
    // An instrument or a topic of few bytes takes some hundred bytes.
    memory: Memory {
        per_byte: 200,
        constant: 16 << 20,
    },
    millis: MILLIS,
    bytes_max: 1 << 20,
    words: &[
        b"\x90",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xa7sources",
        b"\xa7removed",
        b"\xa6topics",
        b"\xa5ended",
    ],
};

/// Maximum size of the body of a checkpoint, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Checkpoint of a server that starts from this one.
fn again(read: &LogCheckpoint) -> Vec<u8> {
    let origin = Epoch {
        origin: read.place.origin,
        generation: 0,
    };
    let limits = HistoryLimits {
        events: 1000,
        bytes: usize::MAX,
        age: Duration::MAX,
    };
    let mut replica = Replica::new(origin, limits);
    for item in read.items() {
        assert!(replica.continues(&item, &read.catalog));
        replica.apply(&item, &read.catalog);
    }
    let checkpoint = replica.checkpoint(0, read.tx, Arc::clone(&read.catalog));
    let encoded = encode_checkpoint(&checkpoint, read.output.as_ref(), read.place, usize::MAX);
    encoded.expect("a checkpoint of any size").to_vec()
}

/// Damaged bytes are refused; a body with a right checksum is read without a panic, and a server
/// that starts from what was read stores the same state again.
pub(crate) fn check(bytes: &[u8]) {
    if let Err(refusal) = decode_checkpoint(bytes, BODY_BYTES_MAX) {
        assert_printable(&refusal.to_string());
    }
    let sealed = seal_checkpoint(bytes).expect("a small body");
    match decode_checkpoint(&sealed, BODY_BYTES_MAX) {
        Ok(read) => {
            let first = again(&read);
            let read =
                decode_checkpoint(&first, usize::MAX >> 1).expect("a stored checkpoint is read");
            assert!(again(&read) == first, "the state has changed");
        }
        Err(refusal) => assert_printable(&refusal.to_string()),
    }
}

pub(crate) fn work(bytes: &[u8]) {
    if let Ok(sealed) = seal_checkpoint(bytes) {
        let _checkpoint = decode_checkpoint(&sealed, BODY_BYTES_MAX);
    }
}
