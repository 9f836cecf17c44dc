//! The commands, one file each.

mod check;
mod cluster;
mod fault;
mod http_get;
mod key;
mod load;
mod log_lines;
mod ready;
mod serve;
mod tail;
mod token;
mod top;
mod trust;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use crate::client::ClientError;
use crate::config::{parse_address, parse_duration, parse_shards};
use token::{Refusal, TokenArguments};

/// Exit codes for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Ok = 0,
    /// Runtime failure.
    Failed = 1,
    /// Invalid arguments or configuration.
    Usage = 2,
    /// Interrupted (SIGINT) before completion.
    Interrupted = 130,
}

/// Market-data broadcaster over WebSocket, with conflation for slow consumers and a ledger that
/// accounts for every event: delivered, merged or lost.
///
/// Without a command, serves the sources of feeds.yaml.
///
/// Exit codes: 0 success, 1 runtime failure, 2 invalid arguments or configuration,
/// 130 interrupted before completion.
#[derive(Debug, Parser)]
#[command(name = "tickcast", version, args_conflicts_with_subcommands = true)]
struct Tickcast {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the feed (the default command)
    Serve(Box<serve::Arguments>),
    /// Subscribe from the terminal; prints a live table, JSON lines or CSV
    Tail(tail::Arguments),
    /// Load-test a feed: many connections, latency histograms, verified ledgers
    Load(Box<load::Arguments>),
    /// Monitor a running server: rates, latencies, slow consumers
    Top(top::Arguments),
    /// Inject faults into a running simulated market, to test clients
    Fault(fault::Arguments),
    /// Validate a configuration file
    Check(check::Arguments),
    /// Query the readiness of a server; exit code 0 if ready
    Ready(ready::Arguments),
    /// Inspect a cluster of servers
    Cluster(cluster::Arguments),
    /// Make keys for clients (`auth.scheme: keys`)
    Key(key::Arguments),
    /// Print shell completions
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff), or write one page per command into a directory
    Man {
        /// Existing directory for tickcast.1, tickcast-serve.1, …
        folder: Option<PathBuf>,
    },
    /// Print the version
    Version,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Tickcast::parse();
    let done = match arguments.command {
        None => serve::run(&arguments.serve),
        Some(Command::Serve(serve)) => serve::run(&serve),
        Some(Command::Tail(tail)) => tail::run(&tail),
        Some(Command::Load(load)) => load::run(&load),
        Some(Command::Top(top)) => top::run(&top),
        Some(Command::Fault(fault)) => fault::run(&fault),
        Some(Command::Check(check)) => check::run(&check),
        Some(Command::Ready(ready)) => ready::run(&ready),
        Some(Command::Cluster(cluster)) => cluster::run(&cluster),
        Some(Command::Key(key)) => key::run(&key),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(
                shell,
                &mut Tickcast::command(),
                "tickcast",
                &mut std::io::stdout(),
            );
            Ok(Exit::Ok)
        }
        Some(Command::Man { folder }) => man(folder.as_deref()),
        Some(Command::Version) => {
            let version = format!("tickcast {}\n", env!("CARGO_PKG_VERSION"));
            print(version.as_bytes())
        }
    };
    let exit = match done {
        Ok(exit) => exit,
        // The reader of the pipe has closed it, as `head` does.
        Err(error) if is_broken_pipe(&error) => Exit::Ok,
        Err(error) => {
            print_error(&sentence(&error));
            Exit::Failed
        }
    };
    ExitCode::from(exit as u8)
}

/// Manual pages, generated from the same definitions as `--help`.
fn man(folder: Option<&Path>) -> Result<Exit> {
    let command = Tickcast::command();
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
    Ok(Exit::Ok)
}

/// Writes bytes to standard output.
fn print(bytes: &[u8]) -> Result<Exit> {
    let written = std::io::stdout().write_all(bytes);
    written.context("cannot write to standard output")?;
    Ok(Exit::Ok)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Parses an address with a numeric or named host, as in a config.
fn address(text: &str) -> Result<SocketAddr> {
    parse_address(text).context("expected HOST:PORT, e.g. 127.0.0.1:8080 or localhost:8080")
}

/// Parses a number of shards, as in a config.
fn shards(text: &str) -> Result<usize> {
    parse_shards(text).context("expected auto, or a number from 1 to 256")
}

/// Parses a duration.
fn time(text: &str) -> Result<Duration> {
    parse_duration(text).context("expected a duration, e.g. 250ms, 10s or 5m")
}

/// True if the terminal supports cursor movement and colours.
fn is_smart_terminal() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// True unless `NO_COLOR` (no-color.org) or a dumb terminal disables colours.
fn wants_colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && is_smart_terminal()
}

/// Message of a system error, without its number.
fn system_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text
        .split_once(" (os error")
        .map_or(text.as_str(), |(words, _)| words);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

/// Error of a failed connection, with a hint.
fn cant_connect(host: &str, error: &std::io::Error) -> anyhow::Error {
    let tls = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let hint = match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; trust the certificate by --ca or --tls-fingerprint"
        }
        Some(rustls::Error::InvalidMessage(_)) => "; does the port serve TLS?",
        _ if error.kind() == std::io::ErrorKind::ConnectionRefused => "; is the server running?",
        _ => "",
    };
    anyhow::anyhow!("cannot connect to {host}: {}{hint}", system_error(error))
}

/// Error of a failed feed connection, with a hint.
fn connect_error(host: &str, error: ClientError, token: &TokenArguments) -> anyhow::Error {
    let remedy = Refusal::of_error(&error).map(|refusal| token.remedy(refusal));
    match error {
        ClientError::Connect(error) => cant_connect(host, &error),
        other => anyhow::anyhow!("{host}: {other}{}", remedy.unwrap_or_default()),
    }
}

/// Error and its causes as one sentence, without repeated causes.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause
            .downcast_ref::<std::io::Error>()
            .map_or_else(|| cause.to_string(), system_error);
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) && !text.contains(&cause.to_string()) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// Removes the numbers of system errors, as in `no such file (os error 2)`.
fn without_error_numbers(line: &str) -> String {
    let mut parts = line.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
    first + &rest.collect::<String>()
}

/// Prints an error on standard error; each line is a problem of its own.
fn print_error(message: &str) {
    for line in message.lines() {
        let line = without_error_numbers(line);
        // Without standard error there is nowhere to report to.
        let _gone = writeln!(std::io::stderr(), "tickcast: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_no_numbers_of_the_system() {
        for (line, shown) in [
            ("a: no such file (os error 2)", "a: no such file"),
            ("a (os error 2): b (os error 13); c", "a: b; c"),
            ("a (b)", "a (b)"),
        ] {
            assert_eq!(without_error_numbers(line), shown);
        }
    }
}
