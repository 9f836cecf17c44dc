//! The client of the library under the fuzzing server of the Autobahn test suite, whose address is
//! the only argument.

use anyhow::{Context, Result};
use tickcast::client::echo;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let host = std::env::args().nth(1).context("expected HOST:PORT")?;
    let count = echo(&host, "/getCaseCount").await?;
    let count = count.first().context("no case count")?.to_text()?;
    let count: u32 = count.parse().context("the case count is no number")?;
    for case in 1..=count {
        echo(&host, &format!("/runCase?case={case}&agent=tickcast")).await?;
    }
    echo(&host, "/updateReports?agent=tickcast").await?;
    Ok(())
}
