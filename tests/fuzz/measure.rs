//! Memory and processor time of one input.

use std::time::Duration;

use tickcast::clock::thread_cpu_time;

use crate::harness::Target;

/// Processor time that each byte of an input may take in a debug build.
const TIME_PER_BYTE: Duration = Duration::from_micros(10);
/// Below this, the time of an input says nothing about growth.
const GROWTH_TIME_MIN: Duration = Duration::from_millis(2);
/// Twice the input may take this many times as long.
const GROWTH_MAX: u32 = 3;
/// Measurements of a suspect; the shortest time counts, because other processes on the machine only
/// add to it.
const REPEATS: usize = 5;

/// Asserts the bounds of memory and processor time for an input.
pub(crate) fn assert_bounded(target: &Target, input: &[u8]) {
    let mut took = Duration::MAX;
    let mut held = 0;
    let longest = Duration::from_millis(target.millis) + TIME_PER_BYTE * input.len() as u32;
    for _ in 0..REPEATS {
        let begun = thread_cpu_time();
        held = allocation_counter::measure(|| (target.work)(input)).bytes_max;
        took = took.min(thread_cpu_time().saturating_sub(begun));
        if took <= longest {
            break;
        }
    }
    let len = input.len() as u64;
    let most = target.memory.per_byte * len + target.memory.constant;
    assert!(
        held <= most,
        "{held} bytes of memory for {len}; expected at most {most}"
    );
    assert!(
        took <= longest,
        "{took:?} for {len} bytes; expected at most {longest:?}"
    );
}

/// Asserts that the time of an input does not grow faster than its length: `twice` is as long as
/// two of `once`.
pub(crate) fn assert_linear(target: &Target, once: &[u8], twice: &[u8]) {
    let time = |input: &[u8]| {
        let begun = thread_cpu_time();
        (target.work)(input);
        thread_cpu_time().saturating_sub(begun)
    };
    let (mut short, mut long) = (time(once), time(twice));
    let is_suspect = |short, long| long > GROWTH_TIME_MIN && long > short * GROWTH_MAX;
    for _ in 0..REPEATS {
        if !is_suspect(short, long) {
            return;
        }
        (short, long) = (short.min(time(once)), long.min(time(twice)));
    }
    assert!(
        !is_suspect(short, long),
        "{} bytes take {short:?}, but {} bytes {long:?}",
        once.len(),
        twice.len()
    );
}
