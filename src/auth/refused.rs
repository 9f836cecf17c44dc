//! Reasons for which a credential is refused.

use super::grant::Grant;
use crate::metrics::AuthEvent;

/// Reason for which a credential is refused. The text is shown to the client: it names the rule,
/// and never tells an unknown key from a wrong secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server has no authentication scheme.
    #[error("this server has no authentication; connect without a token")]
    NoScheme,
    /// Not a key.
    #[error("malformed key: expected ID.SECRET, as printed by `tickcast key new`")]
    MalformedKey,
    /// No such key, or another secret.
    #[error("unknown key or wrong secret")]
    WrongKey,
    /// Not a token.
    #[error("malformed token: expected a signed JSON Web Token (HEADER.CLAIMS.SIGNATURE)")]
    MalformedToken,
    /// Larger than any valid credential.
    #[error("token too large: expected at most {} bytes", super::TOKEN_BYTES_MAX)]
    TooLarge,
    /// The algorithm is not in the list, or not that of the key.
    #[error("algorithm not accepted: expected one of auth.jwt.algorithms, and the key's own")]
    Algorithm,
    /// The token names no key of the key set.
    #[error("unknown key id (kid)")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("invalid signature")]
    Signature,
    /// The token has expired.
    #[error("token expired (exp)")]
    Expired,
    /// The token is not valid yet.
    #[error("token not valid yet (nbf)")]
    NotYet,
    /// A claim is missing or has another value.
    #[error("invalid or missing claim `{0}`")]
    Claim(&'static str),
    /// No claim names a role of the server.
    #[error("the token names no role of this server (auth.jwt.role_claim)")]
    NoRole,
    /// The ticket was used, has expired, or was issued for another origin.
    #[error("invalid ticket: expected one that is new, unused and of the same origin")]
    Ticket,
    /// A renewal for another identity.
    #[error("the new token is of another subject; open another connection for it")]
    Subject,
    /// The key was removed, or is no longer accepted.
    #[error("credentials revoked")]
    Revoked,
    /// Too many failures from this address, or too many checks at once.
    #[error("too many authentication attempts; retry later")]
    Busy,
}

impl Refused {
    /// True if the same credential may be accepted later.
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Busy)
    }
}

/// Result of a check.
pub type Outcome = Result<Grant, Refused>;

/// Outcome of a check as a label of the metrics.
pub const fn event_of(outcome: &Outcome) -> AuthEvent {
    match outcome {
        Ok(_) => AuthEvent::Ok,
        Err(Refused::Busy) => AuthEvent::Limited,
        Err(Refused::Expired) => AuthEvent::Expired,
        Err(Refused::Revoked) => AuthEvent::Revoked,
        Err(_) => AuthEvent::Failed,
    }
}
