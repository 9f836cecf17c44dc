use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::serve::counted;
use super::{Exit, print, print_error};
use crate::config::{Config, ConfigError, reference};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Configuration file
    #[arg(default_value = "feeds.yaml")]
    config: PathBuf,
    /// Print the configuration reference as Markdown instead of validating a file
    #[arg(long)]
    keys: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "keys")]
    json: bool,
}

/// The result as JSON.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    valid: bool,
    sources: usize,
    problems: Vec<ReportedProblem>,
}

#[derive(Debug, Serialize)]
struct ReportedProblem {
    /// From 1; absent if the problem has no position in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    key: String,
    message: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    if arguments.keys {
        return print(reference().as_bytes());
    }
    let file = arguments.config.display();
    let checked = Config::load(&arguments.config);
    let (sources, error) = match &checked {
        Ok(config) => (
            config.sources.len(),
            config.probe_files().err().map(|error| error.to_string()),
        ),
        Err(error) => (0, Some(error.to_string())),
    };
    let exit = if error.is_some() {
        Exit::Usage
    } else {
        Exit::Ok
    };
    if arguments.json {
        let report = Report {
            file: file.to_string(),
            valid: error.is_none(),
            sources,
            problems: problems(checked.err(), error),
        };
        print(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?;
        return Ok(exit);
    }
    match error {
        Some(error) => print_error(&error),
        None => _ = print(format!("{file}: valid; {}\n", counted(sources, "source")).as_bytes())?,
    }
    Ok(exit)
}

/// Problems of the file with their positions, or of the files that it names.
fn problems(config: Option<ConfigError>, text: Option<String>) -> Vec<ReportedProblem> {
    if let Some(config) = config {
        let reported = config.problems.into_iter().map(|problem| ReportedProblem {
            line: (problem.line > 0).then_some(problem.line),
            column: (problem.line > 0).then_some(problem.column),
            key: problem.path,
            message: problem.message,
        });
        return reported.collect();
    }
    let text = text.unwrap_or_default();
    let lines = text.lines().map(|line| ReportedProblem {
        line: None,
        column: None,
        key: String::new(),
        message: line.to_owned(),
    });
    lines.collect()
}
