//! `tickcast cluster status`.

use std::time::Duration;

use anyhow::Result;

use crate::cli::{Exit, print, print_error};
use crate::cluster::{ClusterSettings, Leader, Survey, survey};

/// Intervals without a checkpoint that are reported as a problem.
const INTERVALS_MISSED: u32 = 3;

pub(super) async fn run(settings: &ClusterSettings) -> Result<Exit> {
    let surveyed = Box::pin(survey(settings)).await?;
    print(shown(&surveyed, settings).as_bytes())?;
    let problems = problems(&surveyed, settings);
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

fn shown(survey: &Survey, settings: &ClusterSettings) -> String {
    let Survey {
        at: now,
        log,
        leader,
        checkpoints,
        nodes,
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
    lines.push(format!("servers      {}", nodes.len()));
    let width = nodes.iter().map(|node| node.node.len()).max();
    lines.extend(nodes.iter().map(|one| {
        let indent = " ".repeat("servers      ".len());
        let part = match (one.leads, one.role.as_str()) {
            (true, _) => "leader".to_owned(),
            (false, "publisher") => "standby".to_owned(),
            (false, role) => format!("{role}, {} clients", one.clients),
        };
        let (name, width) = (&one.node, width.unwrap_or_default());
        format!("{indent}{name:<width$}  record {}, {part}", one.record)
    }));
    lines.push(String::new());
    lines.join("\n")
}

/// Problems of a cluster, each with the value that is expected.
fn problems(survey: &Survey, settings: &ClusterSettings) -> Vec<String> {
    let mut problems = Vec::new();
    let now = survey.at;
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
    for node in &survey.nodes {
        // The reports are newer than the end of the log.
        if node.record < survey.log.last && !node.leads {
            let (name, behind) = (&node.node, survey.log.last - node.record);
            let silence = seconds(node.silence());
            problems.push(format!(
                "{name} is {behind} records behind the log; it received the last one {silence} ago"
            ));
        }
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
