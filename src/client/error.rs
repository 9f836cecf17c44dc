//! Reasons for which a connection fails or ends.

use std::io;

use tokio_tungstenite::tungstenite::Error as SocketError;

use super::token::TokenError;
use crate::codec::DecodeError;
use crate::printable::{printable, shortened};
use crate::tls::TlsError;

/// Characters of a server's explanation that are kept.
const REASON_CHARS_MAX: usize = 500;

/// Reason why a connection failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection to the server.
    #[error("cannot connect to the server: {0}")]
    Connect(#[from] io::Error),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no token to present.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server refused the handshake.
    #[error("the server refused the handshake with HTTP {status}: {reason}")]
    Refused {
        /// HTTP status: 401 for a missing or wrong token.
        status: u16,
        /// The server's explanation.
        reason: String,
    },
    /// The handshake or the WebSocket itself failed.
    #[error("WebSocket error: {0}")]
    WebSocket(Box<SocketError>),
    /// A message does not conform to the protocol.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The server closed the connection.
    #[error("the server closed the connection with code {code}: {reason}")]
    Closed {
        /// The close frame's code; 1006 without one.
        code: u16,
        /// The close frame's text.
        reason: String,
    },
}

impl From<SocketError> for ClientError {
    fn from(error: SocketError) -> Self {
        let SocketError::Http(response) = error else {
            return Self::WebSocket(Box::new(error));
        };
        let status = response.status();
        let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
        let reason = match body.trim() {
            "" => status
                .canonical_reason()
                .unwrap_or("no reason given")
                .into(),
            body => shortened(&printable(body), REASON_CHARS_MAX),
        };
        Self::Refused {
            status: status.as_u16(),
            reason,
        }
    }
}
