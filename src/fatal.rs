//! Process abort on a panic of a thread that the server cannot run without.

use std::io::Write;

/// Ends the process if the thread that owns it panics, because a server that seems alive but
/// publishes nothing is worse.
#[derive(Debug)]
pub(crate) struct FatalPanic(pub(crate) &'static str);

impl Drop for FatalPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // No one can be notified if standard error is closed.
            let _gone = writeln!(
                std::io::stderr(),
                "tickcast: thread {} panicked; this is a bug, the server exits",
                self.0
            );
            std::process::abort();
        }
    }
}
