//! A thread without which the server is nothing must not die alone.

use std::io::Write;

/// Ends the process if the thread that holds it panics: a server that looks alive and publishes nothing is worse.
#[derive(Debug)]
pub(crate) struct FatalPanic(pub(crate) &'static str);

impl Drop for FatalPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody is left to tell where standard error is gone.
            let _gone = writeln!(
                std::io::stderr(),
                "tickcast: thread {} panicked; this is a bug, the server exits",
                self.0
            );
            std::process::abort();
        }
    }
}
