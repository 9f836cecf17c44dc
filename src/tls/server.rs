//! The server's side: its certificate, and which client certificates it asks for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::{HTTP_1_1, SelfSigned, TlsError, provider, read};

/// Certificate of a server.
#[derive(Debug, Clone)]
pub enum Certificate {
    /// PEM files of the chain and of its key.
    Files {
        /// Path of the chain, the server's own certificate first.
        certificate: PathBuf,
        /// Path of the private key.
        key: PathBuf,
    },
    /// Made at start.
    SelfSigned(SelfSigned),
}

/// Client certificates that a server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    Off,
    /// Verified if the client has one.
    Optional,
    /// No connection without one.
    Required,
}

/// Lowest TLS version that a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Everything that decides about a server's handshakes.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate.
    pub certificate: Certificate,
    /// Authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Client certificates that it asks for.
    pub client_certificates: ClientCertificates,
    /// Lowest version.
    pub min_version: MinVersion,
}

impl TlsFiles {
    /// Paths of all files, which are read again when they change.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = match &self.certificate {
            Certificate::Files { certificate, key } => [Some(certificate), Some(key)],
            Certificate::SelfSigned(_) => [None, None],
        };
        let paths = own.into_iter().chain([self.client_ca.as_ref()]);
        paths.flatten().map(PathBuf::as_path)
    }
}

const ALL_VERSIONS: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];
const NEWEST_VERSION: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Handshakes of a server, by its files.
#[derive(Debug)]
pub struct ServerTls {
    /// Configuration of the next handshakes.
    pub config: Arc<ServerConfig>,
    /// End of the validity of the certificate, or of the first of its chain that expires, in Unix
    /// seconds; `None` if it cannot be read.
    pub expires_s: Option<i64>,
}

/// End of the validity of the first certificate of a chain that expires.
fn expiry(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let ends = chain.iter().filter_map(|certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    ends.min()
}

/// Reads the files and makes the configuration of handshakes. Sessions of clients are resumed by
/// tickets only within one configuration, so that a new one also ends the trust in old client
/// certificates.
pub fn server_config(files: &TlsFiles) -> Result<ServerTls, TlsError> {
    let (chain, key) = match &files.certificate {
        Certificate::Files { certificate, key } => (chain_of(certificate)?, key_of(key)?),
        Certificate::SelfSigned(own) => own.parts(),
    };
    let expires_s = expiry(&chain);
    let provider = provider();
    // Checks that the key belongs to the certificate, of which rustls would complain only later.
    let certified = CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| identity_error(&files.certificate, error))?;
    let versions = match files.min_version {
        MinVersion::Tls12 => ALL_VERSIONS,
        MinVersion::Tls13 => NEWEST_VERSION,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier(files)?)
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    config.ticketer = Ticketer::new()?;
    config.ignore_client_order = true;
    Ok(ServerTls {
        config: Arc::new(config),
        expires_s,
    })
}

fn identity_error(certificate: &Certificate, error: rustls::Error) -> TlsError {
    match certificate {
        Certificate::Files { certificate, key } => TlsError::Identity {
            certificate: certificate.clone(),
            key: key.clone(),
            error,
        },
        Certificate::SelfSigned(_) => TlsError::Settings(error),
    }
}

fn verifier(files: &TlsFiles) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(authorities) = &files.client_ca else {
        return Ok(Arc::new(NoClientAuth));
    };
    let roots = Arc::new(roots_of(authorities)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    Ok(match files.client_certificates {
        ClientCertificates::Off => Arc::new(NoClientAuth),
        ClientCertificates::Optional => builder.allow_unauthenticated().build()?,
        ClientCertificates::Required => builder.build()?,
    })
}

/// Authorities of a PEM file.
pub(super) fn roots_of(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("certificate authority", file)? {
        roots.add(authority).map_err(|error| TlsError::Authority {
            file: file.to_owned(),
            error,
        })?;
    }
    Ok(roots)
}

pub(super) fn chain_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("certificate", file)
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(what, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| TlsError::Pem {
        what,
        file: file.to_owned(),
        error,
    })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            what,
            file: file.to_owned(),
            expected: "-----BEGIN CERTIFICATE-----",
        });
    }
    Ok(found)
}

pub(super) fn key_of(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;

    let what = "private key";
    PrivateKeyDer::from_pem_slice(&read(what, file)?).map_err(|error| match error {
        Error::NoItemsFound => TlsError::Empty {
            what,
            file: file.to_owned(),
            expected: "-----BEGIN PRIVATE KEY-----",
        },
        error => TlsError::Pem {
            what,
            file: file.to_owned(),
            error,
        },
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_chain_expires_with_the_first_of_its_certificates() {
        let certificate = |year| {
            let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
            params.not_after = date_time_ymd(year, 1, 1);
            let key = KeyPair::generate().expect("a key");
            let signed = params.self_signed(&key).expect("a certificate");
            signed.der().clone()
        };
        let (early, late) = (certificate(2030), certificate(2040));
        let start_of_2030 = 1_893_456_000;
        for chain in [&[early.clone(), late.clone()][..], &[late.clone(), early]] {
            assert_eq!(expiry(chain), Some(start_of_2030));
        }
        assert_eq!(expiry(&[late]), Some(2_208_988_800));
        assert_eq!(expiry(&[CertificateDer::from(vec![0x30, 0x82])]), None);
    }
}
