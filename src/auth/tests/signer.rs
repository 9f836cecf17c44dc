//! Issuer of test tokens.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use ring::{hmac, signature};
use serde_json::{Value, json};

use super::super::Algorithm;

/// Secret of HS256.
pub(super) const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
/// RSA key pair of the tests.
const RSA_PRIVATE: &str = include_str!("rsa_private.pem");
pub(super) const RSA_PUBLIC: &str = include_str!("rsa_public.pem");

/// Key pair of an algorithm.
pub(super) enum Signer {
    Hmac(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.collect();
    BASE64.decode(text.as_bytes()).expect("a PEM file")
}

impl Signer {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::Hs256 => Self::Hmac(SECRET.to_vec()),
            Algorithm::Rs256 => {
                let pair = RsaKeyPair::from_pkcs8(&der(RSA_PRIVATE)).expect("an RSA key");
                Self::Rsa(Box::new(pair))
            }
            Algorithm::Es256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
                let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random);
                Self::Ec(pair.expect("a key"))
            }
            Algorithm::EdDsa => {
                let key = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
                Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("a key"))
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signed)
                    .expect("a signature");
                signed
            }
            Self::Ec(pair) => {
                let signed = pair.sign(&random, message).expect("a signature");
                signed.as_ref().to_vec()
            }
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// Token with this header and these claims.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let signed = BASE64URL_NOPAD.encode(&self.sign(message.as_bytes()));
        format!("{message}.{signed}")
    }

    /// File with the verification key.
    pub(super) fn key_file(&self) -> Vec<u8> {
        let pem = |prefix: &[u8], point: &[u8]| {
            let text = BASE64.encode(&[prefix, point].concat());
            format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
        };
        match self {
            Self::Hmac(secret) => secret.clone(),
            Self::Rsa(_) => RSA_PUBLIC.as_bytes().to_vec(),
            // SubjectPublicKeyInfo up to the key (RFC 5480, RFC 8410).
            Self::Ec(pair) => pem(
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
                pair.public_key().as_ref(),
            ),
            Self::Ed(pair) => pem(
                b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
                pair.public_key().as_ref(),
            ),
        }
    }

    /// Entry of a key set.
    pub(super) fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Hmac(secret) => json!({"kty": "oct", "kid": kid, "k": text(secret)}),
            Self::Rsa(pair) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": text(&public.n), "e": text(&public.e)})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(x), "y": text(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key().as_ref())})
            }
        }
    }
}
