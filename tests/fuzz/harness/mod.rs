//! Fuzz targets: one function per target, shared by the random tests of this folder and by
//! libFuzzer (`fuzz/fuzz_targets/`).
//!
//! A target has two functions. `check` asserts the properties of an input, beyond the absence of a
//! panic. `work` is the processing whose memory and processor time are bounded; it does what the
//! product does with the input, once.

pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod derive;
pub(crate) mod frames;
pub(crate) mod publish;
pub(crate) mod record;
pub(crate) mod recording;
pub(crate) mod request;
pub(crate) mod scan;
pub(crate) mod server_message;
pub(crate) mod session;
pub(crate) mod state;
pub(crate) mod tokens;
pub(crate) mod values;
pub(crate) mod web;

/// Target with its bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Name of the target, of its corpus and of its libFuzzer program.
    pub(crate) name: &'static str,
    /// Asserts the properties of an input.
    pub(crate) check: fn(&[u8]),
    /// Processes an input as the product does.
    pub(crate) work: fn(&[u8]),
    /// Maximum memory that `work` holds at once.
    pub(crate) memory: Memory,
    /// Maximum processor time of `work` in a debug build, in milliseconds, besides that of each byte.
    pub(crate) millis: u64,
    /// Maximum length of an input in the product, in bytes.
    pub(crate) bytes_max: usize,
    /// Words that mutations insert.
    pub(crate) words: &'static [&'static [u8]],
}

/// Maximum memory for an input, in bytes: a constant, and a multiple of its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Bytes for every byte of an input.
    pub(crate) per_byte: u64,
    /// Bytes for any input.
    pub(crate) constant: u64,
}

/// Bound of everything that a client sends.
const OF_A_MESSAGE: Memory = Memory {
    per_byte: 16,
    constant: 64 << 10,
};

/// Time of an input that does not unpack to a longer one.
const MILLIS: u64 = 20;

/// Maximum number of characters of an error message: a path, the expected formats, and a hundred
/// characters of the input, each escaped.
const ERROR_CHARS_MAX: usize = 2000;

/// Asserts that an error message can be printed: bounded, without control characters.
fn assert_printable(error: &str) {
    let chars = error.chars().count();
    assert!(chars <= ERROR_CHARS_MAX, "{chars} characters: {error}");
    let is_printable = tickcast::printable::printable(error) == error;
    assert!(is_printable, "unprintable characters in {error:?}");
}

/// Lengths of pieces into which a stream is cut, derived from its bytes.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ bytes.len() as u64;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let next = *rest.first()?;
        state = state
            .rotate_left(5)
            .wrapping_mul(0x2545_f491_4f6c_dd1d)
            .wrapping_add(u64::from(next));
        // Mostly short pieces, so that headers are cut.
        let len = if state.is_multiple_of(8) {
            (state >> 8) as usize % 4096
        } else {
            (state >> 8) as usize % 12
        };
        let (piece, after) = rest.split_at((len + 1).min(rest.len()));
        rest = after;
        Some(piece)
    })
}
