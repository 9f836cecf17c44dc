//! Config files.

use tickcast::config::Config;

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "config",
    check,
    work,
    // Operators write configs; a few hundred bytes per node are no danger up to the limit of a file.
    memory: Memory {
        per_byte: 400,
        constant: 2 << 20,
    },
    millis: MILLIS,
    bytes_max: 1 << 20,
    words: &[
        b"sources:\n",
        b"- ",
        b"  ",
        b"[",
        b"{",
        b"]",
        b"}",
        b": ",
        b"&a ",
        b"*a",
        b"!!str ",
        b"|\n",
        b">\n",
        b"---\n",
        b"...\n",
        b"? ",
        b"'",
        b"\"",
        b"#",
        b"\t",
        b"~",
        b"null",
        b"name: ",
        b"kind: sim",
        b"kind: replay",
        b"kind: push",
        b"symbol: A",
        b"start: 10",
        b"hours: ",
        b"24:00",
        b"99:99",
        b"1e400",
        b"-1",
        b"99999999999999999999ms",
        b"4GiB",
        b"\x00",
        b"\xef\xbb\xbf",
    ],
};

/// A problem is printable and bounded, and there are few of them. A config that is accepted is
/// accepted again.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Config::parse(text, "f") {
        Ok(config) => {
            assert!(config.files_needed() > config.connections_max);
            assert!(!config.sources.is_empty());
        }
        Err(error) => {
            assert!((1..=101).contains(&error.problems.len()));
            for problem in &error.problems {
                assert_printable(&problem.to_string());
            }
        }
    }
}

pub(crate) fn work(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _config = Config::parse(text, "f");
    }
}
