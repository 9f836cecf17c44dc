//! System calls of a server by thread, counted by `strace` if it is installed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde::Serialize;
use tempfile::TempDir;

use crate::process::is_serving;

/// System calls per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Calls {
    pub(crate) serving: f64,
    /// Threads of the generator, and all other threads.
    pub(crate) other: f64,
}

/// A running count.
pub(crate) struct Tracer {
    strace: Child,
    folder: TempDir,
    /// Names of the threads by their ids.
    threads: BTreeMap<u32, String>,
}

/// True if `strace` is installed.
pub(crate) fn is_available() -> bool {
    Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Tracer {
    /// Attaches to all threads of a process.
    pub(crate) fn attach(process: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?;
            let name = std::fs::read_to_string(task.path().join("comm"))?;
            let id = task.file_name().to_string_lossy().parse()?;
            threads.insert(id, name.trim().to_owned());
        }
        let folder = tempfile::tempdir()?;
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-ttt", "-s", "0", "-p", &process.to_string()])
            .arg("-o")
            .arg(output(&folder))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            strace,
            folder,
            threads,
        })
    }

    /// Ends the count.
    pub(crate) fn detach(mut self) -> Result<Self> {
        let strace = self.strace.id().to_string();
        Command::new("kill").args(["-INT", &strace]).status()?;
        self.strace.wait()?;
        Ok(self)
    }

    /// Calls per second between the first and the last one.
    pub(crate) fn count(&self) -> Result<Calls> {
        let mut calls = Calls::default();
        let mut times: Option<(f64, f64)> = None;
        for line in BufReader::new(File::open(output(&self.folder))?).lines() {
            let line = line?;
            // "4711 1764177114.123456 epoll_wait(3, …": a call that another thread interrupts has
            // a second line, which says "resumed".
            let mut words = line.split_whitespace();
            let (Some(thread), Some(time)) = (words.next(), words.next()) else {
                continue;
            };
            if line.contains(" resumed>") {
                continue;
            }
            let Ok(time) = time.parse::<f64>() else {
                continue;
            };
            times = Some((times.map_or(time, |(first, _)| first), time));
            let name = thread.parse().ok().and_then(|id| self.threads.get(&id));
            if name.is_some_and(|name| is_serving(name)) {
                calls.serving += 1.0;
            } else {
                calls.other += 1.0;
            }
        }
        let (first, last) = times.context("strace may not trace other processes here")?;
        let span = last - first;
        Ok(Calls {
            serving: calls.serving / span,
            other: calls.other / span,
        })
    }
}

fn output(folder: &TempDir) -> PathBuf {
    folder.path().join("calls")
}
