use std::io::Write;
use std::path::PathBuf;

use super::{Exit, complain};
use crate::config::{Config, guide};

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
            if let Err(error) = config.probe_files() {
                complain(&error.to_string());
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
