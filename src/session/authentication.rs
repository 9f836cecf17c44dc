//! Authentication of a connection: what it must still present, until when its token is valid, and
//! which of its requests are answered.

use std::time::Duration;

use super::{Action, Session, close};
use crate::auth::{Grant, Refused};
use crate::market::UnixNanos;
use crate::protocol::{Authenticated, Code, Control, Id, ProtocolError};

/// Time before the end of a token at which the client is warned.
const WARN_BEFORE: Duration = Duration::from_secs(60);

/// State of a client that has authenticated, or must.
#[derive(Debug, Default)]
pub(super) struct Authentication {
    /// Time by which the client must have authenticated; `None`: it has, or need not.
    until: Option<UnixNanos>,
    /// Identity, with the end of its token.
    grant: Option<Grant>,
    /// True if the client was warned of the end of its token.
    warned: bool,
    /// Request whose token is being checked; further requests wait.
    checking: Option<Checking>,
}

/// Request whose token is being checked.
#[derive(Debug)]
struct Checking {
    id: Option<Id>,
}

/// State of a client, as announced in `welcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthState {
    /// No credentials are needed.
    Open,
    /// The client must authenticate first.
    Required,
    /// The client has authenticated.
    Authenticated,
}

impl AuthState {
    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Required => "required",
            Self::Authenticated => "ok",
        }
    }
}

impl Session {
    /// Requires the client to authenticate by this time.
    pub fn require_authentication(&mut self, until: UnixNanos) {
        self.authentication().until = Some(until);
    }

    /// Sets the identity that the client has proven in its handshake.
    pub fn set_grant(&mut self, grant: Grant) {
        self.authentication().grant = Some(grant);
    }

    fn authentication(&mut self) -> &mut Authentication {
        self.auth.get_or_insert_default()
    }

    /// State of the client, as announced in `welcome`.
    pub fn auth_state(&self) -> AuthState {
        match self.auth.as_deref() {
            Some(auth) if auth.until.is_some() => AuthState::Required,
            Some(auth) if auth.grant.is_some() => AuthState::Authenticated,
            _ => AuthState::Open,
        }
    }

    /// Identity of an authenticated client.
    pub fn grant(&self) -> Option<&Grant> {
        self.auth.as_ref()?.grant.as_ref()
    }

    /// True while a token is checked; the next request is handled after it.
    pub fn awaits_check(&self) -> bool {
        self.auth
            .as_ref()
            .is_some_and(|auth| auth.checking.is_some())
    }

    /// Begins the check of a token.
    pub(super) fn begin_check(&mut self, id: Option<Id>, token: String) -> Vec<Action> {
        self.authentication().checking = Some(Checking { id });
        vec![Action::Authenticate(token)]
    }

    /// Refuses a request of a client that must authenticate first.
    pub(super) fn refuse_unauthenticated(id: Option<Id>) -> Vec<Action> {
        let message = "authentication required: send auth with a token first; only auth and ping are answered before";
        let error = ProtocolError::new(id, Code::AuthRequired, message.to_owned());
        vec![Action::Respond(Control::Error(error))]
    }

    /// Compares an identity with that of the session: a renewal must be of the same subject.
    pub fn accepts(&self, grant: &Grant) -> Result<(), Refused> {
        match self.grant() {
            Some(held) if held.subject != grant.subject => Err(Refused::Subject),
            _ => Ok(()),
        }
    }

    /// Ends the check of a token that is valid; the limits of the session are those of the client.
    pub fn on_authenticated(&mut self, grant: Option<Grant>) -> Vec<Action> {
        let limits = *self.limits;
        let auth = self.authentication();
        let id = auth.checking.take().and_then(|checking| checking.id);
        let expires = grant.as_ref().and_then(|grant| grant.expires);
        if grant.is_some() {
            auth.until = None;
            auth.warned = false;
            auth.grant = grant;
        } else if auth.grant.is_none() && auth.until.is_none() {
            self.auth = None;
        }
        let answer = Authenticated {
            id,
            expires: expires.map(|expires| expires.0),
            limits,
        };
        vec![Action::Respond(Control::Authenticated(answer))]
    }

    /// Ends the check of a token that is refused; closes unless the refusal is temporary.
    pub fn on_refused(&mut self, refused: Refused) -> Vec<Action> {
        let checking = self.authentication().checking.take();
        let id = checking.and_then(|checking| checking.id);
        let code = if refused.is_temporary() {
            Code::RateLimit
        } else {
            Code::AuthFailed
        };
        let mut error = ProtocolError::new(id, code, refused.to_string());
        if refused.is_temporary() {
            error.retry_ms = Some(RETRY_MS);
            return vec![Action::Respond(Control::Error(error))];
        }
        vec![
            Action::Respond(Control::Error(error)),
            close(Code::AuthFailed, refused.to_string()),
        ]
    }

    /// Time of the next event of the authentication: its timeout, a warning, or the end of a token.
    pub fn auth_deadline(&self) -> Option<UnixNanos> {
        let auth = self.auth.as_ref().filter(|auth| auth.checking.is_none())?;
        let expires = auth.grant.as_ref().and_then(|grant| grant.expires);
        auth.until.or_else(|| {
            let expires = expires?;
            Some(if auth.warned {
                expires
            } else {
                expires.minus(WARN_BEFORE)
            })
        })
    }

    /// Handles a deadline that has passed.
    pub fn on_auth_deadline(&mut self, now: UnixNanos) -> Vec<Action> {
        if self.auth_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let auth = self.authentication();
        if auth.until.is_some() {
            let message = "no auth message in time; connect again and authenticate".to_owned();
            return vec![close(Code::AuthTimeout, message)];
        }
        let expires = auth.grant.as_ref().and_then(|grant| grant.expires);
        let Some(left) = expires.map(|expires| expires.since(now)) else {
            return Vec::new();
        };
        if left.is_zero() {
            return vec![close(Code::AuthFailed, Refused::Expired.to_string())];
        }
        auth.warned = true;
        let message = format!(
            "token expires in {} s: renew it with auth",
            left.as_secs_f64().ceil()
        );
        let warning = ProtocolError::new(None, Code::AuthFailed, message);
        vec![Action::Respond(Control::Error(warning))]
    }

    /// Replaces the identity by the one that the present policy grants; `None`: it is revoked.
    pub fn on_review(&mut self, grant: Option<Grant>) -> Vec<Action> {
        match grant {
            Some(grant) => {
                self.authentication().grant = Some(grant);
                Vec::new()
            }
            None => vec![close(Code::AuthFailed, Refused::Revoked.to_string())],
        }
    }

    /// Ends a session without credentials once they are required.
    pub fn on_closed_to_anonymous() -> Vec<Action> {
        let message = "authentication required: clients without credentials are no longer admitted; connect with a token";
        vec![close(Code::AuthRequired, message.to_owned())]
    }

    /// Extends the time for authentication by a pause of the server.
    pub fn excuse(&mut self, pause: Duration) {
        let until = self.auth.as_mut().and_then(|auth| auth.until.as_mut());
        if let Some(until) = until {
            *until = until.plus(pause);
        }
    }
}

/// Wait before another attempt after a temporary refusal.
const RETRY_MS: u64 = 5_000;
