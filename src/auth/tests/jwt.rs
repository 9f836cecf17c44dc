use std::time::Duration;

use serde_json::{Value, json};

use super::super::jwks::KeyRing;
use super::super::jwt::{JwtRules, verify};
use super::super::{Algorithm, Grant, KeyRingError, Refused};
use super::signer::{RSA_PUBLIC, SECRET, Signer};
use super::{NOW, roles};
use crate::market::UnixNanos;

const SECONDS: u64 = NOW.0 / 1_000_000_000;

fn rules(algorithms: &[Algorithm]) -> JwtRules {
    JwtRules {
        algorithms: algorithms.to_vec(),
        issuers: vec!["https://id.example/".to_owned()],
        audiences: vec!["tickcast".to_owned(), "other".to_owned()],
        leeway: Duration::from_secs(10),
        role_claim: Some("role".to_owned()),
        role: None,
    }
}

/// Valid claims with one change; `null` removes a claim.
fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": "https://id.example/", "aud": "tickcast", "sub": "user-1", "role": "reader",
        "exp": SECONDS + 60, "nbf": SECONDS - 60, "iat": SECONDS - 60,
    });
    let Value::Object(change) = change else {
        unreachable!("a change is a map")
    };
    for (name, value) in change {
        if value.is_null() {
            claims.as_object_mut().expect("a map").remove(&name);
        } else {
            claims[name] = value;
        }
    }
    claims
}

fn check(token: &str, rules: &JwtRules, ring: &KeyRing) -> Result<Grant, Refused> {
    verify(token, rules, ring, &roles(), NOW)
}

#[test]
fn every_algorithm_is_verified_by_key_file_and_by_key_set() {
    for algorithm in Algorithm::ALL {
        let (signer, other) = (Signer::new(algorithm), Signer::new(Algorithm::Hs256));
        let header = json!({"alg": algorithm.name(), "kid": "k1"});
        let token = signer.token(&header, &claims(json!({})));
        let file = KeyRing::from_key(&signer.key_file(), algorithm).expect("a key");
        let mut keys = vec![signer.jwk("k1"), json!({"kty": "unknown"})];
        if algorithm != Algorithm::Hs256 {
            keys.push(other.jwk("k2"));
        }
        let set = json!({ "keys": keys }).to_string();
        let set = KeyRing::from_jwks(set.as_bytes(), true).expect("a key set");
        for ring in [&file, &set] {
            let grant = check(&token, &rules(&[algorithm]), ring).expect("a valid token");
            assert_eq!((&*grant.subject, &*grant.role), ("user-1", "reader"));
            let ends = UnixNanos((SECONDS + 60 + 10) * 1_000_000_000);
            assert_eq!(grant.expires, Some(ends), "with the leeway");
            let forged = format!("{}A", &token[..token.len() - 1]);
            let forged = if forged == token {
                format!("{}Q", &token[..token.len() - 1])
            } else {
                forged
            };
            let refused = check(&forged, &rules(&[algorithm]), ring);
            assert!(
                matches!(refused, Err(Refused::Signature | Refused::MalformedToken)),
                "{algorithm:?}: {refused:?}"
            );
            let others: Vec<_> = Algorithm::ALL
                .into_iter()
                .filter(|one| *one != algorithm)
                .collect();
            assert_eq!(
                check(&token, &rules(&others), ring),
                Err(Refused::Algorithm)
            );
        }
    }
}

