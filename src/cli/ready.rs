use anyhow::Result;

use super::{Exit, address, ask, complain};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Admin address or feed address of the server
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:8081", value_parser = address)]
    server: std::net::SocketAddr,
}

/// Asks `/readyz`; for health checks in images that have no other program.
pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let (status, body) = ask::get(arguments.server, "/readyz")?;
    if status == 200 {
        return Ok(Exit::Ok);
    }
    complain(body.trim());
    Ok(Exit::Failed)
}
