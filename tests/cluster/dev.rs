//! `tickcast cluster up --dev`: the cluster of a newcomer.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tickcast::client::Client;
use tickcast::protocol::Encoding;

use super::nats::nats_server;
use super::process::wait_for;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_command_starts_a_cluster_and_stops_it() -> Result<()> {
    let Some(nats) = nats_server()? else {
        return Ok(());
    };
    let folder = nats.parent().context("a folder of programs")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
    command.args(["cluster", "up", "--dev"]);
    command.env("PATH", format!("{}:{path}", folder.display()));
    let mut up = command.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(up.stdout.take().context("it is piped")?).lines();
    let (mut ids, mut gateways, mut files) = (Vec::new(), Vec::<SocketAddr>::new(), None);
    for line in &mut lines {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["pid", id] = words.get(1..3).unwrap_or_default() {
            ids.push((*id).to_owned());
        }
        if line.starts_with("gateway") {
            let address = line.split("http://").nth(1);
            let address = address.and_then(|rest| rest.split('/').next());
            gateways.push(address.context("an address")?.parse()?);
        }
        files = files.or_else(|| line.split("streams: ").nth(1).map(str::to_owned));
        if line.starts_with("stop all") {
            break;
        }
    }
    ensure!(
        (ids.len(), gateways.len()) == (7, 2),
        "{ids:?} {gateways:?}"
    );
    for gateway in gateways {
        drop(Client::connect(gateway, Encoding::Json).await?);
    }
    let files = files.context("a folder")?;
    let config = format!("{files}/gateway-a.yaml");
    let status = Command::new(env!("CARGO_BIN_EXE_tickcast"))
        .args(["cluster", "status", "--config", &config])
        .output()?;
    let status = String::from_utf8(status.stdout)?;
    ensure!(status.contains("publisher-a, term 1"), "{status}");
    let id = up.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &id]).status()?;
    ensure!(interrupted.success());
    let ended = wait_for("end of the command", || Ok(up.try_wait()?))?;
    ensure!(ended.success(), "{ended}");
    for id in ids {
        ensure!(
            !Path::new(&format!("/proc/{id}")).exists(),
            "process {id} is left"
        );
    }
    ensure!(!Path::new(&files).exists(), "{files} is left");
    Ok(())
}