#[test]
fn invalid_claims_are_refused_by_name() {
    let signer = Signer::new(Algorithm::Hs256);
    let ring = KeyRing::from_key(&signer.key_file(), Algorithm::Hs256).expect("a key");
    let rules = rules(&[Algorithm::Hs256]);
    let outcome = |change: Value| {
        let token = signer.token(&json!({"alg": "HS256"}), &claims(change));
        check(&token, &rules, &ring).map(|grant| grant.role.to_string())
    };
    for (change, refused) in [
        (json!({"exp": null}), Refused::Claim("exp")),
        (json!({"exp": "soon"}), Refused::Claim("exp")),
        (json!({"exp": -1}), Refused::Claim("exp")),
        (json!({"exp": SECONDS - 10}), Refused::Expired),
        (json!({"exp": 0}), Refused::Expired),
        (json!({"nbf": SECONDS + 11}), Refused::NotYet),
        (json!({"nbf": "x"}), Refused::Claim("nbf")),
        (json!({"aud": null}), Refused::Claim("aud")),
        (json!({"aud": "third"}), Refused::Claim("aud")),
        (json!({"aud": []}), Refused::Claim("aud")),
        (json!({"iss": null}), Refused::Claim("iss")),
        (json!({"iss": "https://id.example"}), Refused::Claim("iss")),
        (json!({"sub": null}), Refused::Claim("sub")),
        (json!({"sub": ""}), Refused::Claim("sub")),
        (json!({"sub": 7}), Refused::Claim("sub")),
        (json!({"sub": "x".repeat(257)}), Refused::Claim("sub")),
        (json!({"role": null}), Refused::NoRole),
        (json!({"role": "root"}), Refused::NoRole),
        (json!({"role": 1}), Refused::NoRole),
        (json!({"role": []}), Refused::NoRole),
    ] {
        assert_eq!(outcome(change.clone()), Err(refused), "{change}");
    }
    for (change, role) in [
        (json!({"exp": SECONDS - 9}), "reader"),
        (json!({"exp": SECONDS as f64 + 0.5}), "reader"),
        (json!({"exp": 1e18}), "reader"),
        (json!({"nbf": SECONDS + 10}), "reader"),
        (json!({"nbf": null}), "reader"),
        (json!({"aud": ["x", "other"]}), "reader"),
        (json!({"role": ["x", "operator", "reader"]}), "operator"),
    ] {
        assert_eq!(outcome(change.clone()), Ok(role.to_owned()), "{change}");
    }
}

/// Tokens made by an attacker who knows the public keys.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of forgeries")]
fn forged_headers_are_refused() {
    let rsa = Signer::new(Algorithm::Rs256);
    let set = json!({"keys": [rsa.jwk("k1"), Signer::new(Algorithm::Es256).jwk("k2")]}).to_string();
    let set = KeyRing::from_jwks(set.as_bytes(), false).expect("a key set");
    let all = rules(&Algorithm::ALL);
    let good = claims(json!({}));
    // The public key as the secret of HS256.
    for secret in [
        RSA_PUBLIC.as_bytes().to_vec(),
        RSA_PUBLIC.trim().as_bytes().to_vec(),
    ] {
        let forger = Signer::Hmac(secret);
        let token = forger.token(&json!({"alg": "HS256", "kid": "k1"}), &good);
        assert_eq!(check(&token, &all, &set), Err(Refused::Algorithm));
        let file = KeyRing::from_key(RSA_PUBLIC.as_bytes(), Algorithm::Rs256).expect("a key");
        assert_eq!(check(&token, &all, &file), Err(Refused::Algorithm));
    }
    let forger = Signer::Hmac(SECRET.to_vec());
    for (header, refused) in [
        (json!({"alg": "none", "kid": "k1"}), Refused::Algorithm),
        (json!({"alg": "None"}), Refused::Algorithm),
        (json!({"alg": ""}), Refused::Algorithm),
        (json!({"alg": "RS512", "kid": "k1"}), Refused::Algorithm),
        (json!({"kid": "k1"}), Refused::Algorithm),
        (json!({"alg": "RS256", "kid": "k3"}), Refused::UnknownKey),
        (
            json!({"alg": "RS256", "kid": "../../../dev/null"}),
            Refused::UnknownKey,
        ),
        (
            json!({"alg": "RS256", "kid": "' OR 1=1 --"}),
            Refused::UnknownKey,
        ),
        (json!({"alg": "RS256", "kid": "k2"}), Refused::Algorithm),
        (json!({"alg": "RS256", "kid": 7}), Refused::Algorithm),
        (json!({"alg": "RS256", "kid": "k1"}), Refused::Signature),
        // Keys and addresses of the token's own.
        (
            json!({"alg": "RS256", "jwk": Signer::new(Algorithm::EdDsa).jwk("x")}),
            Refused::Signature,
        ),
        (
            json!({"alg": "RS256", "jku": "https://evil.example/"}),
            Refused::Signature,
        ),
        (
            json!({"alg": "RS256", "kid": "k1", "crit": ["exp"]}),
            Refused::MalformedToken,
        ),
        (
            json!({"alg": "RS256", "kid": "k1", "zip": "DEF"}),
            Refused::MalformedToken,
        ),
    ] {
        let token = forger.token(&header, &good);
        assert_eq!(check(&token, &all, &set), Err(refused), "{header}");
    }
    let token = rsa.token(&json!({"alg": "RS256", "kid": "k1"}), &good);
    assert!(check(&token, &all, &set).is_ok());
    let unsigned = token.rsplit_once('.').expect("a token").0;
    for broken in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        unsigned,
        &format!("{token}.x"),
        "é.é.é",
    ] {
        assert_eq!(
            check(broken, &all, &set),
            Err(Refused::MalformedToken),
            "{broken}"
        );
    }
    assert_eq!(
        check(&format!("{unsigned}."), &all, &set),
        Err(Refused::Signature)
    );
}

