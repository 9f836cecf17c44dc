use std::io::Write;
use std::path::PathBuf;

use super::{Exit, complain};
use crate::config::{Config, SourceDetails, guide};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The config file
    #[arg(default_value = "feeds.yaml")]
    config: PathBuf,
    /// Print what every key means, as a Markdown table, and check nothing
    #[arg(long)]
    keys: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut out = std::io::stdout();
    if arguments.keys {
        return if out.write_all(guide().as_bytes()).is_ok() {
            Exit::Ok
        } else {
            Exit::Failed
        };
    }
    match Config::load(&arguments.config) {
        Ok(config) => {
            let replays = config
                .sources
                .iter()
                .filter_map(|source| match &source.details {
                    SourceDetails::Replay(replay) => {
                        replay.probe().err().map(|error| (&source.name, error))
                    }
                    _ => None,
                });
            let broken: Vec<_> = replays
                .map(|(name, error)| format!("source {name}: {error}"))
                .collect();
            if !broken.is_empty() {
                complain(&broken.join("\n"));
                return Exit::Usage;
            }
            let said = writeln!(
                out,
                "{}: right; {} sources",
                arguments.config.display(),
                config.sources.len()
            );
            if said.is_ok() { Exit::Ok } else { Exit::Failed }
        }
        Err(error) => {
            complain(&error.to_string());
            Exit::Usage
        }
    }
}
