//! Keys: `ID.SECRET`, stored as hashes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Refused;
use super::argon::Argon2Hash;
use super::grant::{Grant, Proof};

/// Maximum size of a key id, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Size of a new secret, in bytes.
const SECRET_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// True for an id of letters, digits, `-` and `_`.
pub fn is_key_id(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Hash of a key's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// SHA-256, for secrets that a machine has generated.
    Sha256([u8; 32]),
    /// Argon2, for secrets that a person has chosen.
    Argon2(Argon2Hash),
}

impl Secret {
    fn proof(&self) -> Proof {
        match self {
            Self::Sha256(hash) => Proof::of("sha256", &[hash]),
            Self::Argon2(hash) => hash.proof(),
        }
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Public part, named in logs.
    pub id: Arc<str>,
    /// Hash of the secret part.
    pub secret: Secret,
    /// Role of the clients that present it.
    pub role: Arc<str>,
}

/// All keys of a server.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: HashMap<Arc<str>, Key>,
    /// Most expensive hash: the cost of every failure, so that time reveals no id.
    decoy: Option<Argon2Hash>,
    /// SHA-256 of secrets that have passed their Argon2 hash, by id: the clients of a key reconnect
    /// without another hash. Bounded by the number of keys.
    passed: Mutex<HashMap<Arc<str>, [u8; 32]>>,
}

/// Result of a quick check.
pub(super) enum Checked {
    /// Decided.
    Decided(Result<Grant, Refused>),
    /// An Argon2 hash is due.
    Slow(SlowCheck),
}

/// Argon2 verification that is due.
#[derive(Debug)]
pub(super) struct SlowCheck {
    key: Option<Key>,
    hash: Argon2Hash,
    secret: Vec<u8>,
}

impl KeySet {
    /// Creates a set; of keys with the same id, the last one counts.
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let keys: HashMap<Arc<str>, Key> = keys
            .into_iter()
            .map(|key| (Arc::clone(&key.id), key))
            .collect();
        let hashes = keys.values().filter_map(|key| match &key.secret {
            Secret::Argon2(hash) => Some(hash),
            Secret::Sha256(_) => None,
        });
        let decoy = hashes.max_by_key(|hash| hash.cost()).cloned();
        Self {
            keys,
            decoy,
            passed: Mutex::default(),
        }
    }

    /// Checks a key without expensive work.
    pub(super) fn check(&self, token: &str) -> Checked {
        let Some((id, secret)) = token.split_once('.') else {
            return Checked::Decided(Err(Refused::MalformedKey));
        };
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let key = self.keys.get(id);
        let (expected, argon) = match key.map(|key| &key.secret) {
            Some(Secret::Sha256(stored)) => (Some(*stored), None),
            Some(Secret::Argon2(argon)) => (self.passed().get(id).copied(), Some(argon)),
            None => (None, None),
        };
        let equal: bool = hash.ct_eq(&expected.unwrap_or_default()).into();
        if let Some(key) = key.filter(|_| equal && expected.is_some()) {
            return Checked::Decided(Ok(grant(key)));
        }
        // Whatever is wrong costs the same.
        let Some(decoy) = &self.decoy else {
            return Checked::Decided(Err(Refused::WrongKey));
        };
        Checked::Slow(SlowCheck {
            key: key.filter(|_| argon.is_some()).cloned(),
            hash: argon.unwrap_or(decoy).clone(),
            secret: secret.as_bytes().to_vec(),
        })
    }

    /// Executes the expensive part of a check.
    pub(super) fn finish(&self, check: SlowCheck) -> Result<Grant, Refused> {
        let verified = check.hash.verifies(&check.secret);
        let key = check.key.filter(|_| verified).ok_or(Refused::WrongKey)?;
        // The set may have changed meanwhile.
        let current = self.keys.get(&key.id).ok_or(Refused::WrongKey)?;
        if current.secret != key.secret {
            return Err(Refused::WrongKey);
        }
        let hash: [u8; 32] = Sha256::digest(&check.secret).into();
        self.passed().insert(Arc::clone(&current.id), hash);
        Ok(grant(current))
    }

    fn passed(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, [u8; 32]>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The grant as of this set; `None` if its key is gone or has another secret.
    pub(super) fn review(&self, held: &Grant) -> Option<Grant> {
        let key = self.keys.get(&held.subject)?;
        (key.secret.proof() == held.proof).then(|| grant(key))
    }
}

fn grant(key: &Key) -> Grant {
    Grant {
        subject: Arc::clone(&key.id),
        role: Arc::clone(&key.role),
        expires: None,
        proof: key.secret.proof(),
    }
}

/// A new key: its text is shown once, its hash is stored.
#[derive(Debug)]
pub struct NewKey {
    /// Text that a client presents.
    pub token: String,
    /// Hash of the secret.
    pub secret: Secret,
}

impl NewKey {
    /// Makes a key from random bytes.
    pub fn make(id: &str, with_argon2: bool) -> Self {
        let secret = BASE64URL_NOPAD.encode(&rand::random::<[u8; SECRET_BYTES]>());
        let hash = if with_argon2 {
            let salt = rand::random::<[u8; SALT_BYTES]>();
            Secret::Argon2(Argon2Hash::of(secret.as_bytes(), &salt))
        } else {
            Secret::Sha256(Sha256::digest(secret.as_bytes()).into())
        };
        Self {
            token: format!("{id}.{secret}"),
            secret: hash,
        }
    }
}
