//! Opening handshake of a client (RFC 6455, section 4.1).

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::plan::Dialect;
use super::recorder::TestSettings;
use crate::client::Bearer;

/// User agent of the tester, for operators.
const AGENT: &str = concat!("tickcast-load/", env!("CARGO_PKG_VERSION"));

/// Handshake request.
pub(super) fn request(settings: &TestSettings, key: &str, token: Option<&Bearer>) -> String {
    let host = &settings.host;
    let (path, protocol) = match &settings.dialect {
        Dialect::Tickcast => (
            settings.path.as_str(),
            format!(
                "Sec-WebSocket-Protocol: {}\r\n",
                settings.encoding.subprotocol()
            ),
        ),
        Dialect::Raw(raw) => (raw.path.as_str(), String::new()),
    };
    let authorization = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {}\r\n", token.text())
    });
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}{authorization}\r\n"
    )
}

/// Reason why a response does not accept the handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("invalid HTTP response: {0}")]
    Head(#[from] httparse::Error),
    #[error("response head longer than 16 KiB")]
    TooLong,
    #[error("expected HTTP 101 Switching Protocols, received {code} {reason}")]
    Status { code: u16, reason: String },
    #[error("`Sec-WebSocket-Accept` does not match the key")]
    Accept,
}

/// Checks the head of the response.
pub(super) fn check(head: &[u8], key: &str) -> Result<(), HandshakeError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head)?;
    if response.code != Some(101) {
        return Err(HandshakeError::Status {
            code: response.code.unwrap_or(0),
            reason: response.reason.unwrap_or("").to_owned(),
        });
    }
    let accept = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    if accept.is_none_or(|header| header.value != derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(HandshakeError::Accept);
    }
    Ok(())
}
