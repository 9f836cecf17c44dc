//! The `auth` section, and the file of `auth.keys_file`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::reader::Section;
use super::{Config, ConfigError};
use crate::access::Roles;
use crate::auth::{
    Algorithm, Argon2Hash, AuthSettings, JwtRules, JwtSettings, Key, KeyRing, KeySet, KeySource,
    Policy, Scheme, SchemeSettings, Secret, is_key_id,
};
use crate::files::read_regular;

/// Max number of keys in the config or in a file.
const KEYS_MAX: usize = 10_000;
/// Max size of a file with keys, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Word that stands for every issuer or audience.
const ANY: &str = "any";

/// A file of the authentication that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthFileError {
    /// The file cannot be read.
    #[error("{key}: cannot read {}: {error}", path.display())]
    Read {
        /// Key that names the file.
        key: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
    /// The file has no usable keys.
    #[error("{key}: {}: {error}", path.display())]
    Keys {
        /// Key that names the file.
        key: &'static str,
        /// File.
        path: PathBuf,
        /// Cause.
        error: crate::auth::KeyRingError,
    },
    /// The file of `auth.keys_file` has problems.
    #[error(transparent)]
    KeysFile(#[from] ConfigError),
    /// A key appears in the config and in the file.
    #[error("auth.keys_file: key {0} is also in auth.keys; remove one of the two")]
    Duplicate(Arc<str>),
}

/// Reads the section.
pub(super) fn read(auth: &Section<'_>, roles: &Roles) -> AuthSettings {
    let scheme = auth.word("scheme");
    let keys = read_keys(auth, roles);
    let keys_file = path(auth, "keys_file");
    let jwt = auth.section("jwt");
    let jwt_settings = read_jwt(&jwt, roles, scheme == "jwt");
    jwt.finish();
    if scheme == "keys" && keys.is_empty() && keys_file.is_none() {
        auth.problem(
            "scheme",
            "no keys: expected auth.keys or auth.keys_file; make a key with `tickcast key new`",
        );
    }
    AuthSettings {
        scheme: match scheme {
            "keys" => SchemeSettings::Keys {
                keys,
                file: keys_file,
            },
            "jwt" => jwt_settings.map_or(SchemeSettings::None, SchemeSettings::Jwt),
            _ => SchemeSettings::None,
        },
        has_anonymous: roles.anonymous().is_some(),
        timeout: auth.duration("timeout"),
        ticket_lifetime: auth.duration("ticket_lifetime"),
        tickets_max: auth.integer("tickets") as usize,
        failures_per_minute: auth.integer("failures_per_minute") as u32,
    }
}

fn path(section: &Section<'_>, key: &str) -> Option<PathBuf> {
    Some(section.text(key))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// Reads the list `keys` of the config or of a file.
fn read_keys(section: &Section<'_>, roles: &Roles) -> Vec<Key> {
    let sections = section.sections("keys");
    if sections.len() > KEYS_MAX {
        section.problem(
            "keys",
            format!("too many keys: expected at most {KEYS_MAX}"),
        );
    }
    let mut keys: Vec<Key> = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for section in sections.iter().take(KEYS_MAX) {
        let key = read_key(section, roles);
        if let Some(key) = key {
            if !ids.insert(Arc::clone(&key.id)) {
                section.problem("id", format!("duplicate id {}", key.id));
            }
            keys.push(key);
        }
        section.finish();
    }
    keys
}

fn read_key(section: &Section<'_>, roles: &Roles) -> Option<Key> {
    let id = section.required("id");
    if section.has("id") && !is_key_id(&id) {
        let message = format!(
            "invalid id \"{}\": expected 1 to 64 letters, digits, - or _",
            // The rest may be the secret of a key (ID.SECRET) that was entered by mistake.
            id.split_inclusive('.')
                .next()
                .unwrap_or_default()
                .escape_debug()
        );
        section.problem("id", message);
    }
    let (sha256, argon2) = (section.text("sha256"), section.text("argon2"));
    let role = section.required("role");
    if section.has("role") {
        check_role(section, "role", &role, roles);
    }
    let secret = match (sha256.as_str(), argon2.as_str()) {
        (sha256, "") if !sha256.is_empty() => {
            let hash = HEXLOWER_PERMISSIVE.decode(sha256.as_bytes()).ok();
            let hash = hash.and_then(|bytes| bytes.try_into().ok());
            if hash.is_none() {
                let message = "expected 64 hexadecimal digits, as printed by `tickcast key new`";
                section.problem("sha256", message);
            }
            hash.map(Secret::Sha256)
        }
        ("", argon2) if !argon2.is_empty() => match Argon2Hash::parse(argon2) {
            Ok(hash) => Some(Secret::Argon2(hash)),
            Err(error) => {
                section.problem("argon2", error.to_string());
                None
            }
        },
        ("", _) => {
            let message = "missing: expected sha256 or argon2, as printed by `tickcast key new`";
            section.problem("sha256", message);
            None
        }
        _ => {
            section.problem("argon2", "conflicts with sha256; remove one of the two");
            None
        }
    };
    Some(Key {
        id: id.into(),
        secret: secret?,
        role: role.into(),
    })
}

fn check_role(section: &Section<'_>, key: &str, role: &str, roles: &Roles) {
    if roles.named(role).is_some() {
        return;
    }
    let known: Vec<&str> = roles.iter().map(|role| &*role.name).collect();
    let expected = if known.is_empty() {
        "the config has no roles; add a section roles, e.g. roles: {reader: {topics: [\"*\"]}}"
            .to_owned()
    } else {
        format!("expected one of {}", known.join(", "))
    };
    let message = format!("unknown role \"{}\": {expected}", role.escape_debug());
    section.problem(key, message);
}

fn read_jwt(section: &Section<'_>, roles: &Roles, is_used: bool) -> Option<JwtSettings> {
    let wanted = "HS256, RS256, ES256 or EdDSA";
    let algorithms = section.list("algorithms", wanted, Algorithm::parse);
    let (issuers, audiences) = (section.texts("issuer"), section.texts("audience"));
    let role_claim = Some(section.text("role_claim")).filter(|claim| !claim.is_empty());
    let role = Some(section.text("role")).filter(|role| !role.is_empty());
    if let Some(role) = &role {
        check_role(section, "role", role, roles);
    }
    let leeway = section.duration("leeway");
    let source = read_source(section, &algorithms, is_used);
    if is_used {
        let missing = |key: &str, message: &str| section.problem(key, message.to_owned());
        if algorithms.is_empty() {
            missing("algorithms", "missing: expected a list, e.g. [RS256]");
        }
        if issuers.is_empty() {
            missing(
                "issuer",
                "missing: expected the issuer of the tokens, e.g. https://id.example.com/, or any",
            );
        }
        if audiences.is_empty() {
            missing(
                "audience",
                "missing: expected the audience of the tokens, e.g. tickcast, or any",
            );
        }
        if role_claim.is_none() && role.is_none() {
            missing("role_claim", "missing: expected role_claim, role or both");
        }
    }
    let unless_any = |texts: Vec<String>| {
        if texts.iter().any(|text| text == ANY) {
            Vec::new()
        } else {
            texts
        }
    };
    Some(JwtSettings {
        source: source?,
        rules: JwtRules {
            algorithms,
            issuers: unless_any(issuers),
            audiences: unless_any(audiences),
            leeway,
            role_claim,
            role: role.map(Into::into),
        },
    })
}

fn read_source(
    section: &Section<'_>,
    algorithms: &[Algorithm],
    is_used: bool,
) -> Option<KeySource> {
    let key_file = path(section, "key_file");
    let jwks_file = path(section, "jwks_file");
    let url = Some(section.text("jwks_url")).filter(|url| !url.is_empty());
    let ca = path(section, "jwks_ca");
    let refresh = section.duration("jwks_refresh");
    let cooldown = section.duration("jwks_cooldown");
    if !is_used {
        return None;
    }
    match (key_file, jwks_file, url) {
        (Some(file), None, None) => {
            if algorithms.len() > 1 {
                let message = "more than one: expected the algorithm of key_file; use jwks_file for several keys";
                section.problem("algorithms", message);
            }
            Some(KeySource::File(file))
        }
        (None, Some(file), None) => Some(KeySource::JwksFile(file)),
        (None, None, Some(url)) => {
            if !url.starts_with("https://") {
                let message = "expected an https:// address, e.g. https://id.example.com/.well-known/jwks.json";
                section.problem("jwks_url", message);
            }
            if algorithms.contains(&Algorithm::Hs256) {
                let message = "HS256 needs a secret, which no address may serve: expected RS256, ES256 or EdDSA";
                section.problem("algorithms", message);
            }
            Some(KeySource::JwksUrl {
                url,
                ca,
                refresh,
                cooldown,
            })
        }
        (None, None, None) => {
            let message = "missing: expected one of key_file, jwks_file and jwks_url";
            section.problem("key_file", message);
            None
        }
        _ => {
            let message =
                "more than one origin of keys: expected one of key_file, jwks_file and jwks_url";
            section.problem("key_file", message);
            None
        }
    }
}

/// Reads a file with keys.
fn read_keys_file(path: &Path, roles: &Roles) -> Result<Vec<Key>, ConfigError> {
    super::read_document(path, |root| {
        root.mark_known(&["keys"]);
        read_keys(&root.at("auth"), roles)
    })
}

impl Config {
    /// Policy of this config, with the files that it names. Blocks on the file system, so it must
    /// run on a plain thread. A key set at an address is empty until it has been requested.
    pub fn auth_policy(&self) -> Result<Policy, AuthFileError> {
        auth_policy(&self.auth, &self.roles)
    }
}

/// Files that a policy depends on.
pub fn auth_files(settings: &AuthSettings) -> Vec<PathBuf> {
    match &settings.scheme {
        SchemeSettings::None => Vec::new(),
        SchemeSettings::Keys { file, .. } => file.iter().cloned().collect(),
        SchemeSettings::Jwt(jwt) => match &jwt.source {
            KeySource::File(file) | KeySource::JwksFile(file) => vec![file.clone()],
            KeySource::JwksUrl { .. } => Vec::new(),
        },
    }
}

/// Policy of these settings, with the files that they name. Blocks on the file system.
pub fn auth_policy(settings: &AuthSettings, roles: &Roles) -> Result<Policy, AuthFileError> {
    let scheme = match &settings.scheme {
        SchemeSettings::None => Scheme::None,
        SchemeSettings::Keys { keys, file } => {
            let more = file.as_deref().map(|file| read_keys_file(file, roles));
            let more = more.transpose()?.unwrap_or_default();
            if let Some(twice) = more
                .iter()
                .find(|key| keys.iter().any(|one| one.id == key.id))
            {
                return Err(AuthFileError::Duplicate(Arc::clone(&twice.id)));
            }
            Scheme::Keys(KeySet::new(keys.iter().cloned().chain(more)))
        }
        SchemeSettings::Jwt(jwt) => Scheme::Jwt {
            ring: Arc::new(read_ring(jwt)?),
            can_refresh: matches!(jwt.source, KeySource::JwksUrl { .. }),
            rules: jwt.rules.clone(),
        },
    };
    Ok(Policy {
        scheme,
        settings: settings.clone(),
        roles: Arc::new(roles.clone()),
    })
}

fn read_ring(jwt: &JwtSettings) -> Result<KeyRing, AuthFileError> {
    let bytes = |key, path: &Path| {
        read_regular(path, FILE_BYTES_MAX).map_err(|error| AuthFileError::Read {
            key,
            path: path.to_owned(),
            error,
        })
    };
    let (key, path, ring) = match &jwt.source {
        KeySource::File(path) => {
            let key = "auth.jwt.key_file";
            let bytes = bytes(key, path)?;
            let Some(algorithm) = jwt.rules.algorithms.first() else {
                return Ok(KeyRing::default());
            };
            (key, path, KeyRing::from_key(&bytes, *algorithm))
        }
        KeySource::JwksFile(path) => {
            let key = "auth.jwt.jwks_file";
            (key, path, KeyRing::from_jwks(&bytes(key, path)?, true))
        }
        KeySource::JwksUrl { .. } => return Ok(KeyRing::default()),
    };
    ring.map_err(|error| AuthFileError::Keys {
        key,
        path: path.clone(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Config;
    use crate::auth::{Algorithm, KeySource, SchemeSettings};

    const SOURCES: &str = "sources: [{name: s, kind: sim, instruments: [{symbol: A, start: 10}]}]\n\
                           roles: {r: {}, q: {}}\n";

    fn problems(text: &str) -> Vec<String> {
        let parsed = Config::parse(&format!("{SOURCES}auth: {{{text}}}\n"), "f");
        let found = parsed.err().map(|error| error.problems).unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_of_the_section_is_read() {
        let jwt = "algorithms: [RS256, ES256, EdDSA], jwks_url: \"https://id/\", jwks_ca: ca.pem, jwks_refresh: 7m, jwks_cooldown: 9s, \
                   issuer: [a, b], audience: any, leeway: 3s, role_claim: x.y, role: q";
        let text = format!(
            "{SOURCES}auth: {{scheme: jwt, timeout: 7s, failures_per_minute: 9, ticket_lifetime: 11s, tickets: 12, jwt: {{{jwt}}}}}"
        );
        let auth = Config::parse(&text, "f").expect("a valid config").auth;
        let seconds = |seconds| Duration::from_secs(seconds);
        assert_eq!(
            (auth.timeout, auth.ticket_lifetime),
            (seconds(7), seconds(11))
        );
        assert_eq!((auth.failures_per_minute, auth.tickets_max), (9, 12));
        let SchemeSettings::Jwt(jwt) = auth.scheme else {
            unreachable!("the scheme is jwt")
        };
        let source = KeySource::JwksUrl {
            url: "https://id/".to_owned(),
            ca: Some("ca.pem".into()),
            refresh: seconds(7 * 60),
            cooldown: seconds(9),
        };
        assert_eq!(jwt.source, source);
        let algorithms = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        assert_eq!(jwt.rules.algorithms, algorithms);
        assert_eq!((jwt.rules.issuers.len(), jwt.rules.audiences.len()), (2, 0));
        assert_eq!(jwt.rules.leeway, seconds(3));
        assert_eq!(jwt.rules.role_claim.as_deref(), Some("x.y"));
        assert_eq!(jwt.rules.role.as_deref(), Some("q"));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of problems")]
    fn problems_of_the_section_are_named_with_what_is_expected() {
        let hash = "00".repeat(32);
        let key = |text: &str| format!("scheme: keys, keys: [{{{text}}}]");
        let jwt = |text: &str| format!("scheme: jwt, jwt: {{{text}}}");
        for (text, wanted) in [
            ("scheme: basic".to_owned(), "expected none, keys or jwt"),
            (
                "scheme: keys".to_owned(),
                "auth.scheme: no keys: expected auth.keys or auth.keys_file",
            ),
            (key("role: r"), "auth.keys[0].id: missing"),
            (key("id: a.b, role: r"), "invalid id \"a.\""),
            (
                key("id: a, role: r"),
                "auth.keys[0].sha256: missing: expected sha256 or argon2",
            ),
            (
                key("id: a, role: r, sha256: 00"),
                "expected 64 hexadecimal digits",
            ),
            (
                key("id: a, role: r, argon2: x"),
                "expected a PHC string of Argon2",
            ),
            (
                key(&format!("id: a, role: r, sha256: {hash}, argon2: x")),
                "conflicts with sha256",
            ),
            (
                key(&format!("id: a, sha256: {hash}")),
                "auth.keys[0].role: missing",
            ),
            (
                key(&format!("id: a, role: x, sha256: {hash}")),
                "unknown role \"x\": expected one of q, r",
            ),
            (
                key(&format!("id: a, rol: r, sha256: {hash}")),
                "unknown key; did you mean role?",
            ),
            (
                key(&format!(
                    "id: a, role: r, sha256: {hash}}}, {{id: a, role: r, sha256: {hash}"
                )),
                "duplicate id a",
            ),
            (jwt(""), "auth.jwt.algorithms: missing"),
            (jwt(""), "auth.jwt.issuer: missing"),
            (jwt(""), "auth.jwt.audience: missing"),
            (jwt(""), "auth.jwt.role_claim: missing"),
            (
                jwt(""),
                "auth.jwt.key_file: missing: expected one of key_file, jwks_file and jwks_url",
            ),
            (
                jwt("algorithms: [none]"),
                "expected HS256, RS256, ES256 or EdDSA",
            ),
            (
                jwt("key_file: a, jwks_file: b"),
                "more than one origin of keys",
            ),
            (
                jwt("algorithms: [RS256, ES256], key_file: a"),
                "more than one: expected the algorithm of key_file",
            ),
            (
                jwt("jwks_url: \"http://id/\""),
                "expected an https:// address",
            ),
            (
                jwt("algorithms: [HS256], jwks_url: \"https://id/\""),
                "HS256 needs a secret",
            ),
            (jwt("role: x"), "auth.jwt.role: unknown role \"x\""),
            (
                "ticket_lifetime: 31s".to_owned(),
                "expected a duration from 1s to 30s",
            ),
        ] {
            let found = problems(&text);
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted} is not among {found:#?}"
            );
        }
    }
}
