//! Settings of the config section `auth`.

use std::path::PathBuf;
use std::time::Duration;

use super::jwt::JwtRules;
use super::keys::Key;

/// Settings of the config section `auth`.
#[derive(Debug, Clone, Default)]
pub struct AuthSettings {
    /// Scheme and its settings.
    pub scheme: SchemeSettings,
    /// True if clients without credentials have a role.
    pub has_anonymous: bool,
    /// Time limit for the first `auth` of a connection.
    pub timeout: Duration,
    /// Lifetime of a ticket.
    pub ticket_lifetime: Duration,
    /// Maximum number of unused tickets.
    pub tickets_max: usize,
    /// Maximum number of failed attempts per minute and address.
    pub failures_per_minute: u32,
}

impl AuthSettings {
    /// Origin of the verification keys of tokens.
    pub const fn key_source(&self) -> Option<&KeySource> {
        match &self.scheme {
            SchemeSettings::Jwt(jwt) => Some(&jwt.source),
            SchemeSettings::None | SchemeSettings::Keys { .. } => None,
        }
    }

    /// True without authentication.
    pub const fn is_open(&self) -> bool {
        matches!(self.scheme, SchemeSettings::None)
    }
}

/// Authentication scheme with its settings.
#[derive(Debug, Clone, Default)]
pub enum SchemeSettings {
    /// No authentication.
    #[default]
    None,
    /// Keys of the config and of a file.
    Keys {
        /// Keys of the config.
        keys: Vec<Key>,
        /// File with further keys.
        file: Option<PathBuf>,
    },
    /// Tokens of an identity provider.
    Jwt(JwtSettings),
}

/// Settings of the scheme `jwt`.
#[derive(Debug, Clone)]
pub struct JwtSettings {
    /// Rules for claims.
    pub rules: JwtRules,
    /// Origin of the verification keys.
    pub source: KeySource,
}

/// Origin of the verification keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// One key: PEM, or the secret of HS256.
    File(PathBuf),
    /// JSON Web Key Set.
    JwksFile(PathBuf),
    /// JSON Web Key Set over HTTPS.
    JwksUrl {
        /// Address.
        url: String,
        /// Certificates that are trusted in addition to those of the system, as a PEM file.
        ca: Option<PathBuf>,
        /// Interval at which the set is requested again.
        refresh: Duration,
        /// Minimum time between two requests for an unknown key id.
        cooldown: Duration,
    },
}
