//! Certificates of the tests over TLS, in files as an operator has them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tickcast::client::{ClientTls, Fingerprint, Trust};

use crate::harness::{DEADLINE, Feed, market};

/// Certificates of a test, in files as an operator has them.
pub(crate) struct Certificates {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// An authority, and a certificate that it has signed for `localhost`.
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let new = Self {
            folder: tempfile::tempdir()?,
            authority,
        };
        std::fs::write(new.path("ca.pem"), new.authority.pem())?;
        new.renew("server")?;
        Ok(new)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a new certificate for `localhost` and writes it to `NAME.key` and `NAME.pem`.
    pub(crate) fn renew(&self, name: &str) -> Result<Fingerprint> {
        self.renew_until(name, 4096)
    }

    /// As `renew`, valid until the start of a year.
    pub(crate) fn renew_until(&self, name: &str, year: i32) -> Result<Fingerprint> {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        replace(&self.path(&format!("{name}.key")), &key.serialize_pem())?;
        replace(&self.path(&format!("{name}.pem")), &certificate.pem())?;
        Ok(Fingerprint::of(certificate.der()))
    }

    /// Section `tls` of a config.
    pub(crate) fn section(&self, more: &str) -> String {
        format!(
            "tls: {{listen: 127.0.0.1:0, certificate: {}, key: {}{more}}}\n",
            self.path("server.pem").display(),
            self.path("server.key").display()
        )
    }

    pub(crate) async fn feed(&self, rate: usize, more: &str, rest: &str) -> Result<Feed> {
        Feed::start(&market(2, rate, &(self.section(more) + rest))).await
    }

    pub(crate) fn tls(&self) -> Result<ClientTls> {
        Ok(ClientTls::new(&Trust::Authorities(self.path("ca.pem")))?)
    }

    /// Settings of a client with its own certificate.
    pub(crate) fn tls_of(&self, name: &str, of: &Self) -> Result<ClientTls> {
        let trust = Trust::Authorities(self.path("ca.pem"));
        let (certificate, key) = (
            of.path(&format!("{name}.pem")),
            of.path(&format!("{name}.key")),
        );
        Ok(ClientTls::with_certificate(&trust, &certificate, &key)?)
    }

    /// Blocking stream of a client with these versions.
    pub(crate) fn stream(
        &self,
        feed: &Feed,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        let socket = std::net::TcpStream::connect(address(feed)?)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(StreamOwned::new(session, socket))
    }
}

/// Replaces a file at once, as a tool for certificates does.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, path)?)
}

/// Address of a feed with TLS.
pub(crate) fn address(feed: &Feed) -> Result<SocketAddr> {
    feed.app.tls_address().context("no TLS address")
}
