#![no_main]

#[path = "../../tests/fuzz/harness/mod.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (harness::state::TARGET.check)(bytes));
