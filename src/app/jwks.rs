//! Requests for a JSON Web Key Set over HTTPS: bounded in time, size and rate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::auth::{KeyRing, KeyRingError, KeySource, Policy, SchemeSettings};
use crate::files::read_regular;
use crate::market::UnixNanos;

/// Time limit for a request, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of a key set, in bytes.
const SET_BYTES_MAX: u64 = 256 * 1024;
/// Maximum size of a file with certificates, in bytes.
const CA_BYTES_MAX: usize = 1 << 20;

/// Reason for which a key set is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The request failed.
    #[error("request failed: {0}")]
    Request(#[from] Box<ureq::Error>),
    /// The response is not a key set.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
    /// The file with trusted certificates cannot be used.
    #[error("auth.jwt.jwks_ca: cannot use {}: {error}", path.display())]
    Ca {
        /// File.
        path: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
}

/// Key set at an address, requested again from time to time.
#[derive(Debug, Default)]
pub(super) struct RemoteKeys {
    /// Address and time of the last request.
    last: Option<(String, UnixNanos)>,
    /// Last response that is in force.
    body: Vec<u8>,
}

impl RemoteKeys {
    /// Requests the key set of the policy if it is due, or if a token has an unknown key and the
    /// last request is long enough ago. Returns a policy with new keys.
    pub(super) fn refresh(
        &mut self,
        policy: &Policy,
        has_unknown_key: bool,
        now: UnixNanos,
    ) -> Option<Result<Policy, FetchError>> {
        let SchemeSettings::Jwt(jwt) = &policy.settings.scheme else {
            return None;
        };
        let KeySource::JwksUrl {
            url,
            ca,
            refresh,
            cooldown,
        } = &jwt.source
        else {
            return None;
        };
        let same = self.last.as_ref().filter(|(last, _)| last == url);
        let is_new = same.is_none();
        // After a failure the keys are requested again as for an unknown key.
        let is_short = has_unknown_key || self.body.is_empty();
        let wait = if is_short { *cooldown } else { *refresh };
        if same.is_some_and(|(_, at)| now.since(*at) < wait) {
            return None;
        }
        if is_new {
            self.body.clear();
        }
        self.last = Some((url.clone(), now));
        match fetch(url, ca.as_deref()) {
            Ok((body, _)) if body == self.body => None,
            Ok((body, ring)) => {
                self.body = body;
                policy.with_ring(ring).map(Ok)
            }
            Err(error) => Some(Err(error)),
        }
    }
}

fn fetch(url: &str, ca: Option<&Path>) -> Result<(Vec<u8>, KeyRing), FetchError> {
    let agent = agent(ca)?;
    let body = (|| {
        let mut response = agent.get(url).call()?;
        let body = response.body_mut().with_config().limit(SET_BYTES_MAX);
        body.read_to_vec()
    })();
    let body = body.map_err(Box::new)?;
    // A secret at a public address is none.
    let ring = KeyRing::from_jwks(&body, false)?;
    Ok((body, ring))
}

fn agent(ca: Option<&Path>) -> Result<Agent, FetchError> {
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(roots(ca)?)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .https_only(true)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(true)
        .timeout_global(Some(TIMEOUT))
        .build();
    Ok(config.new_agent())
}

/// Trusted certificates: of the file, else of the system.
fn roots(ca: Option<&Path>) -> Result<Vec<Certificate<'static>>, FetchError> {
    let Some(path) = ca else {
        let system = rustls_native_certs::load_native_certs();
        let certificates = system.certs.iter();
        return Ok(certificates
            .map(|one| Certificate::from_der(one).to_owned())
            .collect());
    };
    let failed = |error| FetchError::Ca {
        path: path.to_owned(),
        error,
    };
    let bytes = read_regular(path, CA_BYTES_MAX).map_err(failed)?;
    let certificates: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let message = "no certificate: expected a PEM file";
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, message);
        return Err(failed(error));
    }
    Ok(certificates)
}
