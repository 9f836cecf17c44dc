//! Verification keys: one from a file, or a JSON Web Key Set.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::grant::Proof;
use super::refused::Refused;

/// Maximum number of keys in a set.
const KEYS_MAX: usize = 100;
/// Maximum size of a key id, in bytes.
const KID_BYTES_MAX: usize = 256;
/// Minimum size of the secret of HS256, in bytes (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Reason for which keys are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Not a JSON Web Key Set.
    #[error("not a JSON Web Key Set: expected {{\"keys\": [...]}}")]
    Form,
    /// More keys than any issuer has.
    #[error("too many keys: expected at most {KEYS_MAX}")]
    TooMany,
    /// No key of the set can verify a token.
    #[error("no usable key: expected a signature key of kind RSA, EC (P-256) or OKP (Ed25519)")]
    NoKey,
    /// A public key where a secret is expected, or the reverse.
    #[error("not a PEM public key for {0}")]
    NotPem(&'static str),
    /// A private key, which a verifier must not have.
    #[error("a private key: expected the public key only")]
    Private,
    /// A secret that can be guessed.
    #[error("secret too short: expected at least {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    /// A PEM file as a secret.
    #[error("a PEM file as the secret of HS256; expected random bytes, or another algorithm")]
    PemSecret,
}

/// Key that verifies tokens of one algorithm.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    pub(super) proof: Proof,
}

/// All verification keys.
#[derive(Debug, Default)]
pub struct KeyRing(Vec<VerifyingKey>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl KeyRing {
    /// Reads a JSON Web Key Set; keys for other purposes are ignored. `has_secrets`: symmetric keys
    /// are accepted, which a public address must not serve.
    pub fn from_jwks(bytes: &[u8], has_secrets: bool) -> Result<Self, KeyRingError> {
        let set: Set = serde_json::from_slice(bytes).map_err(|_invalid| KeyRingError::Form)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeyRingError::TooMany);
        }
        let keys = set.keys.into_iter().filter_map(|value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            VerifyingKey::of_jwk(&jwk, has_secrets)
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Err(KeyRingError::NoKey);
        }
        Ok(Self(keys))
    }

    /// Reads a file with one key for this algorithm.
    pub fn from_key(bytes: &[u8], algorithm: Algorithm) -> Result<Self, KeyRingError> {
        let is_pem = bytes.trim_ascii_start().starts_with(b"-----BEGIN ");
        let has = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
        if is_pem && has(b"PRIVATE KEY") {
            return Err(KeyRingError::Private);
        }
        let not_pem = |_invalid| KeyRingError::NotPem(algorithm.name());
        let key = match algorithm {
            Algorithm::Hs256 => {
                let secret = bytes.trim_ascii_end();
                if is_pem {
                    return Err(KeyRingError::PemSecret);
                }
                if secret.len() < SECRET_BYTES_MIN {
                    return Err(KeyRingError::ShortSecret);
                }
                DecodingKey::from_secret(secret)
            }
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(bytes).map_err(not_pem)?,
            Algorithm::Es256 => DecodingKey::from_ec_pem(bytes).map_err(not_pem)?,
            Algorithm::EdDsa => DecodingKey::from_ed_pem(bytes).map_err(not_pem)?,
        };
        Ok(Self(vec![VerifyingKey::new(None, algorithm, key)]))
    }

    /// Key for a token. A token without key id is verified by the only key of its algorithm; the
    /// single key of a file verifies any key id.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&VerifyingKey, Refused> {
        let of_algorithm = |key: &&VerifyingKey| key.algorithm == algorithm;
        if let [only] = self.0.as_slice()
            && only.kid.is_none()
        {
            return Some(only).filter(of_algorithm).ok_or(Refused::Algorithm);
        }
        let Some(kid) = kid else {
            let mut fitting = self.0.iter().filter(of_algorithm);
            let first = fitting.next().ok_or(Refused::Algorithm)?;
            return match fitting.next() {
                None => Ok(first),
                Some(_) => Err(Refused::UnknownKey),
            };
        };
        let mut named = self.0.iter().filter(|key| key.kid.as_deref() == Some(kid));
        let first = named.next().ok_or(Refused::UnknownKey)?;
        let mut fitting = std::iter::once(first).chain(named);
        fitting.find(of_algorithm).ok_or(Refused::Algorithm)
    }

    pub(super) fn holds(&self, proof: Proof) -> bool {
        self.0.iter().any(|key| key.proof == proof)
    }
}

impl VerifyingKey {
    fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Self {
        let id = kid.as_deref().unwrap_or_default().as_bytes();
        let name = algorithm.name().as_bytes();
        let proof = match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => Proof::of("jwk", &[id, name, bytes]),
            DecodingKeyKind::RsaModulusExponent { n, e } => Proof::of("jwk", &[id, name, n, e]),
        };
        Self {
            kid,
            algorithm,
            key,
            proof,
        }
    }

    fn of_jwk(jwk: &Jwk, has_secrets: bool) -> Option<Self> {
        let is_for_signatures = matches!(
            jwk.common.public_key_use,
            None | Some(PublicKeyUse::Signature)
        );
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::Rs256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::Es256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDsa
            }
            AlgorithmParameters::OctetKey(_) if has_secrets => Algorithm::Hs256,
            _ => return None,
        };
        let named = match jwk.common.key_algorithm {
            None => Some(algorithm),
            Some(KeyAlgorithm::HS256) => Some(Algorithm::Hs256),
            Some(KeyAlgorithm::RS256) => Some(Algorithm::Rs256),
            Some(KeyAlgorithm::ES256) => Some(Algorithm::Es256),
            Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDsa),
            Some(_) => None,
        };
        let kid = jwk.common.key_id.clone();
        let is_short = kid.as_ref().is_none_or(|kid| kid.len() <= KID_BYTES_MAX);
        if !is_for_signatures || named != Some(algorithm) || !is_short {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let is_long_enough = algorithm != Algorithm::Hs256
            || key
                .try_get_as_bytes()
                .is_ok_and(|secret| secret.len() >= SECRET_BYTES_MIN);
        is_long_enough.then(|| Self::new(kid, algorithm, key))
    }
}
