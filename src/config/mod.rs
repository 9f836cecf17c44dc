//! Configuration file `feeds.yaml`, and the validated [`Config`] that the other modules use. Every
//! `Config` is valid.

mod auth;
mod changes;
mod cluster;
mod findings;
mod memory;
mod probe;
mod reader;
mod reference;
mod roles;
mod server;
mod sources;
mod table;
mod tls;
mod units;
mod web;
mod yaml;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use auth::{AuthFileError, auth_files, auth_policy};
pub use changes::changes;
pub use cluster::Parts;
pub use memory::{
    ADMIN_CONNECTIONS, ADMIN_HEAD_BYTES_MAX, CLIENT_BYTES, PUBLISH_BODIES, PUBLISH_REPORT_BYTES,
    PUBLISH_WAITS, PUBLISHES_AT_ONCE, RESPONSE_BYTES, SPARE_SOCKETS,
};
pub use probe::FilesError;
pub use reference::reference;
pub use server::parse_shards;
pub use sources::{SourceConfig, SourceDetails};
pub use table::{Key, Kind, keys};
pub use tls::TlsConfig;
pub use units::parse_address;
pub(crate) use units::{duration as parse_duration, signed_nanos as parse_signed_nanos};
pub use web::{Authority, HostRule, OriginRule, Scheme, WebOrigin};

use ipnet::IpNet;

use crate::access::Roles;
use crate::auth::AuthSettings;
use crate::cluster::ClusterSettings;
use crate::files::read_regular;
use crate::limits::{AdmissionLimits, ShardLimits};
use crate::printable::{printable, shortened};
use crate::tls::{Certificate, ClientCertificates, MinVersion, SelfSigned, TlsFiles};
use findings::{Findings, Values};
use reader::Section;
use yaml::Mark;

/// Problem found in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1; 0 if the problem has no position.
    pub line: usize,
    /// Column number, from 1.
    pub column: usize,
    /// Path of the key, e.g. `sources[0].seed`.
    pub path: String,
    /// The problem and the expected value.
    pub message: String,
}

/// Number of files that a server opens in addition to client sockets.
const OWN_FILES: usize = 64;
/// Maximum size of a config file, in bytes. A file with 10,000 instruments takes about 600 KiB.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Maximum number of problems reported per file.
const PROBLEMS_MAX: usize = 100;
/// Maximum number of characters of a problem's path and of its message, both of which may quote the
/// file.
const QUOTED_CHARS_MAX: usize = 400;

impl Problem {
    fn new(mark: Mark, path: &str, message: String) -> Self {
        Self {
            line: mark.line,
            column: mark.column,
            path: quotable(path),
            message: quotable(&message),
        }
    }
}

/// Truncated text of a file, printable on a terminal.
fn quotable(text: &str) -> String {
    printable(&shortened(text, QUOTED_CHARS_MAX)).into_owned()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, " {}{colon}{}", self.path, self.message)
    }
}

