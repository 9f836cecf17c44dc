//! The client's side: which server certificates it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::server::{chain_of, key_of, roots_of};
use super::{Fingerprint, HTTP_1_1, TlsError, provider};

/// Server certificates that a client accepts over `wss://` and `https://`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that an authority of the system has signed for the host.
    #[default]
    System,
    /// Those that an authority in this PEM file, or one of the system, has signed for the host.
    Authorities(PathBuf),
    /// The one with this fingerprint, whatever its host, authority and date.
    Fingerprint(Fingerprint),
    /// Any: the connection is encrypted, but the server may be anybody.
    Any,
}

/// TLS settings of a client whose files have been read, for any number of connections.
#[derive(Debug, Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Reads the authorities.
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        Self::build(trust, None)
    }

    /// Reads the authorities, and a certificate for servers that ask for one.
    pub fn with_certificate(
        trust: &Trust,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, TlsError> {
        let own = (chain_of(certificate)?, key_of(key)?);
        Self::build(trust, Some(own))
    }

    fn build(trust: &Trust, own: Option<Identity>) -> Result<Self, TlsError> {
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::System => by_authority(system_roots()?)?,
            Trust::Authorities(file) => {
                let mut roots = roots_of(file)?;
                // The file is enough where the system has none.
                roots.extend(
                    system_roots()
                        .unwrap_or_else(|_none| RootCertStore::empty())
                        .roots,
                );
                by_authority(roots)?
            }
            Trust::Fingerprint(fingerprint) => {
                Arc::new(Pinned(Some(*fingerprint), Arc::clone(&provider)))
            }
            Trust::Any => Arc::new(Pinned(None, Arc::clone(&provider))),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Configuration of handshakes.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

/// Certificate chain with its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn by_authority(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(builder.build()?)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

/// Verifier that compares the certificate itself; without a fingerprint it accepts any.
#[derive(Debug)]
struct Pinned(Option<Fingerprint>, Arc<CryptoProvider>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0 {
            Some(expected) if expected != Fingerprint::of(end_entity) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    // The server must still prove that it has the key of that certificate.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.1.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.1.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}
