//! Random inputs: mutations of seeds, enlarged inputs, and the reduction of a failing one.

use std::cell::Cell;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tickcast::clock::thread_cpu_time;

use crate::harness::Target;
use crate::measure::{assert_bounded, assert_linear};

/// Maximum length of a mutated input; the enlarged ones are longer.
const MUTATED_BYTES_MAX: usize = 4096;
/// One of so many inputs is enlarged.
const ENLARGED_ONE_IN: u64 = 25;
/// Length of an enlarged input, before it is doubled.
const ENLARGED_BYTES: usize = 16 << 10;
/// Attempts to reduce a failing input.
const REDUCTIONS_MAX: usize = 2000;

/// Runs a target with the seeds themselves.
pub(crate) fn seeds(target: &Target, corpus: &[(String, Vec<u8>)]) {
    for (name, input) in corpus {
        eprintln!("fuzz {}: {name}", target.name);
        run(target, input);
    }
}

fn run(target: &Target, input: &[u8]) {
    (target.check)(input);
    assert_bounded(target, input);
}

/// Runs a target with random inputs, as long as its processor time lasts. Input `n` depends on the
/// seed and on `n` alone.
pub(crate) fn random(target: &Target, corpus: &[(String, Vec<u8>)]) {
    silence();
    let seed = seed();
    let budget = Duration::from_secs(seconds());
    let begun = thread_cpu_time();
    // A stack overflow ends the process without a message; the seed is then in this file.
    let note = folder().join(format!("{}.seed", target.name));
    std::fs::write(note, seed.to_string()).expect("the folder of the build is writable");
    let mut number = 0;
    while thread_cpu_time().saturating_sub(begun) < budget {
        let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add(number));
        let input = mutated(&mut random, corpus, target.words);
        expect_success(target, &input, seed, |input| run(target, input));
        if number % ENLARGED_ONE_IN == 0 {
            let (once, twice) = enlarged(&mut random, &input, target.bytes_max);
            expect_success(target, &twice, seed, |input| run(target, input));
            assert_linear(target, &once, &twice);
        }
        number += 1;
    }
    eprintln!("fuzz {}: seed {seed}, {number} inputs", target.name);
}

fn is_full() -> bool {
    std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1")
}

fn seed() -> u64 {
    std::env::var("TICKCAST_FUZZ_SEED").map_or_else(
        |_unset| if is_full() { rand::random() } else { 1 },
        |text| text.parse().expect("TICKCAST_FUZZ_SEED is a number"),
    )
}

fn seconds() -> u64 {
    std::env::var("TICKCAST_FUZZ_SECONDS").map_or(if is_full() { 20 } else { 2 }, |text| {
        text.parse().expect("TICKCAST_FUZZ_SECONDS is a number")
    })
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Runs a test of an input; reduces and keeps an input that fails.
fn expect_success(target: &Target, input: &[u8], seed: u64, test: impl Fn(&[u8])) {
    let fails = |input: &[u8]| catch_unwind(AssertUnwindSafe(|| test(input))).is_err();
    SILENT.set(true);
    let reduced = fails(input).then(|| reduced(input, fails));
    SILENT.set(false);
    let Some(reduced) = reduced else {
        return;
    };
    let file = folder().join(format!("{}.failure", target.name));
    std::fs::write(&file, &reduced).expect("the folder of the build is writable");
    let mut hex = String::new();
    for byte in reduced.iter().take(200) {
        write!(hex, "{byte:02x}").expect("a String takes all");
    }
    eprintln!(
        "fuzz {}: seed {seed} fails; the input, reduced to {} bytes, is in {}\n{hex}\n{}",
        target.name,
        reduced.len(),
        file.display(),
        reduced[..reduced.len().min(400)].escape_ascii(),
    );
    test(&reduced);
    unreachable!("the test of {} depends on more than its input", target.name);
}

thread_local! {
    /// True while the panics of this thread are not printed.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Prints no panic of an input that is still to be reduced.
fn silence() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !SILENT.get() {
                print(panic);
            }
        }));
    });
}