/// All problems of a config, in file order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Name of the file.
    pub file: String,
    /// Problems found; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let end = if at + 1 < self.problems.len() {
                "\n"
            } else {
                ""
            };
            write!(f, "{}:{problem}{end}", self.file)?;
        }
        Ok(())
    }
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Listen address of the feed without TLS; `None`: disabled.
    pub listen: Option<SocketAddr>,
    /// Listen address with TLS and its certificates; `None`: disabled.
    pub tls: Option<TlsConfig>,
    /// Admin listen address; `None`: disabled.
    pub admin: Option<SocketAddr>,
    /// Hosts accepted besides the listeners' own.
    pub allowed_hosts: Vec<HostRule>,
    /// Browser origins allowed to open the feed.
    pub allowed_origins: Vec<OriginRule>,
    /// Proxies whose `X-Forwarded-*` and PROXY headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// True if each connection to the feed's port begins with a PROXY header.
    pub proxy_protocol: bool,
    /// True if the feed's port also serves `/metrics`.
    pub metrics_on_feed: bool,
    /// Roles, and the role of clients without credentials.
    pub roles: Roles,
    /// Authentication of clients.
    pub auth: AuthSettings,
    /// Part of the server in a cluster; `None`: standalone.
    pub cluster: Option<ClusterSettings>,
    /// Number of shards.
    pub shards: usize,
    /// True if each shard's thread stays on one CPU.
    pub pin: bool,
    /// Directory for the saved state; `None`: no state is saved.
    pub state_dir: Option<PathBuf>,
    /// Market-data sources.
    pub sources: Vec<SourceConfig>,
    /// Maximum memory queued between sources and the bus, in bytes.
    pub queue_bytes: usize,
    /// Maximum memory of the batches kept for the slowest shard, in bytes.
    pub log_bytes: usize,
    /// Maximum memory of the batches that wait for one delayed view, in bytes.
    pub delay_line_bytes: usize,
    /// Unsent bytes above which a socket counts as full.
    pub unsent_bytes: u32,
    /// Maximum number of concurrent connections.
    pub connections_max: usize,
    /// Limits by client address.
    pub admission: AdmissionLimits,
    /// Addresses without limits of their own.
    pub exempt: Vec<IpNet>,
    /// Memory limit of the process, in bytes; `None`: that of the machine or container.
    pub memory_max: Option<u64>,
    /// Maximum size of a request head, in bytes.
    pub head_bytes_max: usize,
    /// Limits and timeouts of the shards.
    pub limits: ShardLimits,
    /// Maximum number of instruments over all sources.
    pub instruments_max: usize,
    /// Handshake timeout.
    pub handshake_timeout: Duration,
    /// Maximum size of a publish request, in bytes.
    pub publish_bytes_max: usize,
    /// Maximum number of records per publish request.
    pub publish_events_max: usize,
    /// Maximum number of concurrent HTTP responses.
    pub http_requests: usize,
    /// Maximum number of HTTP responses per second.
    pub http_requests_per_s: u32,
    /// Sources that must have started for the server to be ready.
    pub ready_require: Vec<String>,
    /// Graceful shutdown deadline.
    pub drain_deadline: Duration,
    /// Time window over which client reconnects are spread.
    pub drain_spread: Duration,
    /// Values of all keys, for comparison with another config.
    values: Values,
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, file) = read_text(path)?;
        Self::parse(&text, &file)
    }

    /// Serves with TLS at an address, with a certificate for development. Browsers do not remember
    /// it: the host may have other ports without TLS.
    pub fn use_self_signed(&mut self, listen: SocketAddr, own: SelfSigned) {
        let rules = self.tls.take().map(|tls| tls.files);
        self.tls = Some(TlsConfig {
            listen,
            files: TlsFiles {
                certificate: Certificate::SelfSigned(own),
                client_ca: rules.as_ref().and_then(|rules| rules.client_ca.clone()),
                client_certificates: rules
                    .as_ref()
                    .map_or(ClientCertificates::Off, |rules| rules.client_certificates),
                min_version: rules.map_or(MinVersion::Tls12, |rules| rules.min_version),
            },
            hsts: Duration::ZERO,
        });
    }

    /// Number of files that may be open at once: all connections, other sockets, and the server's
    /// own files.
    pub fn files_needed(&self) -> usize {
        self.connections_max + SPARE_SOCKETS + OWN_FILES
    }

    /// Parses and validates a config; `file` is its name in messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let (config, values) = parse_document(text, file, server::read)?;
        Ok(Self { values, ..config })
    }
}

