//! Keys of the authentication.

use super::{Key, Kind, fixed, key, without_default};

/// `auth` and everything below it.
pub(super) const AUTH: &[Key] = &[
    fixed(key(
        "auth.scheme",
        Kind::Word(&["none", "keys", "jwt"]),
        "none",
        "Authentication of clients: none, keys (ID.SECRET, made by `tickcast key new`), or jwt (JSON Web Tokens of an identity provider).",
    )),
    key(
        "auth.timeout",
        Kind::Duration("100ms", "5m"),
        "10s",
        "Time a client has from welcome to its auth message; then it is disconnected with 4404.",
    ),
    key(
        "auth.failures_per_minute",
        Kind::Integer(1, 100_000),
        "60",
        "Max failed attempts per minute and address (an IPv4 address or a /64 network); further ones get 429 and are not checked at cost.",
    ),
    key(
        "auth.ticket_lifetime",
        Kind::Duration("1s", "30s"),
        "30s",
        "Lifetime of a one-use ticket of POST /v1/ticket.",
    ),
    key(
        "auth.tickets",
        Kind::Integer(1, 1_000_000),
        "10000",
        "Max unused tickets; further requests for one get 503.",
    ),
    without_default(
        "auth.keys",
        Kind::Section,
        "Keys of the scheme keys; each with the following keys.",
    ),
    without_default(
        "auth.keys.id",
        Kind::Text,
        "Id of the key, the part before the dot: letters, digits, - and _. It may appear in logs.",
    ),
    key(
        "auth.keys.sha256",
        Kind::Text,
        "",
        "SHA-256 of the secret (the part after the dot), in hexadecimal digits.",
    ),
    key(
        "auth.keys.argon2",
        Kind::Text,
        "",
        "Argon2 hash of the secret as a PHC string, in place of sha256; for secrets that are not random. At most 64 MiB and 10 passes.",
    ),
    without_default("auth.keys.role", Kind::Text, "Role of the key's clients."),
    key(
        "auth.keys_file",
        Kind::Text,
        "",
        "YAML file with further keys, as a list `keys`; reloaded when it changes.",
    ),
    key(
        "auth.jwt.algorithms",
        Kind::Texts,
        "",
        "Accepted signature algorithms: HS256, RS256, ES256, EdDSA. Required with the scheme jwt; with key_file exactly one.",
    ),
    key(
        "auth.jwt.key_file",
        Kind::Text,
        "",
        "File with the public key (PEM), or with the secret of HS256; reloaded when it changes.",
    ),
    key(
        "auth.jwt.jwks_file",
        Kind::Text,
        "",
        "File with a JSON Web Key Set, in place of key_file; reloaded when it changes.",
    ),
    key(
        "auth.jwt.jwks_url",
        Kind::Text,
        "",
        "HTTPS address of a JSON Web Key Set, in place of key_file; cached, and kept if a request fails.",
    ),
    key(
        "auth.jwt.jwks_ca",
        Kind::Text,
        "",
        "PEM file with certificates trusted for jwks_url, in place of those of the system.",
    ),
    key(
        "auth.jwt.jwks_refresh",
        Kind::Duration("1s", "7d"),
        "5m",
        "Interval at which jwks_url is requested again.",
    ),
    key(
        "auth.jwt.jwks_cooldown",
        Kind::Duration("1s", "1h"),
        "10s",
        "Min time between two requests to jwks_url that tokens with an unknown key id cause.",
    ),
    key(
        "auth.jwt.issuer",
        Kind::Texts,
        "",
        "Accepted issuers (iss). Required with the scheme jwt; any accepts every issuer.",
    ),
    key(
        "auth.jwt.audience",
        Kind::Texts,
        "",
        "Accepted audiences (aud). Required with the scheme jwt; any accepts every audience.",
    ),
    key(
        "auth.jwt.leeway",
        Kind::Duration("0", "5m"),
        "30s",
        "Tolerated difference between the clocks of issuer and server, for exp and nbf.",
    ),
    key(
        "auth.jwt.role_claim",
        Kind::Text,
        "",
        "Claim that names the role: a name, or a path such as realm_access.roles; of a list, the first that is a role of this server.",
    ),
    key(
        "auth.jwt.role",
        Kind::Text,
        "",
        "Role of tokens without the claim role_claim; empty: they are refused.",
    ),
];
