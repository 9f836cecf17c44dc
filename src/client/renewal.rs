//! Renewal of a token in the session, before it ends.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::token::{Bearer, Token};
use crate::protocol::{Code, Control, Id};

/// Interval at which the token is read until it is another one.
const READ_EVERY: Duration = Duration::from_millis(500);

/// Token of a connection, and the state of its renewal.
#[derive(Debug)]
pub(super) struct Renewal {
    token: Token,
    /// Token that the server has, or refused for now; it is not presented again.
    presented: Option<Bearer>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The token ends; its successor is read when the timer has elapsed.
    Due(Pin<Box<Sleep>>),
    /// The successor was sent in this request.
    Sent(Id),
}

impl Renewal {
    /// State of a connection whose handshake presented this token.
    pub(super) const fn new(token: Token, presented: Bearer) -> Self {
        Self {
            token,
            presented: Some(presented),
            state: State::Idle,
        }
    }

    pub(super) const fn is_due(&self) -> bool {
        matches!(self.state, State::Due(_))
    }

    /// Takes a control message: the warning that the token ends, or the response to its renewal.
    pub(super) fn take(&mut self, control: &Control) {
        match (control, &self.state) {
            (control, State::Idle) if is_expiry_warning(control) && self.token.renews() => {
                self.state = State::Due(Box::pin(sleep(Duration::ZERO)));
            }
            (Control::Error(error), State::Sent(id)) if error.id.as_ref() == Some(id) => {
                // Another refusal closes the connection.
                let wait = error.retry_ms.map_or(READ_EVERY, Duration::from_millis);
                self.presented = None;
                self.state = State::Due(Box::pin(sleep(wait)));
            }
            (Control::Authenticated(answer), State::Sent(id)) if answer.id.as_ref() == Some(id) => {
                self.state = State::Idle;
            }
            _ => {}
        }
    }

    /// Waits for a token that the server does not have yet. Never returns unless a renewal is due.
    /// Cancel-safe.
    pub(super) async fn next_token(&mut self) -> Bearer {
        loop {
            let State::Due(timer) = &mut self.state else {
                return std::future::pending().await;
            };
            timer.as_mut().await;
            // A token that cannot be read is not complete yet, or is reported by the server's end.
            if let Ok(token) = self.token.read()
                && self.presented.as_ref() != Some(&token)
            {
                return token;
            }
            self.state = State::Due(Box::pin(sleep(READ_EVERY)));
        }
    }

    /// The token was sent in a request.
    pub(super) fn sent(&mut self, token: Bearer, id: Id) {
        self.presented = Some(token);
        self.state = State::Sent(id);
    }
}

/// True for the message by which a server announces the end of a token, a minute before it.
pub(crate) fn is_expiry_warning(control: &Control) -> bool {
    let Control::Error(error) = control else {
        return false;
    };
    error.id.is_none() && error.code == Code::AuthFailed.number()
}
