use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Exit, print, print_error};
use crate::clock::Clock;
use crate::cluster::{ClusterSettings, Leader, Survey, survey};
use crate::config::Config;
use crate::market::UnixNanos;

/// Intervals without a checkpoint that are reported as a problem.
const INTERVALS_MISSED: u32 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the log, the leader and the checkpoints; exit code 1 if one of them is missing or old
    Status {
        /// Configuration file of any server of the cluster
        #[arg(long, value_name = "FILE", default_value = "feeds.yaml")]
        config: PathBuf,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Command::Status { config: file } = &arguments.command;
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
    let surveyed = runtime.block_on(survey(settings))?;
    let now = Clock::start().now();
    print(shown(&surveyed, settings, now).as_bytes())?;
    let problems = problems(&surveyed, settings, now);
    for problem in &problems {
        print_error(problem);
    }
    Ok(if problems.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// Duration in seconds, for people.
fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

fn shown(survey: &Survey, settings: &ClusterSettings, now: UnixNanos) -> String {
    let Survey {
        log,
        leader,
        checkpoints,
    } = survey;
    let mut lines = vec![format!("cluster      {}", settings.name)];
    match leader {
        None => lines.push("log          no records".to_owned()),
        Some(Leader { term, node }) => {
            let (first, last) = (log.first, log.last);
            let age = seconds(now.since(log.last_time));
            let node = node.as_deref().unwrap_or("(name not in the log)");
            lines.push(format!(
                "log          records {first} to {last}, the last one {age} ago"
            ));
            lines.push(format!("leader       {node}, term {term}"));
        }
    }
    lines.push(format!("checkpoints  {}", checkpoints.len()));
    lines.extend(checkpoints.iter().map(|one| {
        let age = seconds(now.since(one.time));
        let indent = " ".repeat("checkpoints  ".len());
        format!(
            "{indent}record {}, {age} ago, {} bytes",
            one.number, one.bytes
        )
    }));
    lines.push(String::new());
    lines.join("\n")
}

/// Problems of a cluster, each with the value that is expected.
fn problems(survey: &Survey, settings: &ClusterSettings, now: UnixNanos) -> Vec<String> {
    let mut problems = Vec::new();
    let silence = now.since(survey.log.last_time);
    if survey.leader.is_none() {
        problems.push("no publisher has written to the log".to_owned());
    } else if silence > settings.lease {
        let silence = seconds(silence);
        problems.push(format!(
            "no publisher leads: the log has been silent for {silence}, longer than cluster.lease"
        ));
    }
    let due = settings.checkpoints.interval * INTERVALS_MISSED;
    let newest = survey.checkpoints.first();
    let begin = newest.map_or(survey.log.first_time, |newest| newest.time);
    if survey.leader.is_some() && now.since(begin) > due {
        problems.push(format!(
            "no checkpoint for {}; expected one every cluster.checkpoints.interval",
            seconds(now.since(begin))
        ));
    }
    let reaches = |number: u64| number >= survey.log.first - 1;
    if survey.log.first > 1 && !survey.checkpoints.iter().any(|one| reaches(one.number)) {
        problems.push(format!(
            "the log begins with record {}, and no checkpoint leads to it: no server can start",
            survey.log.first
        ));
    }
    problems
}
