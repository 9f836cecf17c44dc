//! Memory that foreign bytes can make a decoder allocate, counted by the allocator. The only test of
//! its binary, because the allocator counts for all threads.

use std::alloc::System;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use cap::Cap;
use tickcast::codec::{decode_request, decode_server_message};
use tickcast::protocol::Encoding;
use tickcast::shard::MessageReader;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that a server may allocate for each byte of input, and a client for the message of a
/// server, which it has chosen; and both for any input.
const FACTOR: usize = 16;
const CLIENT_FACTOR: usize = 64;
const ANY_INPUT: usize = 68 * 1024;
/// Longest message of a client at the default limit.
const LONGEST: usize = 64 * 1024;

/// Most bytes that a call holds at once.
fn peak(run: impl FnOnce()) -> usize {
    // The allocator keeps its highest peak: ballast raises the current memory to it.
    let missing = ALLOCATOR.max_allocated() - ALLOCATOR.allocated();
    let ballast = std::hint::black_box(Vec::<u8>::with_capacity(missing));
    let before = ALLOCATOR.max_allocated();
    run();
    drop(ballast);
    ALLOCATOR.max_allocated() - before
}

/// Fails if a decoder allocates too much for an input.
fn check(name: &str, input: &[u8]) -> Result<()> {
    let decoders: [(&str, usize, &dyn Fn()); 5] = [
        ("JSON request", FACTOR, &|| {
            drop(decode_request(input, Encoding::Json));
        }),
        ("MessagePack request", FACTOR, &|| {
            drop(decode_request(input, Encoding::Msgpack));
        }),
        ("JSON server message", CLIENT_FACTOR, &|| {
            drop(decode_server_message(input, Encoding::Json));
        }),
        ("MessagePack server message", CLIENT_FACTOR, &|| {
            drop(decode_server_message(input, Encoding::Msgpack));
        }),
        ("frames", FACTOR, &|| {
            let mut reader = MessageReader::new(LONGEST);
            drop(reader.read(input));
        }),
    ];
    for (decoder, factor, decode) in decoders {
        let bytes = peak(decode);
        let most = factor * input.len() + ANY_INPUT;
        ensure!(
            bytes <= most,
            "{decoder}: {bytes} bytes for {} of {name}; expected at most {most}",
            input.len()
        );
    }
    Ok(())
}

/// Inputs that announce much, nest deeply, or consist of the smallest values.
#[expect(clippy::too_many_lines, reason = "a table")]
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let small = [0x01, 0x80, 0, 0, 0, 0];
    vec![
        ("nested JSON lists", vec![b'['; LONGEST]),
        (
            "JSON numbers",
            [&b"["[..], &b"1,".repeat(LONGEST / 2)].concat(),
        ),
        (
            "JSON maps",
            [&b"["[..], &b"{},".repeat(LONGEST / 3)].concat(),
        ),
        (
            "JSON topics",
            [
                &b"{\"op\":\"subscribe\",\"topics\":["[..],
                &b"\"\",".repeat(LONGEST / 3),
                b"\"\"]}",
            ]
            .concat(),
        ),
        (
            "JSON positions",
            [
                &b"{\"op\":\"subscribe\",\"topics\":[],\"from\":{\"epoch\":\"\",\"seqs\":{"[..],
                &b"\"\":1,".repeat(LONGEST / 5),
                b"\"\":1}}}",
            ]
            .concat(),
        ),
        (
            "JSON keys",
            [&b"{"[..], &b"\"a\":0,".repeat(LONGEST / 6), b"\"op\":\"\"}"].concat(),
        ),
        (
            "JSON events",
            [
                &b"["[..],
                &b"{\"ch\":\"trade\"},".repeat(LONGEST / 15),
                b"{}]",
            ]
            .concat(),
        ),
        (
            "an escaped text",
            [&b"{\"op\":\""[..], &b"\\u0041".repeat(LONGEST / 6), b"\"}"].concat(),
        ),
        (
            "a large number",
            [&b"{\"op\":\"ping\",\"t\":"[..], &vec![b'9'; LONGEST], b"}"].concat(),
        ),
        ("nested lists", vec![0x91; LONGEST]),
        ("nested maps", [0x81, 0xa1, b'a'].repeat(LONGEST / 3)),
        ("announced list", vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("announced map", vec![0xdf, 0xff, 0xff, 0xff, 0xff]),
        ("announced text", vec![0xdb, 0xff, 0xff, 0xff, 0xff]),
        ("announced bytes", vec![0xc6, 0xff, 0xff, 0xff, 0xff]),
        ("announced extension", vec![0xc9, 0xff, 0xff, 0xff, 0xff, 1]),
        (
            "nils",
            [&[0xdc, 0xff, 0xff][..], &vec![0xc0; LONGEST]].concat(),
        ),
        (
            "empty maps",
            [&[0xdc, 0xff, 0xff][..], &vec![0x80; LONGEST]].concat(),
        ),
        (
            "empty texts as topics",
            [
                &b"\x82\xa2op\xa9subscribe\xa6topics\xdc\xff\xff"[..],
                &vec![0xa0; 0xffff],
            ]
            .concat(),
        ),
        (
            "empty positions",
            [
                &b"\x82\xa2op\xa9subscribe\xa4from\x81\xa4seqs\xdf\0\0\xff\xff"[..],
                &b"\xa0\x01".repeat(LONGEST / 2),
            ]
            .concat(),
        ),
        (
            "short positions",
            [
                &b"\x82\xa2op\xa9subscribe\xa4from\x81\xa4seqs\xdf\0\0\x20\0"[..],
                &b"\xa6abcdef\x01".repeat(LONGEST / 8),
            ]
            .concat(),
        ),
        (
            "empty keys",
            [&b"\xdf\0\0\xff\xff"[..], &b"\xa0\x01".repeat(LONGEST / 2)].concat(),
        ),
        ("2^62 bytes in a frame", frame(1 << 62)),
        ("a frame at the limit", frame(LONGEST as u64)),
        ("empty fragments", small.repeat(LONGEST / small.len())),
        ("pings", [0x89, 0x80, 0, 0, 0, 0].repeat(LONGEST / 6)),
        (
            "empty messages",
            [0x82, 0x80, 0, 0, 0, 0].repeat(LONGEST / 6),
        ),
    ]
}

/// Seeds of the fuzz targets.
fn seeds() -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for target in ["request", "frames", "server_message"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        for file in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            found.push(std::fs::read(file?.path())?);
        }
    }
    Ok(found)
}

#[test]
fn no_input_allocates_more_than_sixteen_times_its_size() -> Result<()> {
    for (name, bomb) in bombs() {
        for length in [1, 100, 1000, 10_000, bomb.len()] {
            check(name, &bomb[..length.min(bomb.len())])?;
        }
    }
    for seed in seeds()? {
        // Frames begin with a byte of the target in some corpora.
        for cut in [0, 1, seed.len() / 2, seed.len()] {
            check("a seed", &seed[..cut.min(seed.len())])?;
        }
        let times = LONGEST / seed.len().max(1);
        check("a repeated seed", &seed.repeat(times.min(1000)))?;
    }
    Ok(())
}
