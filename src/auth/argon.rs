//! Argon2 hashes of secrets, with bounded parameters.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use super::grant::Proof;

/// Maximum memory of a verification, in KiB. One verification runs at a time.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// Maximum number of passes.
const PASSES_MAX: u32 = 10;
/// Maximum degree of parallelism.
const LANES_MAX: u32 = 4;
/// Maximum memory of a verification, in bytes.
pub const ARGON2_BYTES_MAX: usize = MEMORY_KIB_MAX as usize * 1024;
/// Parameters of new hashes: 19 MiB, two passes (OWASP, *Password Storage*).
const NEW: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Smallest accepted output and salt, in bytes.
const OUTPUT_BYTES_MIN: usize = 16;
const SALT_BYTES_MIN: usize = 8;

/// Reason for which a PHC string is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Argon2Error {
    /// Not a PHC string of Argon2.
    #[error("expected a PHC string of Argon2, e.g. $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH")]
    Form,
    /// Parameters beyond the bounds.
    #[error(
        "parameters out of bounds: expected m of at most {MEMORY_KIB_MAX}, t of at most {PASSES_MAX}, p of at most {LANES_MAX}, a salt of at least {SALT_BYTES_MIN} bytes and a hash of at least {OUTPUT_BYTES_MIN}"
    )]
    Bounds,
}

/// Argon2 hash of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argon2Hash {
    text: Arc<str>,
    hash: Arc<PasswordHash>,
    /// Memory in KiB times passes.
    cost: u64,
}

impl Argon2Hash {
    /// Parses a PHC string and checks its parameters.
    pub fn parse(text: &str) -> Result<Self, Argon2Error> {
        let hash = PasswordHash::new(text).map_err(|_invalid| Argon2Error::Form)?;
        Algorithm::new(hash.algorithm.as_str()).map_err(|_other| Argon2Error::Form)?;
        let params = Params::try_from(&hash).map_err(|_invalid| Argon2Error::Form)?;
        let (Some(output), Some(salt)) = (&hash.hash, &hash.salt) else {
            return Err(Argon2Error::Form);
        };
        let is_bounded = params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX
            && output.len() >= OUTPUT_BYTES_MIN
            && salt.len() >= SALT_BYTES_MIN;
        if !is_bounded {
            return Err(Argon2Error::Bounds);
        }
        Ok(Self {
            text: text.into(),
            cost: u64::from(params.m_cost()) * u64::from(params.t_cost()),
            hash: Arc::new(hash),
        })
    }

    /// Hashes a secret with the parameters of new keys.
    pub(super) fn of(secret: &[u8], salt: &[u8]) -> Self {
        let (memory, passes, lanes) = NEW;
        let params = Params::new(memory, passes, lanes, None).expect("the constants are valid");
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon
            .hash_password_with_salt(secret, salt)
            .expect("the salt has a valid length");
        Self::parse(&hash.to_string()).expect("the parameters are within the bounds")
    }

    /// True if the secret has this hash. Takes the memory and time of its parameters.
    pub(super) fn verifies(&self, secret: &[u8]) -> bool {
        Argon2::default()
            .verify_password(secret, &*self.hash)
            .is_ok()
    }

    /// Cost of a verification, for comparison with others.
    pub(super) const fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn proof(&self) -> Proof {
        Proof::of("argon2", &[self.text.as_bytes()])
    }

    /// PHC string.
    pub fn text(&self) -> &str {
        &self.text
    }
}
