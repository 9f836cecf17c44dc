//! `tickcast`: arguments → command → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tickcast::run()
}
