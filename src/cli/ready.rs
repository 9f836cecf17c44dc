use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Exit, address, complain};

/// Longer than any answer of a server that is well.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The admin address or the feed's
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:8081", value_parser = address)]
    server: std::net::SocketAddr,
}

/// Asks `/readyz`; for health checks in images that have no other program.
pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let answer = ask(arguments.server).with_context(|| format!("{} doesn't answer", arguments.server))?;
    let is_ready = answer.split(' ').nth(1) == Some("200");
    if !is_ready {
        complain(answer.rsplit("\r\n").next().unwrap_or_default().trim());
    }
    Ok(if is_ready { Exit::Ok } else { Exit::Failed })
}

fn ask(server: std::net::SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}
