//! Records: the messages of the shared log. A record has a head of fixed size and a body, and
//! contains the checksum of the record before it.
//!
//! Head, little-endian: `TCL1`, flags (u16), reserved (u16), term (u64), node (u64), number (u64),
//! checksum of the previous record (u64), own checksum (u64). The own checksum is the first eight
//! bytes of the SHA-256 of the record with this field set to zero.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Marker and version of the format.
const MAGIC: &[u8; 4] = b"TCL1";
/// Size of the head, in bytes.
const HEAD_BYTES: usize = 48;
/// Position of the own checksum in the head.
const SUM_AT: usize = 40;
/// Size from which a body is compressed, in bytes.
const COMPRESSED_FROM: usize = 1024;
/// Level of the compression (zstd).
const COMPRESSION_LEVEL: i32 = 1;
/// Maximum size of a decompressed body, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;

const LEAD: u16 = 1;
const TICK: u16 = 2;
const ZSTD: u16 = 4;
const HANDOVER: u16 = 8;

/// Meaning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Items of the log.
    Items,
    /// Start of a term: the node of the record is the only one that appends from here on.
    Lead,
    /// Sign of life of the leading node.
    Tick,
    /// End of a term: the node of the record appends nothing more, and another one may start the
    /// next term at once. A reader that does not know it takes it for a tick.
    Handover,
}

/// A record that has been read and whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Meaning of the record.
    pub kind: Kind,
    /// Number of changes of the leading node so far.
    pub term: u64,
    /// Node that appended the record.
    pub node: u64,
    /// Number of the record, from 1; equals its sequence number in the stream.
    pub number: u64,
    /// Checksum of the previous record; 0 for the first one.
    pub previous: u64,
    /// Checksum of this record.
    pub sum: u64,
    /// Decompressed body.
    pub body: Bytes,
    /// The whole record, as it is stored.
    pub bytes: Bytes,
}

/// Reason for which bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Fewer bytes than a head.
    #[error("record of {0} bytes, expected at least {HEAD_BYTES}")]
    Short(usize),
    /// Another format or version.
    #[error("not a record of format TCL1")]
    Magic,
    /// Damaged bytes.
    #[error("record {0} is damaged: its checksum does not match its bytes")]
    Sum(u64),
    /// A body that cannot be decompressed, or is too large.
    #[error("record {0}: body cannot be decompressed to at most {BODY_BYTES_MAX} bytes")]
    Body(u64),
}

/// Position in the shared log: the last record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Number of the record; 0 at the start of the log.
    pub number: u64,
    /// Checksum of the record; 0 at the start of the log.
    pub sum: u64,
}

/// Reason for which a record does not follow a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A record that has been read before.
    #[error("record {0} again")]
    Known(u64),
    /// Records are missing in between.
    #[error("records {0} to {1} are missing")]
    Hole(u64, u64),
    /// The record follows another record than the one at the position.
    #[error("record {0} does not follow the record read before it: the log is another one")]
    Other(u64),
}

impl Position {
    /// Checks that a record is the next one.
    pub const fn check(self, record: &Record) -> Result<(), ChainFault> {
        if record.number <= self.number {
            return Err(ChainFault::Known(record.number));
        }
        if record.number > self.number + 1 {
            return Err(ChainFault::Hole(self.number + 1, record.number - 1));
        }
        if record.previous != self.sum {
            return Err(ChainFault::Other(record.number));
        }
        Ok(())
    }

    /// Position behind a record.
    pub const fn behind(record: &Record) -> Self {
        Self {
            number: record.number,
            sum: record.sum,
        }
    }
}

/// Author of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// Term of the author.
    pub term: u64,
    /// Number of the author's node.
    pub node: u64,
}

impl Author {
    /// Bytes of the record that follows `position`, and the position behind it.
    pub fn write(self, kind: Kind, position: Position, body: &[u8]) -> (Bytes, Position) {
        let compressed = (body.len() >= COMPRESSED_FROM)
            .then(|| zstd::bulk::compress(body, COMPRESSION_LEVEL).ok())
            .flatten();
        let mut flags = match kind {
            Kind::Items => 0,
            Kind::Lead => LEAD,
            Kind::Tick => TICK,
            Kind::Handover => HANDOVER | TICK,
        };
        if compressed.is_some() {
            flags |= ZSTD;
        }
        let body = compressed.as_deref().unwrap_or(body);
        let number = position.number + 1;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        for value in [self.term, self.node, number, position.sum, 0] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(body);
        let sum = sum_of(&bytes);
        bytes[SUM_AT..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        (bytes.into(), Position { number, sum })
    }
}

/// First eight bytes of the SHA-256 of data.
pub fn short_sum(parts: &[&[u8]]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&digest.finalize()[..8]);
    u64::from_le_bytes(first)
}

