//! Messages of clients, in both encodings.

use tickcast::codec::{decode_request, encode_request};
use tickcast::protocol::{Encoding, Op, Request, Subscribe};

use super::{MILLIS, OF_A_MESSAGE, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "request",
    check,
    work,
    memory: OF_A_MESSAGE,
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"\"op\":\"subscribe\"",
        b"\"topics\":[",
        b"\"trade:*\"",
        b"\"from\":{\"epoch\":\"",
        b"\"seqs\":{",
        b"\"id\":",
        b"\x01\x01",
        b"{\"a\":",
        b"[[[[[[[[",
        b"18446744073709551616",
        b"1e999",
        b"-0",
        b"\\ud800",
        b"null",
    ],
};

/// A request that is decoded is the same after it was encoded again, in either encoding.
pub(crate) fn check(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        match decode_request(bytes, encoding) {
            Ok(request) => {
                let request = ordered(request);
                for other in Encoding::ALL {
                    let again = decode_request(&encode_request(&request, other), other);
                    assert_eq!(again.map(ordered).as_ref(), Ok(&request), "{other:?}");
                }
            }
            Err(error) => assert_printable(&error.to_string()),
        }
    }
}

/// Maps are without order, and the encoder orders them.
fn ordered(mut request: Request) -> Request {
    if let Op::Subscribe(Subscribe {
        from: Some(from), ..
    }) = &mut request.op
    {
        from.seqs.sort();
        from.epochs.sort();
    }
    request
}

pub(crate) fn work(bytes: &[u8]) {
    // The first byte of a map distinguishes the encodings.
    let encoding = match bytes.first() {
        Some(0x80..) => Encoding::Msgpack,
        _ => Encoding::Json,
    };
    let _request = decode_request(bytes, encoding);
}
