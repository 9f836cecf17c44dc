//! Options of the commands that connect to servers with TLS.

use std::path::PathBuf;

use crate::client::{ClientTls, Fingerprint, TlsError, Trust};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct TrustArguments {
    /// Also trust the certificate authorities in this PEM file, for wss:// and https://
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_fingerprint", "tls_insecure"])]
    ca: Option<PathBuf>,
    /// Trust only the server certificate with this SHA-256 fingerprint, as printed by
    /// `serve --self-signed`
    #[arg(long, value_name = "SHA256", conflicts_with = "tls_insecure")]
    tls_fingerprint: Option<Fingerprint>,
    /// Trust any server certificate: encrypted, but the server may be anybody
    #[arg(long)]
    tls_insecure: bool,
    /// PEM file with a client certificate, for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// PEM file with the private key of the client certificate
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

impl TrustArguments {
    /// Reads the files.
    pub(super) fn read(&self) -> Result<ClientTls, TlsError> {
        let trust = match (&self.ca, self.tls_fingerprint) {
            _ if self.tls_insecure => Trust::Any,
            (_, Some(fingerprint)) => Trust::Fingerprint(fingerprint),
            (Some(file), None) => Trust::Authorities(file.clone()),
            (None, None) => Trust::System,
        };
        match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => ClientTls::with_certificate(&trust, certificate, key),
            _ => ClientTls::new(&trust),
        }
    }
}
