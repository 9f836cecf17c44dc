//! Token that all connections of a test present.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::client::{Bearer, Token, TokenError};
use crate::market::UnixNanos;

/// Time for which a token is not read again.
pub(super) const READ_EVERY: Duration = Duration::from_secs(1);

/// Token of all connections; read at most once a second for all of them.
#[derive(Debug)]
pub(super) struct SharedToken {
    token: Token,
    /// Newest token, and the time at which it was read.
    held: Mutex<(UnixNanos, Bearer)>,
}

impl SharedToken {
    pub(super) fn read(token: Token, now: UnixNanos) -> Result<Self, TokenError> {
        let held = Mutex::new((now, token.read()?));
        Ok(Self { token, held })
    }

    /// Token to present at this time.
    pub(super) fn at(&self, now: UnixNanos) -> Bearer {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.token.renews() && now.since(held.0) >= READ_EVERY {
            held.0 = now;
            // A file that cannot be read is being replaced, or the server refuses the old token.
            if let Ok(token) = self.token.read() {
                held.1 = token;
            }
        }
        held.1.clone()
    }

    /// True if another token may be read later.
    pub(super) const fn renews(&self) -> bool {
        self.token.renews()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_token_is_read_at_most_once_a_second() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let token = Token::hook(move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            Ok(format!("token.{number}"))
        });
        let begun = UnixNanos(0);
        let shared = SharedToken::read(token, begun).expect("a token");
        for ms in 0..2500 {
            let now = begun.plus(Duration::from_millis(ms));
            let expected = format!("token.{}", ms / 1000);
            assert_eq!(shared.at(now).text(), expected);
        }
        assert_eq!(reads.load(Ordering::Relaxed), 3);
    }
}
