//! WebSocket frames of clients.

use tickcast::shard::{Incoming, MessageReader};

use super::{MILLIS, Memory, Target, pieces};

/// Limit of a message, lower than the default so that inputs exceed it.
const MESSAGE_BYTES_MAX: usize = 4096;

pub(crate) const TARGET: Target = Target {
    name: "frames",
    check,
    work,
    // Received messages, the message in progress, and a read buffer.
    memory: Memory {
        per_byte: 16,
        constant: 64 << 10,
    },
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"\x81\x80",
        b"\x01\x80",
        b"\x00\x80",
        b"\x89\x80",
        b"\x8a\xfd",
        b"\x88\x82",
        b"\x82\xfe\x00\x7e",
        b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
    ],
};

/// The result of a stream does not depend on how it is cut into pieces.
pub(crate) fn check(bytes: &[u8]) {
    let whole = read(std::iter::once(bytes));
    let cut = read(pieces(bytes));
    let single = read(bytes.chunks(1));
    // Small frames are counted before messages are read, so what precedes a flood differs.
    if [&whole, &cut, &single]
        .iter()
        .all(|(found, _)| !found.contains(&Incoming::Flood))
    {
        assert_eq!(whole, cut);
        assert_eq!(whole, single);
    }
}

pub(crate) fn work(bytes: &[u8]) {
    let _found = read(bytes.chunks(4096));
}

/// Messages of a stream up to its end, and the replies.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Incoming>, Vec<u8>) {
    let mut reader = MessageReader::new(MESSAGE_BYTES_MAX);
    let mut all = Vec::new();
    for piece in pieces.filter(|piece| !piece.is_empty()) {
        let found = reader.read(piece);
        let is_over = found.iter().any(ends);
        all.extend(found);
        if is_over {
            assert!(!reader.is_partial(), "state is kept after the end");
            break;
        }
    }
    for message in &all {
        let len = match message {
            Incoming::Request(payload, _) => payload.len(),
            Incoming::Pong(payload) => {
                assert!(payload.len() <= 125, "a control frame is short");
                payload.len()
            }
            Incoming::Violation(code, reason) => {
                assert!(matches!(code, 1002 | 1007 | 1009), "{code}");
                super::assert_printable(reason);
                0
            }
            Incoming::Closed | Incoming::Flood => 0,
        };
        assert!(len <= MESSAGE_BYTES_MAX, "{len} bytes");
    }
    (all, reader.replies().to_vec())
}

const fn ends(message: &Incoming) -> bool {
    matches!(
        message,
        Incoming::Closed | Incoming::Violation(..) | Incoming::Flood
    )
}
