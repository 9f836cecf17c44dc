//! Credentials: tokens, keys, tickets, key sets and hashes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tickcast::access::{ChannelSet, Role, Roles};
use tickcast::auth::{
    Algorithm, Argon2Hash, AuthSettings, Gate, Grant, JwtRules, Key, KeyRing, KeySet, Policy,
    Presented, Scheme, Secret,
};
use tickcast::market::UnixNanos;

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "tokens",
    check,
    work,
    memory: Memory {
        per_byte: 64,
        constant: 256 << 10,
    },
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"{\"alg\":\"HS256\"}",
        b"{\"alg\":\"none\"}",
        b"\"kid\":\"k\"",
        b"\"crit\":[]",
        b"\n{",
        b"\"exp\":1800000060",
        b"\"exp\":1e308",
        b"\"nbf\":-1",
        b"\"aud\":[\"tickcast\"]",
        b"\"iss\":\"https://id.example/\"",
        b"\"sub\":\"\"",
        b"\"role\":[\"reader\"]",
        b".",
        b"=",
        b"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}",
        b"\"kty\":\"oct\",\"k\":\"",
        b"-----BEGIN PUBLIC KEY-----\n",
        b"$argon2id$v=19$m=19456,t=2,p=1$",
        b"m=4294967295,t=4294967295",
    ],
};

const NOW: UnixNanos = UnixNanos(1_800_000_000_000_000_000);
const LEEWAY: Duration = Duration::from_secs(10);
const SECRET: &[u8; 32] = b"a secret of thirty-two bytes....";
/// Key whose secret is `secret`.
const KEY: &str = "id.secret";

thread_local! {
    static GATES: [Arc<Gate>; 2] = [gate(keys()), gate(tokens())];
}

fn gate(scheme: Scheme) -> Arc<Gate> {
    let roles = vec![Role::new("reader", &[], ChannelSet::ALL, None)];
    let settings = AuthSettings {
        failures_per_minute: u32::MAX,
        tickets_max: 4,
        ticket_lifetime: Duration::from_secs(30),
        ..AuthSettings::default()
    };
    let policy = Policy {
        settings,
        scheme,
        roles: Arc::new(Roles::new(roles, None)),
    };
    Gate::new(policy).0
}

fn keys() -> Scheme {
    let secret = Secret::Sha256(Sha256::digest(b"secret").into());
    Scheme::Keys(KeySet::new([Key {
        id: "id".into(),
        secret,
        role: "reader".into(),
    }]))
}

fn tokens() -> Scheme {
    let rules = JwtRules {
        algorithms: Algorithm::ALL.to_vec(),
        issuers: vec!["https://id.example/".to_owned()],
        audiences: vec!["tickcast".to_owned()],
        leeway: LEEWAY,
        role_claim: Some("role".to_owned()),
        role: None,
    };
    let ring = KeyRing::from_key(SECRET, Algorithm::Hs256).expect("a long secret");
    Scheme::Jwt {
        rules,
        ring: Arc::new(ring),
        can_refresh: false,
    }
}

/// Only the key itself and tokens with the right signature are accepted, and of these only the
/// ones whose claims are in order.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let [by_key, by_token] = present(text);
        assert_eq!(by_key.is_some(), text == KEY, "{by_key:?}");
        if by_token.is_some() {
            let (message, signature) = text.rsplit_once('.').expect("a token has parts");
            let right = BASE64URL_NOPAD.encode(&hmac(message.as_bytes()));
            assert_eq!(signature, right, "{by_token:?}");
        }
        redeem(text);
        if let Err(error) = Argon2Hash::parse(text) {
            assert_printable(&error.to_string());
        }
    }
    for algorithm in Algorithm::ALL {
        if let Err(error) = KeyRing::from_key(bytes, algorithm) {
            assert_printable(&error.to_string());
        }
    }
    if let Err(error) = KeyRing::from_jwks(bytes, true) {
        assert_printable(&error.to_string());
    }
    signed_claims(bytes);
}

/// Signs the input, a header and claims in two lines, and judges the claims independently.
fn signed_claims(bytes: &[u8]) {
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (header, claims) = (&bytes[..line], &bytes[line + 1..]);
    let [_, Some(grant)] = present(&signed(header, claims)) else {
        return;
    };
    let claims: Value = serde_json::from_slice(claims).expect("accepted claims are JSON");
    let exp = claims["exp"].as_f64().expect("an accepted token ends");
    let now = NOW.0 as f64 / 1e9;
    assert!(exp + LEEWAY.as_secs_f64() > now - 1.0, "{claims}");
    if let Some(nbf) = claims["nbf"].as_f64() {
        assert!(nbf <= now + LEEWAY.as_secs_f64() + 1.0, "{claims}");
    }
    assert_eq!(claims["iss"], "https://id.example/");
    let audience = &claims["aud"];
    let is_ours = |value: &Value| value == "tickcast";
    let all = audience
        .as_array()
        .is_some_and(|all| all.iter().any(is_ours));
    assert!(is_ours(audience) || all, "{claims}");
    assert_eq!(
        (&*grant.role, Some(&*grant.subject)),
        ("reader", claims["sub"].as_str())
    );
    let header: Value = serde_json::from_slice(header).expect("an accepted header is JSON");
    assert_eq!(header["alg"], "HS256");
}

pub(crate) fn work(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _grants = present(text);
        let _hash = Argon2Hash::parse(text);
    }
    let _ring = KeyRing::from_jwks(bytes, true);
    if let Some(line) = bytes.iter().position(|byte| *byte == b'\n') {
        let _grants = present(&signed(&bytes[..line], &bytes[line + 1..]));
    }
}

/// Grants of a credential by keys and by tokens.
fn present(text: &str) -> [Option<Grant>; 2] {
    GATES.with(|gates| {
        gates.each_ref().map(|gate| {
            let address = IpAddr::from([192, 0, 2, 1]);
            match gate.present(text, address, NOW, |_| {}) {
                Presented::Decided(Ok(grant)) => Some(grant),
                Presented::Decided(Err(refused)) => {
                    assert_printable(&refused.to_string());
                    None
                }
                Presented::Queued => None,
            }
        })
    })
}

/// A ticket is redeemed once, by its own text and origin alone.
fn redeem(text: &str) {
    let [Some(grant), _] = present(KEY) else {
        unreachable!("the key is accepted");
    };
    GATES.with(|[gate, _]| {
        let address = IpAddr::from([192, 0, 2, 1]);
        let redeemed =
            |ticket: &str, origin| gate.redeem_ticket(ticket, origin, address, NOW).is_ok();
        let ticket = gate.issue_ticket(grant, Some("https://a.example"), NOW);
        let (ticket, _) = ticket.expect("the one before is used");
        assert!(!redeemed(text, Some("https://a.example")));
        assert!(redeemed(&ticket, Some("https://a.example")));
        assert!(
            !redeemed(&ticket, Some("https://a.example")),
            "a ticket is used once"
        );
    });
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let encode = |part: &[u8]| BASE64URL_NOPAD.encode(part);
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(&hmac(message.as_bytes()));
    format!("{message}.{signature}")
}

/// HMAC-SHA256 (RFC 2104) by the secret.
fn hmac(message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        for (at, secret) in SECRET.iter().enumerate() {
            block[at] ^= secret;
        }
        block
    };
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}
