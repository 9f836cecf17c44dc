#![no_main]

#[allow(dead_code, reason = "the other driver uses the bounds, and each program one target")]
#[path = "../../tests/fuzz/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (harness::record::TARGET.check)(bytes));
