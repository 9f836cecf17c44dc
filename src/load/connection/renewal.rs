//! Renewal of a connection's token before it ends.

use super::{ConnectionError, LoadConnection};
use crate::client::{Bearer, is_expiry_warning};
use crate::load::recorder::TestSettings;
use crate::market::UnixNanos;
use crate::protocol::{Control, Id, Op};

/// Id of the request that renews the token; the ids of subscriptions are smaller.
const RENEWAL: u64 = 1 << 40;

/// Token of a connection.
#[derive(Debug, Default)]
pub(super) struct TokenState {
    presented: Option<Bearer>,
    /// The server has announced the end of the token, and no other one was sent since.
    ends: bool,
    /// The worker has not noticed this yet.
    is_new: bool,
}

impl TokenState {
    pub(super) const fn new(token: Option<Bearer>) -> Self {
        Self {
            presented: token,
            ends: false,
            is_new: false,
        }
    }

    /// Token of the handshake.
    pub(super) const fn token(&self) -> Option<&Bearer> {
        self.presented.as_ref()
    }
}

impl LoadConnection {
    /// Takes a message about the token; false if it is about something else.
    pub(super) fn take_token_message(&mut self, control: &Control) -> bool {
        let is_about = match control {
            Control::Error(error) if error.id == Some(Id::Number(RENEWAL)) => {
                // The same token is presented again.
                self.renewal.presented = None;
                error.retry_ms.is_some()
            }
            control => is_expiry_warning(control),
        };
        if is_about {
            self.renewal.ends = true;
            self.renewal.is_new = true;
        }
        is_about
    }

    /// True once after the server has announced the end of the token.
    pub(in crate::load) fn must_renew(&mut self) -> bool {
        std::mem::take(&mut self.renewal.is_new)
    }

    /// Presents another token, if there is one. True if it must be tried again.
    pub(in crate::load) fn renew(
        &mut self,
        now: UnixNanos,
        settings: &TestSettings,
    ) -> Result<bool, ConnectionError> {
        let Some(shared) = settings.renewed_token().filter(|_| self.renewal.ends) else {
            return Ok(false);
        };
        let token = shared.at(now);
        if self.renewal.presented.as_ref() == Some(&token) {
            return Ok(true);
        }
        self.present(token, settings)?;
        Ok(false)
    }

    /// Presents another token, if there is one, although the server has not announced the end of
    /// the present one.
    pub(in crate::load) fn renew_unasked(
        &mut self,
        now: UnixNanos,
        settings: &TestSettings,
    ) -> Result<(), ConnectionError> {
        let token = settings.renewed_token().map(|shared| shared.at(now));
        match token.filter(|token| self.renewal.presented.as_ref() != Some(token)) {
            Some(token) if self.is_open() => self.present(token, settings),
            _ => Ok(()),
        }
    }

    fn present(&mut self, token: Bearer, settings: &TestSettings) -> Result<(), ConnectionError> {
        let op = Op::Auth {
            token: token.text().to_owned(),
        };
        self.renewal.presented = Some(token);
        self.renewal.ends = false;
        self.ask(op, RENEWAL, settings.encoding);
        self.flush()
    }
}
