use anyhow::Result;

use super::http_get::{HttpAddress, HttpClient, http_address};
use super::token::TokenArguments;
use super::trust::TrustArguments;
use super::{Exit, print_error};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Admin address or feed address of the server
    #[arg(value_name = "HOST:PORT|URL", default_value = "127.0.0.1:8081", value_parser = http_address)]
    server: HttpAddress,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
}

/// Requests `/readyz`; for health checks in images without other programs.
pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let (status, body) =
        HttpClient::new(&arguments.server, &arguments.trust, &arguments.token)?.get("/readyz")?;
    if status == 200 {
        return Ok(Exit::Ok);
    }
    print_error(body.trim());
    Ok(Exit::Failed)
}
