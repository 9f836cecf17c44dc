//! JSON Web Tokens (RFC 7519), verified by a fixed list of algorithms.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::grant::Grant;
use super::jwks::KeyRing;
use super::refused::Refused;
use crate::access::Roles;
use crate::market::UnixNanos;

/// Maximum size of a subject and of a role, in bytes.
const NAME_BYTES_MAX: usize = 256;
const NANOS_PER_SECOND: f64 = 1e9;

/// Rules for the claims of a token.
#[derive(Debug, Clone, Default)]
pub struct JwtRules {
    /// Accepted algorithms.
    pub algorithms: Vec<Algorithm>,
    /// Accepted issuers; empty: any.
    pub issuers: Vec<String>,
    /// Accepted audiences; empty: any.
    pub audiences: Vec<String>,
    /// Tolerated difference between the clocks of issuer and server.
    pub leeway: Duration,
    /// Claim that names the role: a name, or a path such as `realm_access.roles`.
    pub role_claim: Option<String>,
    /// Role of tokens without that claim.
    pub role: Option<Arc<str>>,
}

/// Verifies a token at a time, which must name one of the roles.
pub(super) fn verify(
    token: &str,
    rules: &JwtRules,
    ring: &KeyRing,
    roles: &Roles,
    now: UnixNanos,
) -> Result<Grant, Refused> {
    let header = decode_header(token).map_err(|error| malformed(&error))?;
    if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
        return Err(Refused::MalformedToken);
    }
    let named = Algorithm::ALL
        .into_iter()
        .find(|one| one.of_crate() == header.alg);
    let algorithm = named
        .filter(|one| rules.algorithms.contains(one))
        .ok_or(Refused::Algorithm)?;
    let key = ring.find(header.kid.as_deref(), algorithm)?;
    super::crypto::install();
    let validation = validation(algorithm, rules);
    let verified = decode::<Map<String, Value>>(token, &key.key, &validation);
    let claims = verified.map_err(|error| refused(&error))?.claims;
    let expires = check_times(&claims, rules.leeway, now)?;
    let subject = text(&claims, "sub").ok_or(Refused::Claim("sub"))?;
    let role = role_of(&claims, rules, roles).ok_or(Refused::NoRole)?;
    Ok(Grant {
        subject: subject.into(),
        role,
        expires: Some(expires),
        proof: key.proof,
    })
}

/// Validation of signature, issuer and audience; times are checked here, by the server's clock.
fn validation(algorithm: Algorithm, rules: &JwtRules) -> Validation {
    let mut validation = Validation::new(algorithm.of_crate());
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let mut required = vec!["exp", "sub"];
    validation.validate_aud = !rules.audiences.is_empty();
    if validation.validate_aud {
        validation.set_audience(&rules.audiences);
        required.push("aud");
    }
    if !rules.issuers.is_empty() {
        validation.set_issuer(&rules.issuers);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Refusal of a header that cannot be decoded: an unknown algorithm, `none` included, or no token.
fn malformed(error: &jsonwebtoken::errors::Error) -> Refused {
    match error.kind() {
        ErrorKind::Json(error) if error.is_data() => Refused::Algorithm,
        _ => Refused::MalformedToken,
    }
}

fn refused(error: &jsonwebtoken::errors::Error) -> Refused {
    match error.kind() {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidAlgorithm => Refused::Algorithm,
        ErrorKind::InvalidAudience => Refused::Claim("aud"),
        ErrorKind::InvalidIssuer => Refused::Claim("iss"),
        ErrorKind::InvalidSubject => Refused::Claim("sub"),
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            let known = ["exp", "sub", "aud", "iss"];
            let claim = known.into_iter().find(|known| known == claim);
            claim.map_or(Refused::MalformedToken, Refused::Claim)
        }
        _ => Refused::MalformedToken,
    }
}

/// Checks `exp` and `nbf`; returns the end of the token's validity, including the leeway.
fn check_times(
    claims: &Map<String, Value>,
    leeway: Duration,
    now: UnixNanos,
) -> Result<UnixNanos, Refused> {
    let expires = time(claims, "exp")?.ok_or(Refused::Claim("exp"))?;
    let ends = expires.plus(leeway);
    if ends <= now {
        return Err(Refused::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|from| from > now.plus(leeway)) {
        return Err(Refused::NotYet);
    }
    Ok(ends)
}

/// Claim with a time in seconds; the far future is the end of representable time.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<UnixNanos>, Refused> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
        .ok_or(Refused::Claim(name))?;
    // Conversion saturates.
    let nanos = (seconds * NANOS_PER_SECOND) as u64;
    Ok(Some(
        UnixNanos::bounded(nanos).unwrap_or(UnixNanos(u64::MAX)),
    ))
}

/// Claim with a short text.
fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    let text = claims.get(name)?.as_str()?;
    (1..=NAME_BYTES_MAX).contains(&text.len()).then_some(text)
}

/// First role of the server that the claim names, or the fallback if the token lacks the claim.
fn role_of(claims: &Map<String, Value>, rules: &JwtRules, roles: &Roles) -> Option<Arc<str>> {
    let claim = rules
        .role_claim
        .as_deref()
        .and_then(|path| at(claims, path));
    let Some(claim) = claim else {
        return rules.role.clone();
    };
    let known = |name: &str| roles.named(name).map(|role| role.name.as_ref().into());
    match claim {
        Value::String(name) => known(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find_map(known),
        _ => None,
    }
}

/// Claim of a name, or at a path; a name may have dots itself (`https://example.com/role`).
fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    at(claims.get(first)?.as_object()?, rest)
}
