//! TLS of the server and of its clients: certificates, trust, and streams that may be encrypted.
//!
//! rustls with the cryptography of ring. TLS 1.2 and 1.3; older versions do not exist here.

mod ciphers;
mod fingerprint;
mod self_signed;
mod server;
mod stream;
mod trust;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ciphers::config_for;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use self_signed::SelfSigned;
pub use server::{Certificate, ClientCertificates, MinVersion, ServerTls, TlsFiles, server_config};
pub use stream::MaybeTls;
pub use trust::{ClientTls, Trust};

use rustls::crypto::CryptoProvider;

/// Application protocol of all connections (ALPN).
const HTTP_1_1: &[u8] = b"http/1.1";
/// Maximum size of a certificate or key file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reason why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {error}", file.display())]
    Read {
        /// The file's purpose.
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// A file has no PEM item of the expected kind.
    #[error("no {what} in {}: expected a PEM file with {expected}", file.display())]
    Empty {
        /// The file's purpose.
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// Text that begins the expected item.
        expected: &'static str,
    },
    /// A file is not valid PEM.
    #[error("invalid {what} {}: {error}", file.display())]
    Pem {
        /// The file's purpose.
        what: &'static str,
        /// Its path.
        file: PathBuf,
        /// Cause.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key cannot be used.
    #[error("invalid certificate {} or key {}: {error}", certificate.display(), key.display())]
    Identity {
        /// Path of the certificate.
        certificate: PathBuf,
        /// Path of the key.
        key: PathBuf,
        /// Cause.
        error: rustls::Error,
    },
    /// The certificate authorities cannot be used.
    #[error("invalid certificate authority {}: {error}", file.display())]
    Authority {
        /// Path of the authorities.
        file: PathBuf,
        /// Cause.
        error: rustls::Error,
    },
    /// The client verifier rejects the certificate authorities.
    #[error("cannot verify client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// rustls rejects the settings.
    #[error("invalid TLS settings: {0}")]
    Settings(#[from] rustls::Error),
    /// No certificate can be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// The system has no trusted authorities.
    #[error(
        "no trusted certificate authorities found on this system; install ca-certificates, or name a file or a fingerprint"
    )]
    NoRoots,
}

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    ciphers::order(&mut provider.cipher_suites);
    Arc::new(provider)
}

/// Reads a bounded regular file.
fn read(what: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    crate::files::read_regular(file, FILE_BYTES_MAX).map_err(|error| TlsError::Read {
        what,
        file: file.to_owned(),
        error,
    })
}
