//! Arbitrary bytes as a client's message, in both encodings: never a panic, and what is read is read again from its own bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tickcast::codec::{decode_request, encode_request};
use tickcast::protocol::Encoding;

fuzz_target!(|bytes: &[u8]| {
    for encoding in Encoding::ALL {
        if let Ok(request) = decode_request(bytes, encoding) {
            for other in Encoding::ALL {
                let again = decode_request(&encode_request(&request, other), other);
                assert!(again.is_ok(), "{request:?} became {again:?}");
            }
        }
    }
});
