//! Identity that a credential has proven.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::market::UnixNanos;

/// Identity that a credential has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Id of the key, or subject (`sub`) of the token.
    pub subject: Arc<str>,
    /// Name of the role.
    pub role: Arc<str>,
    /// End of the token's validity; `None`: it never ends.
    pub expires: Option<UnixNanos>,
    /// Key that proved the identity; once it is gone, the grant is revoked.
    pub(super) proof: Proof,
}

/// Digest of the key material that verified a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Proof([u8; 16]);

impl Proof {
    /// Digest of the parts; their kinds and lengths are part of it.
    pub(super) fn of(kind: &str, parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        digest.update(kind);
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut proof = [0; 16];
        proof.copy_from_slice(&digest[..16]);
        Self(proof)
    }
}
