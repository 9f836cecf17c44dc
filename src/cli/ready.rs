use anyhow::Result;

use super::{Exit, address, http_get, print_error};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Admin address or feed address of the server
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:8081", value_parser = address)]
    server: std::net::SocketAddr,
}

/// Requests `/readyz`; for health checks in images without other programs.
pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let (status, body) = http_get::get(arguments.server, "/readyz")?;
    if status == 200 {
        return Ok(Exit::Ok);
    }
    print_error(body.trim());
    Ok(Exit::Failed)
}
