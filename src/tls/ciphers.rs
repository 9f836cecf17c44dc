//! Order of the cipher suites.

use std::sync::Arc;

use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};

/// Key sizes and ciphers, the cheapest one first.
const CHEAPEST_FIRST: [&str; 3] = ["AES_128", "AES_256", "CHACHA20"];

fn name(suite: CipherSuite) -> &'static str {
    suite.as_str().unwrap_or_default()
}

/// Sorts the suites: AES with 128 bits is as safe as with 256 in practice, and has 10 rounds per
/// block instead of 14. TLS 1.3 precedes TLS 1.2.
pub(super) fn order(suites: &mut [SupportedCipherSuite]) {
    suites.sort_by_key(|suite| {
        let name = name(suite.suite());
        let cost = CHEAPEST_FIRST.iter().position(|part| name.contains(part));
        (suite.tls13().is_none(), cost)
    });
}

/// Configuration for a client that offers these cipher suites, its first choice first. The order of
/// the server decides, except for a client that puts `ChaCha20` first: it has no AES in hardware.
pub fn config_for(config: &Arc<ServerConfig>, offered: &[CipherSuite]) -> Arc<ServerConfig> {
    let known = |suite: &&CipherSuite| {
        CHEAPEST_FIRST
            .iter()
            .any(|part| name(**suite).contains(part))
    };
    let first = offered.iter().find(known);
    if first.is_none_or(|first| !name(*first).contains("CHACHA20")) {
        return Arc::clone(config);
    }
    let mut config = ServerConfig::clone(config);
    config.ignore_client_order = false;
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::ring::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::ServerName;
    use rustls::server::Acceptor;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use crate::tls::{
        Certificate, ClientCertificates, MinVersion, SelfSigned, TlsFiles, server_config,
    };

    /// Suite that a client with these suites gets.
    fn negotiated(config: &Arc<ServerConfig>, suites: &[SupportedCipherSuite]) -> CipherSuite {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: suites.to_vec(),
            ..default_provider()
        };
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("suites of a version")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(client), name).expect("valid settings");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory accepts all");
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).expect("a hello fits");
        let accepted = acceptor
            .accept()
            .expect("a valid hello")
            .expect("all of it");
        let config = config_for(config, accepted.client_hello().cipher_suites());
        let server = accepted.into_connection(config).expect("a common suite");
        let suite = server.negotiated_cipher_suite();
        suite.expect("chosen with the hello").suite()
    }

    #[test]
    fn the_cheapest_suite_is_chosen_except_for_clients_without_aes() {
        let files = TlsFiles {
            certificate: Certificate::SelfSigned(SelfSigned::new().expect("a certificate")),
            client_ca: None,
            client_certificates: ClientCertificates::Off,
            min_version: MinVersion::Tls12,
        };
        let config = server_config(&files).expect("a valid certificate").config;
        let chosen = |suites: &[SupportedCipherSuite]| negotiated(&config, suites);
        let (aes_128, aes_256, chacha) = (
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        );
        assert_eq!(chosen(&[aes_256, aes_128, chacha]), aes_128.suite());
        assert_eq!(chosen(&[aes_256, chacha]), aes_256.suite());
        assert_eq!(chosen(&[chacha, aes_256, aes_128]), chacha.suite());
        let (aes_128, aes_256, chacha) = (
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        );
        assert_eq!(chosen(&[aes_256, aes_128, chacha]), aes_128.suite());
        assert_eq!(chosen(&[chacha, aes_128]), chacha.suite());
        assert_eq!(
            chosen(&default_provider().cipher_suites),
            TLS13_AES_128_GCM_SHA256.suite()
        );
    }
}
