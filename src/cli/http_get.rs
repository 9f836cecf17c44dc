//! A GET to a server's own routes, for commands that look at one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// Longer than any answer of a server that is well.
const PATIENCE: Duration = Duration::from_secs(3);
/// More than any answer of the admin address.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The status and the body of the answer.
pub(super) fn get(server: SocketAddr, target: &str) -> Result<(u16, String)> {
    let answer = ask(server, target).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::TimedOut => {
            super::cant_connect(&server.to_string(), &error)
        }
        _ => anyhow::Error::new(error).context(format!("{server} doesn't answer")),
    })?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("not an HTTP response")?;
    Ok((
        status,
        answer
            .split_once("\r\n\r\n")
            .map_or_else(String::new, |(_, body)| body.to_owned()),
    ))
}

fn ask(server: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // By HTTP/1.0 the body comes as it is, and ends with the connection.
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
