use proptest::prelude::{any, proptest};
use proptest::{prop_assert, prop_assert_eq};

use super::{Found, FrameError, Scanner, Want};

/// A server's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

fn array(events: usize) -> Vec<u8> {
    let mut out = Vec::new();
    rmp::encode::write_array_len(&mut out, events as u32).expect("writing to a Vec cannot fail");
    out.resize(out.len() + events * 3, 1);
    out
}

fn totals(pieces: &[&[u8]], want: Want) -> Vec<String> {
    let (mut scanner, mut list) = (Scanner::default(), Vec::new());
    for piece in pieces {
        let fed = scanner.feed(piece, want, &mut |found| list.push(format!("{found:?}")));
        list.extend(fed.err().map(|error| error.to_string()));
    }
    list
}

/// The header of an array in the payload is not completed by the bytes behind the frame.
#[test]
fn an_array_header_cut_by_its_frame_is_no_count() {
    let bytes = [frame(0x82, &[0xdc]), frame(0x82, &[])].concat();
    let whole = totals(&[&bytes], Want::Count);
    assert_eq!(whole, ["Whole([220])", "Whole([])"]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(totals(&single, Want::Count), whole);
}

/// Every violation, fed whole and byte by byte, with the close code that answers it.
#[test]
fn violations_of_rfc_6455_are_rejected_with_their_close_codes() {
    let long_ping = frame(0x89, &[0; 126]);
    let split_text: &[u8] = &[0x01, 2, b'a', 0xe2, 0x80, 1, 0x28];
    let cases: [(&str, &[u8], u16); 17] = [
        ("a reserved bit", &[0xc2, 1, 0], 1002),
        ("a mask", &[0x82, 0x81, 0], 1002),
        ("a continuation without a beginning", &[0x80, 0], 1002),
        ("a message inside another", &[2, 0, 0x82, 0], 1002),
        ("opcode 3", &[0x83, 0], 1002),
        ("opcode 11", &[0x8b, 0], 1002),
        ("a ping in fragments", &[0x09, 0], 1002),
        ("a ping of 126 bytes", &long_ping, 1002),
        ("a length of 5 in two bytes", &[0x82, 126, 0, 5], 1002),
        (
            "a length of 5 in eight bytes",
            &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5],
            1002,
        ),
        ("2^63 bytes", &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
        ("a close of one byte", &[0x88, 1, 3], 1002),
        ("close code 1005", &[0x88, 2, 0x03, 0xed], 1002),
        ("close code 999", &[0x88, 2, 0x03, 0xe7], 1002),
        (
            "a close reason that is no UTF-8",
            &[0x88, 3, 0x03, 0xe8, 0xff],
            1007,
        ),
        ("text that is no UTF-8", &[0x81, 2, b'a', 0xff], 1007),
        ("text whose frames are no UTF-8 together", split_text, 1007),
    ];
    for (name, bytes, code) in cases {
        let wants = match code {
            1007 => &[Want::Whole, Want::Messages][..],
            _ => &[Want::Count, Want::Whole, Want::Messages][..],
        };
        for want in wants {
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            for pieces in [vec![bytes], single] {
                let mut scanner = Scanner::default();
                let failed = pieces
                    .iter()
                    .find_map(|piece| scanner.feed(piece, *want, &mut |_| {}).err());
                assert_eq!(
                    failed.map(FrameError::close_code),
                    Some(code),
                    "{name}, {want:?}, {} pieces",
                    pieces.len()
                );
            }
        }
    }
}

#[test]
fn text_split_at_any_byte_is_valid() {
    let text = "a€𝄞b".as_bytes();
    for cut in 0..=text.len() {
        let (first, second) = text.split_at(cut);
        let bytes = [frame(0x01, first), frame(0x80, second)].concat();
        for want in [Want::Count, Want::Whole, Want::Messages] {
            let found = totals(&bytes.chunks(1).collect::<Vec<_>>(), want);
            assert_eq!(found.len(), 1, "cut at {cut}: {found:?}");
        }
    }
}

proptest! {
    #[test]
    fn splitting_the_input_does_not_change_the_result(cuts in proptest::collection::vec(1usize..90, 0..12), events in 0usize..40) {
        let long = vec![0x81; 70_000];
        let bytes = [
            frame(0x82, &array(events)), frame(0x82, &[0x81, 7]), frame(0x89, b"?"), frame(2, &[0x81]), frame(0x8a, b""), frame(0, b""),
            frame(0x89, b"between"), frame(0x80, b"end"), frame(0x82, &array(70_000)), frame(0x82, &long), frame(0x81, b""), frame(0x81, "a€".as_bytes()), frame(0x88, &[3, 232]),
        ].concat();
        for want in [Want::Count, Want::Whole, Want::Messages] {
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in &cuts {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let all = totals(&[&bytes], want);
            prop_assert_eq!(&totals(&pieces, want), &all);
            let ping = format!("{:?}", Found::Ping(b"between"));
            prop_assert!(all.contains(&"Close(1000)".to_owned()) && all.contains(&ping), "{all:?}");
            let counted = format!("Counted({events})");
            prop_assert_eq!(all.contains(&counted), want == Want::Count);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        totals(&[&bytes], Want::Count);
    }
}