/// Removes parts of a failing input as long as it fails.
fn reduced(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut attempts = 0;
    let mut part = best.len().div_ceil(2);
    while part > 0 && attempts < REDUCTIONS_MAX {
        let mut at = 0;
        while at < best.len() && attempts < REDUCTIONS_MAX {
            let end = (at + part).min(best.len());
            let shorter = [&best[..at], &best[end..]].concat();
            attempts += 1;
            if fails(&shorter) {
                best = shorter;
            } else {
                at = end;
            }
        }
        part /= 2;
    }
    best
}

/// A seed after some random changes.
fn mutated(random: &mut ChaCha8Rng, corpus: &[(String, Vec<u8>)], words: &[&[u8]]) -> Vec<u8> {
    let mut input = pick(random, corpus).1.clone();
    input.truncate(MUTATED_BYTES_MAX);
    for _ in 0..random.random_range(0..8) {
        change(random, &mut input, corpus, words);
        input.truncate(MUTATED_BYTES_MAX);
    }
    input
}

fn pick<'t, T>(random: &mut ChaCha8Rng, all: &'t [T]) -> &'t T {
    &all[random.random_range(0..all.len())]
}

/// A random range of positions, short ones more often.
fn range(random: &mut ChaCha8Rng, len: usize) -> std::ops::Range<usize> {
    let start = random.random_range(0..=len);
    let longest = if random.random_bool(0.5) { 8 } else { len };
    let end = random.random_range(start..=len.min(start + longest));
    start..end
}

/// Numbers at which decoders change their behaviour.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e9",
    "255",
    "65536",
    "4294967296",
    "9007199254740992",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "79228162514264337593543950335",
    "0.0000000000000000000000000001",
];

fn change(
    random: &mut ChaCha8Rng,
    input: &mut Vec<u8>,
    corpus: &[(String, Vec<u8>)],
    words: &[&[u8]],
) {
    let part = range(random, input.len());
    match random.random_range(0..9) {
        0 => {
            if let Some(byte) = input.get_mut(part.start) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            let interesting = [0, 1, 0x7f, 0x80, 0x90, 0xc0, 0xdd, 0xdf, 0xff, b'"', b'\n'];
            let byte = *pick(random, &interesting);
            input.splice(part.start..part.start, [byte]);
        }
        2 => drop(input.drain(part)),
        3 => {
            let copy = input[part.clone()].to_vec();
            let at = random.random_range(0..=input.len());
            input.splice(at..at, copy);
        }
        4 => {
            let copy = input[part.clone()]
                .to_vec()
                .repeat(random.random_range(2..40));
            input.splice(part.end..part.end, copy);
        }
        5 => {
            let (_, other) = pick(random, corpus);
            let range = range(random, other.len());
            input.splice(part, other[range].iter().copied());
        }
        6 | 7 if !words.is_empty() => {
            let word = *pick(random, words);
            let until = if random.random_bool(0.5) {
                part.end
            } else {
                part.start
            };
            input.splice(part.start..until, word.iter().copied());
        }
        _ => replace_number(random, input, part.start),
    }
}

/// Replaces the next number of a text.
fn replace_number(random: &mut ChaCha8Rng, input: &mut Vec<u8>, from: usize) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let Some(start) = input[from..].iter().position(is_digit).map(|at| at + from) else {
        return;
    };
    let len = input[start..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    let number = *pick(random, &NUMBERS);
    input.splice(start..start + len, number.bytes());
}

/// An input whose repeated part makes it long, and one with twice as many repetitions.
fn enlarged(random: &mut ChaCha8Rng, input: &[u8], bytes_max: usize) -> (Vec<u8>, Vec<u8>) {
    let part = range(random, input.len());
    let (before, after) = (&input[..part.start], &input[part.end..]);
    let piece = if part.is_empty() {
        b"[".to_vec()
    } else {
        input[part].to_vec()
    };
    let length = ENLARGED_BYTES.min(bytes_max / 2);
    let times = (length / piece.len()).max(1);
    let with = |times| [before, &piece.repeat(times), after].concat();
    (with(times), with(2 * times))
}
