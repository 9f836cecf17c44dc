//! Records of the shared log of a cluster.

use bytes::Bytes;
use tickcast::cluster::{Author, BODY_BYTES_MAX, Kind, Position, Record, Unpacker, read_lead};

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "record",
    check,
    work,
    // An instrument or a topic of few bytes takes some hundred bytes.
    memory: Memory {
        per_byte: 400,
        constant: 16 << 20,
    },
    millis: MILLIS,
    bytes_max: 512 << 10,
    words: &[
        b"TCL1",
        b"\x90",
        b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xa6events",
        b"\xa7sources",
        b"\xa6topics",
        b"\xa5epoch",
    ],
};

const AUTHOR: Author = Author { term: 1, node: 2 };

/// A reader behind the records of the golden file, so that bodies may refer to its topics.
fn reader() -> Unpacker {
    let mut rest = &include_bytes!("../../../src/cluster/tests/golden.tcl")[..];
    let mut unpacker = Unpacker::default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        let record = Record::read(&Bytes::copy_from_slice(record)).expect("a golden record");
        let _items = unpacker.unpack(&record.body).expect("a golden body");
        rest = behind;
    }
    unpacker
}

fn unpack(mut unpacker: Unpacker, body: &[u8]) {
    match unpacker.unpack(body) {
        Ok(_items) => {}
        Err(refusal) => assert_printable(&refusal.to_string()),
    }
}

/// Damaged records are refused; a body with a right checksum is read as it was written, and its items
/// without a panic.
pub(crate) fn check(bytes: &[u8]) {
    match Record::read(&Bytes::copy_from_slice(bytes)) {
        Ok(record) => unpack(reader(), &record.body),
        Err(refusal) => assert_printable(&refusal.to_string()),
    }
    if let Err(refusal) = read_lead(bytes) {
        assert_printable(&refusal.to_string());
    }
    let body = &bytes[..bytes.len().min(BODY_BYTES_MAX)];
    let (written, behind) = AUTHOR.write(Kind::Items, Position::default(), body);
    let record = Record::read(&written).expect("a record that was written");
    assert!(record.body[..] == *body && Position::behind(&record) == behind);
    unpack(Unpacker::default(), body);
    unpack(reader(), body);
}

pub(crate) fn work(bytes: &[u8]) {
    let _items = Unpacker::default().unpack(bytes);
}
