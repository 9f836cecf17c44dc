//! Section `tls`: the address with TLS, and its certificates.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Section;
use crate::tls::{Certificate, ClientCertificates, MinVersion, TlsFiles};

/// Address with TLS.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Listen address.
    pub listen: SocketAddr,
    /// Certificates and their rules.
    pub files: TlsFiles,
    /// Time for which browsers use TLS only; zero: not announced.
    pub hsts: Duration,
}

pub(super) fn read(section: &Section<'_>) -> Option<TlsConfig> {
    let listen = section.address_or_off("listen");
    let path = |key: &str| Some(section.text(key)).filter(|path| !path.is_empty());
    let (certificate, key) = (path("certificate"), path("key"));
    let client_ca = path("client_ca").map(PathBuf::from);
    let client_certificates = match section.word("client_certificates") {
        "required" => ClientCertificates::Required,
        "optional" => ClientCertificates::Optional,
        _ => ClientCertificates::Off,
    };
    let min_version = match section.word("min_version") {
        "1.3" => MinVersion::Tls13,
        _ => MinVersion::Tls12,
    };
    let hsts = section.duration("hsts");
    let listen = listen?;
    for (name, found) in [("certificate", &certificate), ("key", &key)] {
        if found.is_none() {
            let missing = "missing; tls.listen requires a PEM file, e.g. /etc/tickcast/feed.pem";
            section.problem(name, missing);
        }
    }
    if client_ca.is_none() && client_certificates != ClientCertificates::Off {
        let missing = "missing; tls.client_certificates requires the authorities of the clients";
        section.problem("client_ca", missing);
    }
    Some(TlsConfig {
        listen,
        files: TlsFiles {
            certificate: Certificate::Files {
                certificate: certificate.unwrap_or_default().into(),
                key: key.unwrap_or_default().into(),
            },
            client_ca,
            client_certificates,
            min_version,
        },
        hsts,
    })
}
