//! Hostile frames and messages: lengths, fragments, floods, bombs.

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;

use crate::arena::{
    CLOSED, Expected, REQUEST_ERRORS, Target, attack, close_code, frame, is_full, market, websocket,
};

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_violate_rfc_6455_are_closed_with_its_codes() -> Result<()> {
    let target = Target::start(&market("session: {message_timeout: 500ms}"))?;
    let expected = Expected {
        name: "invalid frames",
        metric: (CLOSED, "1002"),
    };
    let long = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let flood = async || {
        for (name, bytes, code) in [
            ("2^63 bytes", long(1 << 63), 1009),
            ("2^64 - 1 bytes", long(u64::MAX), 1009),
            ("2^62 bytes", long(1 << 62), 1009),
            ("16 MiB and nothing more", long(16 << 20), 1009),
            (
                "a message above the limit",
                frame(0x82, &vec![0; 70_000]),
                1009,
            ),
            (
                "fragments above the limit",
                [frame(0x02, &[0; 8_000]), frame(0x00, &[0; 8_000]).repeat(8)].concat(),
                1009,
            ),
            (
                "a message that is not completed",
                frame(0x81, &[b'x'; 1000])[..100].to_vec(),
                4408,
            ),
            ("no mask", vec![0x81, 1, b'a'], 1002),
            ("reserved bit", frame(0xc1, b"a"), 1002),
            ("reserved opcode", frame(0x83, b"a"), 1002),
            ("reserved control opcode", frame(0x8b, b"a"), 1002),
            ("fragmented ping", frame(0x09, b"a"), 1002),
            ("long ping", frame(0x89, &[0; 126]), 1002),
            (
                "length in more bytes than it needs",
                vec![0x81, 0xfe, 0, 1, 0, 0, 0, 0, b'a'],
                1002,
            ),
            ("continuation without a start", frame(0x80, b"a"), 1002),
            (
                "start within a message",
                [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
                1002,
            ),
            ("close of one byte", frame(0x88, &[3]), 1002),
            (
                "invalid close code",
                frame(0x88, &999u16.to_be_bytes()),
                1002,
            ),
            ("invalid UTF-8", frame(0x81, &[0xff]), 1007),
            (
                "UTF-8 that is cut",
                [frame(0x01, &[0xe2, 0x82]), frame(0x80, b"a")].concat(),
                1007,
            ),
            ("invalid close reason", frame(0x88, &[3, 0xe8, 0xff]), 1007),
        ] {
            let mut stream = websocket(&target, 2).await?;
            stream.write_all(&bytes).await?;
            let found = close_code(&mut stream).await?;
            ensure!(found == code, "{name}: {found}");
        }
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn control_frames_have_a_rate() -> Result<()> {
    let target = Target::start(&market("limits: {control_frames_per_s: 20}"))?;
    let expected = Expected {
        name: "floods of control frames and fragments",
        metric: (CLOSED, "bad_request"),
    };
    let flood = async || {
        let empty = frame(0x00, b"");
        for bytes in [
            frame(0x89, b"a").repeat(1000),
            frame(0x8a, b"").repeat(1000),
            [
                frame(0x01, b""),
                empty.repeat(if is_full() { 1_000_000 } else { 10_000 }),
            ]
            .concat(),
        ] {
            let mut stream = websocket(&target, 2).await?;
            let (mut reads, mut writes) = stream.split();
            // The server closes while the flood arrives.
            let _closed = writes.write_all(&bytes).await;
            let _all = tokio::io::AsyncReadExt::read_u8(&mut reads).await;
        }
        // One more than ten seconds allow.
        for (name, bytes) in [
            ("pings", frame(0x89, b"a").repeat(201)),
            ("pongs", frame(0x8a, b"").repeat(201)),
            ("fragments", [frame(0x01, b""), empty.repeat(200)].concat()),
        ] {
            let mut stream = websocket(&target, 2).await?;
            stream.write_all(&bytes).await?;
            let code = close_code(&mut stream).await?;
            ensure!(code == 4400, "{name}: {code}");
        }
        Ok(())
    };
    attack(&target, expected, flood).await
}

/// Requests that are cheap to send and should be expensive to decode.
fn bombs() -> Vec<(u8, Vec<u8>)> {
    let text = |text: String| (0x81, text.into_bytes());
    let keys: String = (0..6_000).map(|n| format!("\"k{n}\":0,")).collect();
    vec![
        text("[".repeat(60_000)),
        text("{\"a\":".repeat(12_000)),
        text(format!("{{\"op\":{}", "[".repeat(60_000))),
        text(format!("{{\"op\":\"ping\",\"t\":{}}}", "9".repeat(60_000))),
        text(format!("{{{keys}\"op\":\"none\"}}")),
        text(format!(
            "{{{}\"op\":\"ping\"}}",
            "\"op\":\"ping\",".repeat(4_000)
        )),
        text(format!("\"{}\"", "\\ud800".repeat(10_000))),
        (0x82, vec![0x91; 60_000]),
        (0x82, [[0x81, 0xa1, b'a'].repeat(1000), vec![0xc0]].concat()),
        (0x82, vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        (0x82, vec![0xdf, 0xff, 0xff, 0xff, 0xff]),
        (0x82, vec![0xdb, 0xff, 0xff, 0xff, 0xff]),
        (0x82, vec![0xc6, 0xff, 0xff, 0xff, 0xff]),
        (
            0x82,
            vec![0x81, 0xa2, b'o', b'p', 0xc9, 0xff, 0xff, 0xff, 0xff, 1],
        ),
        (0x82, vec![0x81, 0x01, 0x02]),
        (
            0x82,
            [&[0xde, 0xff, 0xff][..], &[0xa1, b'a', 0xc0].repeat(20_000)].concat(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn decoding_bombs_are_answered_with_an_error() -> Result<()> {
    let target = Target::start(&market(""))?;
    let expected = Expected {
        name: "decoding bombs",
        metric: (REQUEST_ERRORS, "bad_request"),
    };
    let flood = async || {
        for (first, bomb) in bombs() {
            let mut stream = websocket(&target, 2).await?;
            let ping = frame(0x81, b"{\"op\":\"ping\",\"id\":\"alive\"}");
            stream
                .write_all(&[frame(first, &bomb), ping].concat())
                .await?;
            // A single bad request closes nothing: the next one is answered.
            let mut seen = Vec::new();
            let alive = b"\"alive\"";
            while !seen.windows(alive.len()).any(|part| part == alive) {
                let mut buffer = [0; 4096];
                let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await?;
                ensure!(read > 0, "closed: {}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&buffer[..read]);
            }
        }
        // More than 20 bad ones close the connection.
        let mut stream = websocket(&target, 2).await?;
        stream.write_all(&frame(0x81, b"{}").repeat(21)).await?;
        let code = close_code(&mut stream).await?;
        ensure!(code == 4400, "{code}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_requests_are_refused_and_closed() -> Result<()> {
    let target = Target::start(&market("limits: {requests_per_s: 10}"))?;
    let expected = Expected {
        name: "flood of requests",
        metric: (REQUEST_ERRORS, "rate_limit"),
    };
    let flood = async || {
        let request = frame(
            0x81,
            b"{\"op\":\"subscribe\",\"topics\":[\"trade:*\",\"quote:*\"]}",
        );
        let mut stream = websocket(&target, 2).await?;
        stream.write_all(&request.repeat(100)).await?;
        let code = close_code(&mut stream).await?;
        ensure!(code == 4429, "{code}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

/// More names than a slice of a request has.
const NAMES_A_SLICE_MAX: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn the_dearest_legal_requests_are_executed_in_slices() -> Result<()> {
    let target = Target::start(&market(""))?;
    let expected = Expected {
        name: "dear legal requests",
        metric: ("tickcast_written_bytes_total", ""),
    };
    let flood = async || {
        let names = |start: &str| -> String {
            let names: Vec<String> = (0..4_000).map(|n| format!("\"{start}{n}\"")).collect();
            names.join(",")
        };
        let stray: String = (0..2_000).map(|n| format!("\"trade:Z{n}\":1,")).collect();
        let refused: Vec<String> = (0..2_000).map(|n| format!("\"trade:Y{n}\"")).collect();
        let requests = [
            format!("{{\"op\":\"subscribe\",\"topics\":[{}]}}", names("trade:X")),
            format!(
                "{{\"op\":\"subscribe\",\"topics\":[{}]}}",
                names("quote:S*")
            ),
            format!("{{\"op\":\"unsubscribe\",\"topics\":[{}]}}", names("bar:S")),
            format!(
                "{{\"op\":\"subscribe\",\"topics\":[{}],\"from\":{{\"epoch\":\"e\",\"seqs\":{{{}\"trade:S1\":1}}}}}}",
                refused.join(","),
                stray
            ),
            "{\"op\":\"instruments\",\"pattern\":\"*\"}".to_owned(),
        ];
        for request in &requests {
            ensure!(request.len() < 65_000, "{}", request.len());
            let mut streams = Vec::new();
            for _ in 0..3 {
                let mut stream = websocket(&target, 2).await?;
                stream.write_all(&frame(0x81, request.as_bytes())).await?;
                let ping = frame(0x81, b"{\"op\":\"ping\",\"id\":\"alive\"}");
                stream.write_all(&ping).await?;
                streams.push(stream);
            }
            for mut stream in streams {
                let mut seen = Vec::new();
                while memchr::memmem::find(&seen, b"\"alive\"").is_none() {
                    let mut buffer = vec![0; 65_536];
                    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await?;
                    ensure!(read > 0, "closed");
                    seen.extend_from_slice(&buffer[..read]);
                }
                // Each slice is answered by a part of its own.
                let parts = memchr::memmem::find_iter(&seen, b"\"more\":true").count();
                let topics = request.split("\"from\"").next().unwrap_or_default();
                let names = topics.matches(',').count();
                ensure!(
                    parts >= names / NAMES_A_SLICE_MAX,
                    "{parts} parts: {request:.80}"
                );
            }
        }
        Ok(())
    };
    attack(&target, expected, flood).await
}
