//! Authentication: from a presented credential to a subject with a role.
//!
//! A credential is a key (`ID.SECRET`), a JSON Web Token, or a one-use ticket that a browser got
//! for one of them. The module does no I/O: files and key sets are read elsewhere and arrive as a
//! [`Policy`], time arrives as an argument, and a check that takes long ([`Presented::Queued`]) is
//! executed by the thread that owns the receiving end of the [`Gate`].
//!
//! Invariants: a secret is compared in constant time; an unknown key costs as much as a wrong
//! secret; nothing of a token is decoded beyond [`TOKEN_BYTES_MAX`]; every store is bounded.

mod algorithm;
mod argon;
mod crypto;
mod failures;
mod gate;
mod grant;
mod jwks;
mod jwt;
mod keys;
mod policy;
mod refused;
mod settings;
#[cfg(test)]
mod tests;
mod tickets;

pub use algorithm::Algorithm;
pub use argon::{ARGON2_BYTES_MAX, Argon2Hash};
pub use gate::{Gate, Job, Presented};
pub use grant::Grant;
pub use jwks::{KeyRing, KeyRingError};
pub use jwt::JwtRules;
pub use keys::{Key, KeySet, NewKey, Secret, is_key_id};
pub use policy::{Policy, Scheme};
pub use refused::{Outcome, Refused, event_of};
pub use settings::{AuthSettings, JwtSettings, KeySource, SchemeSettings};

/// Maximum size of a credential, in bytes; a larger one is refused before it is decoded.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
