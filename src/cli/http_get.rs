//! Requests to a route of a server, for commands that inspect or change one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Time limit for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a response, in bytes.
const RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Status and body of the response to a GET request.
pub(super) fn get(server: SocketAddr, target: &str) -> Result<(u16, String)> {
    send(server, "GET", target, "")
}

/// Status and body of the response to a request with a JSON body, which may be empty.
pub(super) fn send(
    server: SocketAddr,
    method: &str,
    target: &str,
    body: &str,
) -> Result<(u16, String)> {
    let head = format!("{method} {target} HTTP/1.0\r\nHost: {server}\r\n");
    let head = if body.is_empty() {
        head
    } else {
        let length = body.len();
        format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n")
    };
    let response =
        request(server, &format!("{head}\r\n{body}")).map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::TimedOut => {
                super::cant_connect(&server.to_string(), &error)
            }
            _ => anyhow::Error::new(error).context(format!("no response from {server}")),
        })?;
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("{server} did not send an HTTP response"))?;
    Ok((
        status,
        response
            .split_once("\r\n\r\n")
            .map_or_else(String::new, |(_, body)| body.to_owned()),
    ))
}

fn request(server: SocketAddr, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // In HTTP/1.0 the body is not chunked and ends with the connection.
    stream.write_all(text.as_bytes())?;
    let mut response = String::new();
    stream
        .take(RESPONSE_BYTES_MAX)
        .read_to_string(&mut response)?;
    Ok(response)
}
