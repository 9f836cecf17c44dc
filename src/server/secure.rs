//! TLS listener: from a new socket to an encrypted stream that HTTP is served on.
//!
//! Handshakes and HTTP over TLS run on threads of their own: the asymmetric cryptography of a storm
//! delays neither a shard nor a source.

use std::net::SocketAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Listener, Server};
use crate::metrics::Refused;
use crate::shard::Transport;
use crate::tls::{self, MaybeTls};

/// Stream of a client that HTTP is served on.
pub(super) type ClientStream = MaybeTls<TlsStream<TcpStream>>;

/// First byte of a TLS connection: a record with a handshake message.
const HANDSHAKE_RECORD: u8 = 22;
/// Response to plain HTTP on the TLS port.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: 62\r\n\r\nthis port requires TLS; expected an https:// or wss:// address";
/// Time for a client without TLS to take the response and to close.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a plain request that are read before the socket is closed.
const PLAIN_BYTES_MAX: usize = 16 * 1024;

/// Endpoint for clients with TLS.
#[derive(Debug)]
pub struct TlsEndpoint {
    /// Its address.
    pub listener: Listener,
    /// Configuration of the next handshakes.
    pub config: ArcSwap<ServerConfig>,
    /// Threads of handshakes and of HTTP.
    pub runtime: tokio::runtime::Handle,
}

/// Transport for a shard.
pub(super) fn transport_of(stream: ClientStream) -> std::io::Result<Transport> {
    match stream {
        MaybeTls::Plain(stream) => Transport::plain(stream),
        MaybeTls::Tls(stream) => {
            let (stream, session) = stream.into_inner();
            Transport::tls(stream, session)
        }
    }
}

/// Finishes the TLS handshake of a socket that has sent its first byte.
pub(super) async fn handshake(
    mut stream: TcpStream,
    first_byte: u8,
    peer: SocketAddr,
    server: &Server,
    endpoint: &TlsEndpoint,
) -> Option<ClientStream> {
    if first_byte != HANDSHAKE_RECORD {
        server.metrics.count_refused(Refused::NoTls);
        let response: &[u8] = if first_byte.is_ascii_uppercase() {
            PLAIN_HTTP
        } else {
            b""
        };
        let _late = tokio::time::timeout(LINGER, refuse(&mut stream, response)).await;
        return None;
    }
    let timeout = server.settings.load().handshake_timeout;
    let accepting = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let offered = hello.client_hello();
        let config = tls::config_for(&endpoint.config.load(), offered.cipher_suites());
        hello.into_stream(config).await
    };
    match tokio::time::timeout(timeout, accepting).await {
        Ok(Ok(stream)) => {
            let (_, session) = stream.get_ref();
            let is_newest = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            server.metrics.count_tls_handshake(is_newest);
            Some(MaybeTls::Tls(Box::new(stream)))
        }
        Ok(Err(error)) => {
            server.metrics.count_refused(Refused::TlsFailed);
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_elapsed) => {
            server.metrics.count_refused(Refused::TlsSlow);
            None
        }
    }
}

/// Sends a response and closes. The request is read first, because a socket that is closed with
/// unread bytes is reset.
async fn refuse(stream: &mut TcpStream, response: &[u8]) -> std::io::Result<()> {
    let mut request = vec![0; PLAIN_BYTES_MAX];
    let _request = stream.read(&mut request).await?;
    stream.write_all(response).await?;
    stream.shutdown().await?;
    // Until the client has read it and closes.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}