/// Reads a file as text; returns it with its name in messages.
fn read_text(path: &Path) -> Result<(String, String), ConfigError> {
    let file = path.display().to_string();
    let refused = |message: String| ConfigError {
        file: file.clone(),
        problems: vec![Problem::new(Mark::default(), "", message)],
    };
    let bytes = read_regular(path, FILE_BYTES_MAX)
        .map_err(|error| refused(format!("cannot read the file: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| refused(format!("cannot read the file: invalid UTF-8: {error}")))?;
    Ok((text, file))
}

/// Reads and validates a file other than the config.
fn read_document<T>(path: &Path, read: impl FnOnce(&Section<'_>) -> T) -> Result<T, ConfigError> {
    let (text, file) = read_text(path)?;
    parse_document(&text, &file, read).map(|(value, _)| value)
}

/// Parses and validates a document; returns its value and the values of all keys.
fn parse_document<T>(
    text: &str,
    file: &str,
    read: impl FnOnce(&Section<'_>) -> T,
) -> Result<(T, Values), ConfigError> {
    let mut found = Vec::new();
    let node = if text.len() > FILE_BYTES_MAX {
        let message = format!(
            "file too large: expected at most {} KiB",
            FILE_BYTES_MAX >> 10
        );
        found.push(Problem::new(Mark::default(), "", message));
        None
    } else {
        yaml::parse(text, &mut found)
    };
    let findings = Findings::new(found);
    let value = node.map(|node| {
        let root = Section::root(&node, &findings);
        let value = read(&root);
        root.finish();
        value
    });
    let (mut problems, values) = findings.into_parts();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.len() > PROBLEMS_MAX {
        let more = problems.len() - PROBLEMS_MAX;
        problems.truncate(PROBLEMS_MAX);
        let message = format!("{more} more problems not shown");
        problems.push(Problem::new(Mark::default(), "", message));
    }
    match value {
        Some(value) if problems.is_empty() => Ok((value, values)),
        _ => Err(ConfigError {
            file: file.to_owned(),
            problems,
        }),
    }
}

/// Shared copy of a name from the config.
pub(crate) fn shared(text: &str) -> Arc<str> {
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        Config::parse(text, "f")
            .err()
            .map(|error| error.problems.iter().map(ToString::to_string).collect())
            .unwrap_or_default()
    }

    const SOURCES: &str =
        "sources: [{name: s, kind: sim, instruments: [{symbol: A, start: 10}]}]\n";

    #[test]
    fn the_default_file_is_valid() {
        let config = Config::parse(include_str!("../../feeds.yaml"), "feeds.yaml")
            .expect("the shipped file is valid");
        let SourceDetails::Sim(sim) = &config.sources[0].details else {
            unreachable!("the default market is simulated")
        };
        assert!(sim.instruments.len() >= 24);
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_positions() {
        let text = "listen: here\nbus:\n  queue: 64\n  queeu: 1MiB\nsession: {heartbeat: 5}\nlimits: {topics: 0, topics: 5}\nsources:\n  - name: s\n    kind: sim\n    seed: -1\n    instruments:\n      - {symbol: \"A B\", start: x, model: {gmb: {}}}\n";
        let found = problems(text);
        let expect = [
            "1:9: listen: invalid value \"here\": expected host:port",
            "3:10: bus.queue: invalid value \"64\": expected a size from 1MiB to 4GiB",
            "4:10: bus.queeu: unknown key; did you mean queue?",
            "5:22: session.heartbeat: invalid value \"5\": expected a duration",
            "6:18: limits.topics: invalid value \"0\"",
            "6:21: limits.topics: duplicate key; first defined on line 6",
            "10:11: sources[0].seed: invalid value \"-1\": expected an integer of at least 0",
            "12:18: sources[0].instruments[0].symbol: invalid symbol \"A B\"",
            "sources[0].instruments[0].start: invalid value \"x\": expected a decimal",
            "sources[0].instruments[0].model: unknown value \"gmb\": expected one of gbm, jump, mean_reverting",
        ];
        for wanted in expect {
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted} is not among {found:#?}"
            );
        }
        assert_eq!(found.len(), expect.len(), "{found:#?}");
    }

    #[test]
    fn a_config_without_sources_or_with_invalid_yaml_is_rejected() {
        assert!(problems("listen: 127.0.0.1:0")[0].contains("sources: missing"));
        assert!(problems("a: [1")[0].contains("invalid YAML"));
        assert!(problems(&format!("{SOURCES}a: *b"))[0].contains("invalid YAML"));
    }

    #[test]
    fn problems_escape_control_characters_of_the_file() {
        let found = problems(&format!(
            "{SOURCES}\"\\e[2J\": 1\nlisten: \"\\e]0;x\\a\"\nlimits: {{\"\u{202e}\": 1}}\n"
        ));
        assert_eq!(found.len(), 3, "{found:?}");
        for problem in found {
            assert_eq!(printable(&problem), problem);
        }
    }

    #[test]
    fn required_sources_exist() {
        let found = problems(&format!("{SOURCES}ready: {{require: [s, t]}}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("unknown source \"t\": expected one of s"));
    }

    #[test]
    fn yaml_bombs_are_rejected_before_a_tree_is_built() {
        let levels = 20_000;
        let block: String = (0..levels).map(|_| "- ").collect();
        let indented: String = (0..2_000)
            .map(|at| format!("{}a:\n", " ".repeat(at % 300)))
            .collect();
        let flow = "[".repeat(levels);
        let mixed = "{a: [".repeat(levels);
        for bomb in [&block, &format!("a:\n  {block}"), &flow, &mixed, &indented] {
            assert!(!problems(bomb).is_empty());
        }
        assert!(problems(&block)[0].contains("at most 64 levels"));
        let long = format!("{SOURCES}#{}", "x".repeat(1 << 20));
        assert!(problems(&long)[0].contains("at most 1024 KiB"));
    }

    #[test]
    fn long_lists_of_problems_and_long_messages_are_truncated() {
        let wrong: String = (0..50_000).map(|at| format!("key{at}: 1\n")).collect();
        let found = problems(&wrong);
        assert_eq!(found.len(), PROBLEMS_MAX + 1);
        assert!(found[PROBLEMS_MAX].contains("more problems"), "{found:?}");
        let long = problems(&format!("{SOURCES}listen: \"{}\"\n", "y".repeat(100_000)));
        assert!(long[0].chars().count() < 1000, "{}", long[0].len());
    }

    #[test]
    fn defaults_of_the_table_are_valid() {
        let config = Config::parse(SOURCES, "f").expect("required keys are enough");
        assert_eq!(
            (config.limits.outbox.outbox_bytes, config.limits.heartbeat),
            (1 << 20, Duration::from_secs(5))
        );
    }
}