#[test]
fn the_role_is_found_by_name_by_path_or_by_fallback() {
    let signer = Signer::new(Algorithm::Hs256);
    let ring = KeyRing::from_key(SECRET, Algorithm::Hs256).expect("a key");
    let role = |claim: Option<&str>, fallback: Option<&str>, change: Value| {
        let rules = JwtRules {
            role_claim: claim.map(str::to_owned),
            role: fallback.map(Into::into),
            ..rules(&[Algorithm::Hs256])
        };
        let token = signer.token(&json!({"alg": "HS256"}), &claims(change));
        check(&token, &rules, &ring).map(|grant| grant.role.to_string())
    };
    let operator = Ok("operator".to_owned());
    let nested = json!({"realm_access": {"roles": ["x", "operator"]}});
    assert_eq!(
        role(Some("realm_access.roles"), None, nested.clone()),
        operator
    );
    let url = json!({"https://example.com/role": "operator"});
    assert_eq!(role(Some("https://example.com/role"), None, url), operator);
    assert_eq!(
        role(Some("absent.role"), Some("operator"), nested.clone()),
        operator
    );
    assert_eq!(role(None, Some("operator"), json!({})), operator);
    let unknown = role(Some("role"), Some("operator"), json!({"role": "root"}));
    assert_eq!(
        unknown,
        Err(Refused::NoRole),
        "the fallback is for tokens without the claim"
    );
    assert_eq!(role(None, None, json!({})), Err(Refused::NoRole));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let wrong = |bytes: &[u8], algorithm| KeyRing::from_key(bytes, algorithm).expect_err("wrong");
    let private = include_bytes!("rsa_private.pem");
    assert_eq!(wrong(private, Algorithm::Rs256), KeyRingError::Private);
    let public = RSA_PUBLIC.as_bytes();
    assert_eq!(wrong(public, Algorithm::Hs256), KeyRingError::PemSecret);
    assert_eq!(
        wrong(public, Algorithm::Es256),
        KeyRingError::NotPem("ES256")
    );
    assert_eq!(
        wrong(SECRET, Algorithm::Rs256),
        KeyRingError::NotPem("RS256")
    );
    assert_eq!(wrong(b"short", Algorithm::Hs256), KeyRingError::ShortSecret);
    let set = |value: Value, has_secrets| {
        KeyRing::from_jwks(value.to_string().as_bytes(), has_secrets).err()
    };
    let secret = Signer::new(Algorithm::Hs256).jwk("k");
    assert_eq!(set(json!({"keys": [secret.clone()]}), true), None);
    assert_eq!(
        set(json!({"keys": [secret]}), false),
        Some(KeyRingError::NoKey)
    );
    let guessable = Signer::Hmac(b"short".to_vec()).jwk("k");
    assert_eq!(
        set(json!({"keys": [guessable]}), true),
        Some(KeyRingError::NoKey)
    );
    let mut encryption = Signer::new(Algorithm::Rs256).jwk("k");
    encryption["use"] = json!("enc");
    assert_eq!(
        set(json!({"keys": [encryption]}), true),
        Some(KeyRingError::NoKey)
    );
    assert_eq!(set(json!({"keys": []}), true), Some(KeyRingError::NoKey));
    assert_eq!(set(json!([]), true), Some(KeyRingError::Form));
    let many = vec![json!({}); 101];
    assert_eq!(
        set(json!({"keys": many}), true),
        Some(KeyRingError::TooMany)
    );
}
