//! Everything by which credentials are checked, as one immutable value.

use std::sync::Arc;

use super::Refused;
use super::grant::Grant;
use super::jwks::KeyRing;
use super::jwt::{self, JwtRules};
use super::keys::{self, KeySet, SlowCheck};
use super::settings::{AuthSettings, KeySource};
use crate::access::{Principal, Roles};
use crate::market::UnixNanos;

/// Credentials that are accepted.
#[derive(Debug)]
pub enum Scheme {
    /// None: there is no authentication.
    None,
    /// Keys.
    Keys(KeySet),
    /// Tokens that these keys have signed.
    Jwt {
        /// Rules for claims.
        rules: JwtRules,
        /// Verification keys.
        ring: Arc<KeyRing>,
        /// True if an unknown key id may be that of a new key: the set can be requested again.
        can_refresh: bool,
    },
}

/// Everything by which credentials are checked. A reload replaces it.
#[derive(Debug)]
pub struct Policy {
    /// Settings from which it was made.
    pub settings: AuthSettings,
    /// Accepted credentials.
    pub scheme: Scheme,
    /// Roles of the server.
    pub roles: Arc<Roles>,
}

/// Result of a quick check.
pub(super) enum Checked {
    /// Decided.
    Decided(Result<Grant, Refused>),
    /// An Argon2 hash is due.
    Slow(SlowCheck),
    /// The key may be in a newer key set.
    Refresh,
}

impl Policy {
    /// Policy with other verification keys; `None` if tokens are not accepted.
    pub fn with_ring(&self, ring: KeyRing) -> Option<Self> {
        let Scheme::Jwt {
            rules, can_refresh, ..
        } = &self.scheme
        else {
            return None;
        };
        Some(Self {
            settings: self.settings.clone(),
            scheme: Scheme::Jwt {
                rules: rules.clone(),
                ring: Arc::new(ring),
                can_refresh: *can_refresh,
            },
            roles: Arc::clone(&self.roles),
        })
    }

    /// Policy with the verification keys of an earlier one, if both are from the same address.
    pub fn keeping_ring_of(mut self, before: &Self) -> Self {
        let has_same_address = match (self.settings.key_source(), before.settings.key_source()) {
            (Some(KeySource::JwksUrl { url, .. }), Some(KeySource::JwksUrl { url: old, .. })) => {
                url == old
            }
            _ => false,
        };
        if let (true, Scheme::Jwt { ring, .. }, Scheme::Jwt { ring: old, .. }) =
            (has_same_address, &mut self.scheme, &before.scheme)
        {
            *ring = Arc::clone(old);
        }
        self
    }

    /// True without authentication.
    pub const fn is_open(&self) -> bool {
        matches!(self.scheme, Scheme::None)
    }

    /// True if clients without credentials are refused.
    pub const fn requires_credentials(&self) -> bool {
        !self.is_open() && !self.settings.has_anonymous
    }

    /// Checks a credential without expensive work.
    pub(super) fn check(&self, token: &str, now: UnixNanos) -> Checked {
        match &self.scheme {
            Scheme::None => Checked::Decided(Err(Refused::NoScheme)),
            Scheme::Keys(keys) => match keys.check(token) {
                keys::Checked::Decided(outcome) => Checked::Decided(outcome),
                keys::Checked::Slow(check) => Checked::Slow(check),
            },
            Scheme::Jwt {
                rules,
                ring,
                can_refresh,
            } => match jwt::verify(token, rules, ring, &self.roles, now) {
                Err(Refused::UnknownKey) if *can_refresh => Checked::Refresh,
                outcome => Checked::Decided(outcome),
            },
        }
    }

    pub(super) fn finish(&self, check: SlowCheck) -> Result<Grant, Refused> {
        match &self.scheme {
            Scheme::Keys(keys) => keys.finish(check),
            _ => Err(Refused::WrongKey),
        }
    }

    /// Client with this identity; `None` if its role no longer exists.
    pub fn principal(&self, grant: &Grant) -> Option<Principal> {
        let role = self.roles.named(&grant.role)?;
        Some(Principal::authenticated(&grant.subject, role))
    }

    /// Client without credentials: the role for it, or nobody if credentials are required.
    pub fn without_credentials(&self) -> Principal {
        if self.requires_credentials() {
            Principal::nobody()
        } else {
            Principal::anonymous(&self.roles)
        }
    }

    /// The grant as of this policy: with the present role of its key. `None` if its key is gone.
    pub fn review(&self, grant: &Grant) -> Option<Grant> {
        match &self.scheme {
            Scheme::None => None,
            Scheme::Keys(keys) => keys.review(grant),
            Scheme::Jwt { ring, .. } => ring.holds(grant.proof).then(|| grant.clone()),
        }
    }
}