/// Checksum of a record of at least [`HEAD_BYTES`].
fn sum_of(bytes: &[u8]) -> u64 {
    short_sum(&[&bytes[..SUM_AT], &[0; 8], &bytes[HEAD_BYTES..]])
}

impl Record {
    /// Reads a record.
    pub fn read(bytes: &Bytes) -> Result<Self, RecordFault> {
        if bytes.len() < HEAD_BYTES {
            return Err(RecordFault::Short(bytes.len()));
        }
        if &bytes[..MAGIC.len()] != MAGIC {
            return Err(RecordFault::Magic);
        }
        let at = |from: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[from..from + 8]);
            u64::from_le_bytes(value)
        };
        let flags = u16::from_le_bytes([bytes[4], bytes[5]]);
        let (term, node, number, previous, sum) = (at(8), at(16), at(24), at(32), at(SUM_AT));
        if sum_of(bytes) != sum {
            return Err(RecordFault::Sum(number));
        }
        let body = bytes.slice(HEAD_BYTES..);
        let body = if flags & ZSTD == 0 {
            body
        } else {
            let body = zstd::bulk::decompress(&body, BODY_BYTES_MAX);
            body.map_err(|_damaged_or_long| RecordFault::Body(number))?
                .into()
        };
        let kind = if flags & LEAD != 0 {
            Kind::Lead
        } else if flags & HANDOVER != 0 {
            Kind::Handover
        } else if flags & TICK != 0 {
            Kind::Tick
        } else {
            Kind::Items
        };
        Ok(Self {
            kind,
            term,
            node,
            number,
            previous,
            sum,
            body,
            bytes: bytes.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AUTHOR: Author = Author { term: 3, node: 9 };

    #[test]
    fn a_record_follows_only_the_record_that_it_was_written_behind() {
        let start = Position::default();
        let (first, behind_first) = AUTHOR.write(Kind::Lead, start, b"one");
        let (second, behind_second) = AUTHOR.write(Kind::Items, behind_first, b"two");
        let (first, second) = (read(&first), read(&second));
        assert_eq!(start.check(&first), Ok(()));
        assert_eq!(start.check(&second), Err(ChainFault::Hole(1, 1)));
        assert_eq!(behind_first.check(&second), Ok(()));
        assert_eq!(behind_second.check(&second), Err(ChainFault::Known(2)));
        let (rival, _) = AUTHOR.write(Kind::Lead, start, b"rival");
        let behind_rival = Position::behind(&read(&rival));
        assert_eq!(behind_rival.check(&second), Err(ChainFault::Other(2)));
    }

    fn read(bytes: &Bytes) -> Record {
        Record::read(bytes).expect("valid record")
    }

    #[test]
    fn the_format_of_records_is_stable() {
        let position = Position {
            number: 6,
            sum: 0x0102_0304_0506_0708,
        };
        let (bytes, behind) = AUTHOR.write(Kind::Items, position, b"body");
        let head =
            "54434c31000000000300000000000000090000000000000007000000000000000807060504030201";
        let text = data_encoding::HEXLOWER.encode(&bytes);
        assert_eq!(&text[..80], head);
        assert_eq!(&text[96..], "626f6479");
        assert_eq!(behind.number, 7);
    }

    #[test]
    fn a_reader_that_does_not_know_handovers_takes_them_for_ticks() {
        let start = Position::default();
        let flags_and_kind = |kind| {
            let (bytes, _) = AUTHOR.write(kind, start, b"");
            (u16::from_le_bytes([bytes[4], bytes[5]]), read(&bytes).kind)
        };
        assert_eq!(flags_and_kind(Kind::Tick), (TICK, Kind::Tick));
        let handover = (TICK | HANDOVER, Kind::Handover);
        assert_eq!(flags_and_kind(Kind::Handover), handover);
    }

    proptest! {
        #[test]
        fn records_are_read_as_written_and_network_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..4096), number in 0..u64::MAX - 1, sum: u64, foreign in proptest::collection::vec(any::<u8>(), 0..256)) {
            let position = Position { number, sum };
            let (bytes, behind) = AUTHOR.write(Kind::Items, position, &body);
            let record = read(&bytes);
            prop_assert_eq!(&record.body[..], &body[..]);
            prop_assert_eq!(Position::behind(&record), behind);
            prop_assert_eq!(position.check(&record), Ok(()));
            let _refused = Record::read(&foreign.into());
        }

        #[test]
        fn damaged_records_are_refused(body in proptest::collection::vec(any::<u8>(), 0..256), at: proptest::sample::Index, bit in 0..8u32) {
            let (bytes, _) = AUTHOR.write(Kind::Items, Position::default(), &body);
            let mut damaged = bytes.to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= 1u8 << bit;
            prop_assert!(Record::read(&damaged.into()).is_err());
        }
    }
}
