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

/// Reads the files and makes the configuration of handshakes. Sessions of clients are resumed by
/// tickets only within one configuration, so that a new one also ends the trust in old client
/// certificates.
pub fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = match &files.certificate {
        Certificate::Files { certificate, key } => (chain_of(certificate)?, key_of(key)?),
        Certificate::SelfSigned(own) => own.parts(),
    };
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
    Ok(Arc::new(config))
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
