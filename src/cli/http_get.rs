//! GET request to a route of a server, for commands that inspect one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Time limit for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum size of a response, in bytes.
const RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Status and body of the response.
pub(super) fn get(server: SocketAddr, target: &str) -> Result<(u16, String)> {
    let response = request(server, target).map_err(|error| match error.kind() {
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

fn request(server: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // In HTTP/1.0 the body is not chunked and ends with the connection.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut response = String::new();
    stream
        .take(RESPONSE_BYTES_MAX)
        .read_to_string(&mut response)?;
    Ok(response)
}
