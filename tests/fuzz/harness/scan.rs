//! Frames of servers as the load tester reads them.

use tickcast::load::scan::{Found, FrameError, Scanner, Want};

use super::{MILLIS, Memory, Target, pieces};

pub(crate) const TARGET: Target = Target {
    name: "scan",
    check,
    work,
    memory: Memory {
        per_byte: 8,
        constant: 64 << 10,
    },
    millis: MILLIS,
    bytes_max: 256 << 10,
    words: &[
        b"\x82\x01\x90",
        b"\x82\x03\xdc\x00\x01",
        b"\x01\x01a",
        b"\x80\x00",
        b"\x89\x00",
        b"\x88\x02\x03",
        b"\x82\x7e\x00\x7e",
        b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    ],
};

/// One item of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    Counted(u32),
    Message,
    Whole(Vec<u8>),
    Ping(Vec<u8>),
    Close(u16),
}

/// The result of a stream does not depend on how it is cut into pieces, and all purposes find the
/// same messages.
pub(crate) fn check(bytes: &[u8]) {
    let [whole, counted, messages] = [Want::Whole, Want::Count, Want::Messages].map(|want| {
        let whole = read(std::iter::once(bytes), want);
        assert_eq!(whole, read(pieces(bytes), want), "{want:?}");
        assert_eq!(whole, read(bytes.chunks(1), want), "{want:?}");
        whole
    });
    if let (Ok(whole), Ok(counted), Ok(messages)) = (&whole, &counted, &messages) {
        let count = |items: &[Item]| items.iter().filter(|item| is_message(item)).count();
        // A skipped message is reported as soon as it begins, another one when it is complete.
        let (whole, begun) = (count(whole), count(messages));
        assert!(begun == whole || begun == whole + 1, "{begun} {whole}");
        let counted = count(counted);
        assert!(
            counted == whole || counted == whole + 1,
            "{counted} {whole}"
        );
    }
}

pub(crate) fn work(bytes: &[u8]) {
    let mut scanner = Scanner::default();
    let mut messages = 0_u64;
    for piece in bytes.chunks(16 << 10) {
        let mut found = |_: Found<'_>| messages += 1;
        if scanner.feed(piece, Want::Count, &mut found).is_err() {
            break;
        }
    }
}

const fn is_message(item: &Item) -> bool {
    matches!(item, Item::Counted(_) | Item::Message | Item::Whole(_))
}

fn read<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    want: Want,
) -> Result<Vec<Item>, (Vec<Item>, FrameError)> {
    let (mut scanner, mut items) = (Scanner::default(), Vec::new());
    for piece in pieces {
        let mut found = |found: Found<'_>| {
            items.push(match found {
                Found::Counted(events) => Item::Counted(events),
                Found::Message => Item::Message,
                Found::Whole(payload) => Item::Whole(payload.to_vec()),
                Found::Ping(payload) => Item::Ping(payload.to_vec()),
                Found::Close(code) => Item::Close(code),
            });
        };
        if let Err(error) = scanner.feed(piece, want, &mut found) {
            assert!(matches!(error.close_code(), 1002 | 1007 | 1009));
            return Err((items, error));
        }
    }
    Ok(items)
}
