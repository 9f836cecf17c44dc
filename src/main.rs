//! `tickcast`: arguments → command → exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Returns the memory of a burst to the system; the allocator of glibc keeps it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tickcast::run()
}
