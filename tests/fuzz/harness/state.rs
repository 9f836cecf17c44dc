//! Saved states, and the checkpoints of sources in them.

use tickcast::replay::{Replay, ReplayConfig};
use tickcast::state::{read_state, sealed, written};

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "state",
    check,
    work,
    // The file is read whole; a value of a topic takes a few hundred bytes.
    memory: Memory {
        per_byte: 100,
        constant: 4 << 20,
    },
    millis: MILLIS,
    bytes_max: 1 << 20,
    words: &[
        b"\x93",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xc0",
        b"\x90",
        b"\xa7trade:A",
    ],
};

/// A damaged file is rejected; the content of a file with a right checksum is read without a
/// panic, and what is read is written and read again.
pub(crate) fn check(bytes: &[u8]) {
    if let Err(refusal) = read_state(bytes) {
        assert_printable(&refusal.to_string());
    }
    match read_state(&sealed(bytes)) {
        Ok(state) => {
            let again = read_state(&written(&state)).expect("a written state is read");
            assert_eq!(again, state);
        }
        Err(refusal) => assert_printable(&refusal.to_string()),
    }
    // A checkpoint that cannot be read makes the source start over.
    let _replay = Replay::new(ReplayConfig::of(Vec::new()), Some(bytes.to_vec()));
}

pub(crate) fn work(bytes: &[u8]) {
    let _state = read_state(&sealed(bytes));
    let _replay = Replay::new(ReplayConfig::of(Vec::new()), Some(bytes.to_vec()));
}
