//! The feed over TLS: the same promises, and the rules of certificates.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tempfile::TempDir;
use tickcast::client::{Client, FeedUrl, TlsTrust, Trust};
use tickcast::protocol::Encoding;

use crate::harness::{Feed, Tracked, market, subscribe};

/// Certificates of a test, in files as an operator has them.
struct Certificates {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// An authority, and a certificate that it has signed for `localhost`.
    fn new() -> Result<Self> {
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

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a new certificate for `localhost` and writes it to `NAME.pem` and `NAME.key`.
    fn renew(&self, name: &str) -> Result<()> {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        replace(&self.path(&format!("{name}.key")), &key.serialize_pem())?;
        replace(&self.path(&format!("{name}.pem")), &certificate.pem())
    }

    /// Section `tls` of a config.
    fn section(&self, more: &str) -> String {
        format!(
            "tls: {{listen: 127.0.0.1:0, certificate: {}, key: {}{more}}}\n",
            self.path("server.pem").display(),
            self.path("server.key").display()
        )
    }

    fn trust(&self) -> Result<TlsTrust> {
        Ok(TlsTrust::new(&Trust::Authorities(self.path("ca.pem")))?)
    }
}

/// Replaces a file at once, as a tool for certificates does.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, path)?)
}

fn address(feed: &Feed) -> Result<SocketAddr> {
    feed.app.tls_address().context("no TLS address")
}

fn url(feed: &Feed) -> Result<FeedUrl> {
    Ok(format!("wss://localhost:{}", address(feed)?.port()).parse()?)
}

async fn connect(feed: &Feed, trust: &TlsTrust, encoding: Encoding) -> Result<Tracked> {
    Tracked::welcome(Client::connect_with(&url(feed)?, trust, encoding).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_the_same_with_and_without_tls_at_once() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = Feed::start(&market(5, 2_000, &certificates.section(""))).await?;
    let trust = certificates.trust()?;
    for encoding in Encoding::ALL {
        let mut clients = [
            connect(&feed, &trust, encoding).await?,
            feed.client(encoding).await?,
        ];
        for client in &mut clients {
            client.subscribe(subscribe(&["trade:*", "quote:*"])).await?;
            client.events(2_000).await?;
            client.ledger().await?;
        }
    }
    assert_eq!(feed.counted("tls_handshakes", "1.3"), 2);
    Ok(())
}
