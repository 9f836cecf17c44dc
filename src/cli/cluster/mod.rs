//! `tickcast cluster`: commands for the operators of a cluster.

mod control;
mod status;
mod up;
mod verify;

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::{Exit, print_error};
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Configuration file of any server of the cluster
    #[arg(long, value_name = "FILE", default_value = "feeds.yaml", global = true)]
    config: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the log, the leader and the checkpoints; exit code 1 if one of them is missing or old
    Status,
    /// Read every record of the log and verify it; exit code 1 if one is wrong
    Verify {
        /// Number of the record to begin with [default: the first one that the log contains]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        from: Option<u64>,
    },
    /// Have the leader store a checkpoint of its present state
    Checkpoint,
    /// Run a cluster on this machine: three NATS servers, two publishers and two gateways, with the
    /// sources and settings of the configuration file of a standalone server
    Up(up::Arguments),
    /// Have the leader begin new epochs of all topics: every client gets snapshots, and none resumes
    NewEpoch,
    /// Have the leader hand over to a publisher that stands by, and wait until that one leads
    Handover,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Arguments {
        command,
        config: file,
    } = arguments;
    if let Command::Up(arguments) = command {
        return up::run(arguments, file);
    }
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            print_error(&error.to_string());
            return Ok(Exit::Usage);
        }
    };
    let Some(settings) = &config.cluster else {
        bail!(
            "{}: cluster.role is standalone; expected the config of a publisher or gateway",
            file.display()
        );
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Status => status::run(settings).await,
            Command::Verify { from } => verify::run(settings, *from).await,
            Command::Checkpoint => control::checkpoint(settings).await,
            Command::NewEpoch => control::new_epoch(settings).await,
            Command::Handover => control::handover(settings).await,
            Command::Up(_) => unreachable!("it needs no running cluster"),
        }
    })
}
