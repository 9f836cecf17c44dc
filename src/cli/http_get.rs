//! Requests to a route of a server, for commands that inspect or change one.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::{ClientConnection, StreamOwned};

use super::address;
use super::token::{Refusal, TokenArguments};
use super::trust::TrustArguments;
use crate::client::{Bearer, ClientTls, Token, server_name};
use crate::printable::printable;

/// Time limit for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a response, in bytes.
const RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Address of a server, as people write it.
#[derive(Debug, Clone)]
pub(super) struct HttpAddress {
    host: String,
    address: SocketAddr,
    is_tls: bool,
}

/// Parses `HOST:PORT`, or the beginning of a URL.
pub(super) fn http_address(text: &str) -> Result<HttpAddress> {
    let (rest, is_tls, port) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
        (Some(rest), _) => (rest, false, Some(80)),
        (_, Some(rest)) => (rest, true, Some(443)),
        (None, None) => (text, false, None),
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let host = match port {
        Some(port) if !has_port => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    let address = address(&host)?;
    Ok(HttpAddress {
        host,
        address,
        is_tls,
    })
}

/// Client of one server.
#[derive(Debug)]
pub(super) struct HttpClient {
    server: HttpAddress,
    tls: Option<ClientTls>,
    /// Token of each request, with the options that name it.
    token: Option<Token>,
    token_arguments: TokenArguments,
}

impl fmt::Display for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server.host)
    }
}

impl HttpClient {
    pub(super) fn new(
        server: &HttpAddress,
        trust: &TrustArguments,
        token: &TokenArguments,
    ) -> Result<Self> {
        Ok(Self {
            tls: server.is_tls.then(|| trust.read()).transpose()?,
            server: server.clone(),
            token: token.token(),
            token_arguments: token.clone(),
        })
    }

    /// Status and body of the response to a GET request.
    pub(super) fn get(&self, target: &str) -> Result<(u16, String)> {
        self.send("GET", target, "")
    }

    /// Status and body of the response to a request with a JSON body, which may be empty. A refusal
    /// of the credentials is an error.
    pub(super) fn send(&self, method: &str, target: &str, body: &str) -> Result<(u16, String)> {
        let host = &self.server.host;
        let bearer = self.token.as_ref().map(Token::read).transpose()?;
        let authorization = bearer.as_ref().map_or_else(String::new, authorization);
        let head = format!("{method} {target} HTTP/1.0\r\nHost: {host}\r\n{authorization}");
        let head = if body.is_empty() {
            head
        } else {
            let length = body.len();
            format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n")
        };
        let request = format!("{head}\r\n{body}");
        let response = self.request(&request).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::TimedOut
            | io::ErrorKind::InvalidData => super::cant_connect(host, &error),
            _ => anyhow::Error::new(error).context(format!("no response from {host}")),
        })?;
        let status = response
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("{host} did not send an HTTP response"))?;
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        if let Some(refusal) = Refusal::of_response(status, body) {
            let (reason, remedy) = (printable(body.trim()), self.token_arguments.remedy(refusal));
            bail!("{host} refused the request with HTTP {status}: {reason}{remedy}");
        }
        Ok((status, body.to_owned()))
    }

    fn request(&self, text: &str) -> io::Result<String> {
        let stream = TcpStream::connect_timeout(&self.server.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let Some(tls) = &self.tls else {
            return exchange(stream, text);
        };
        let name = server_name(&self.server.host)?;
        let session = ClientConnection::new(tls.config(), name).map_err(io::Error::other)?;
        exchange(StreamOwned::new(session, stream), text)
    }
}

/// Header line with a token.
fn authorization(token: &Bearer) -> String {
    format!("Authorization: Bearer {}\r\n", token.text())
}

fn exchange(mut stream: impl Read + Write, text: &str) -> io::Result<String> {
    // In HTTP/1.0 the body is not chunked and ends with the connection.
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    let mut response = String::new();
    stream
        .take(RESPONSE_BYTES_MAX)
        .read_to_string(&mut response)?;
    Ok(response)
}
