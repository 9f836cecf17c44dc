//! Profile of the serving threads by `perf`: folded stacks, the functions with the greatest share,
//! and a flame graph if `inferno-flamegraph` is installed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Samples per second; no multiple of the timer's frequency.
const FREQUENCY: &str = "997";
/// Stacks are unwound by the tables of the binary, which has no frame pointers, from a copy of so
/// many bytes of the stack.
const UNWIND: &str = "dwarf,8192";
/// Rows of the summary.
const PARTS: usize = 10;

/// A running profile.
pub(crate) struct Profiler {
    perf: Child,
    data: PathBuf,
}

impl Profiler {
    /// Attaches to threads; `base` is the path of the results without an extension.
    pub(crate) fn attach(threads: &[u32], base: &Path) -> Result<Self> {
        let list: Vec<String> = threads.iter().map(ToString::to_string).collect();
        let data = base.with_extension("perf");
        let perf = Command::new("perf")
            .args(["record", "-F", FREQUENCY, "--call-graph", UNWIND])
            .args(["-t", &list.join(",")])
            .arg("-o")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("perf is not installed")?;
        Ok(Self { perf, data })
    }

    pub(crate) fn detach(mut self) -> Result<Self> {
        let perf = self.perf.id().to_string();
        Command::new("kill").args(["-INT", &perf]).status()?;
        self.perf.wait()?;
        Ok(self)
    }

    /// Writes `.folded` and `.svg`, and returns the summary in Markdown.
    pub(crate) fn write(&self, title: &str) -> Result<String> {
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"])
            .arg(&self.data)
            .stderr(Stdio::null())
            .output()?;
        let stacks = fold(&String::from_utf8_lossy(&script.stdout));
        ensure!(
            !stacks.is_empty(),
            "perf took no samples: see kernel.perf_event_paranoid"
        );
        let mut text = String::new();
        for (stack, samples) in &stacks {
            writeln!(text, "{stack} {samples}")?;
        }
        let folded = self.data.with_extension("folded");
        std::fs::write(&folded, text)?;
        std::fs::remove_file(&self.data)?;
        draw(&folded, title)?;
        Ok(summary(&stacks, title))
    }
}

/// Number of samples of each stack, outermost function first.
fn fold(script: &str) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.trim_matches('\n').lines();
        let Some(thread) = lines.next().map(str::trim).filter(|name| !name.is_empty()) else {
            continue;
        };
        let mut functions: Vec<String> = lines
            .filter_map(|line| line.trim().split_once(' '))
            .map(|(_address, symbol)| plain(symbol))
            // Beyond the start of a thread.
            .filter(|name| name != "[unknown]")
            .collect();
        functions.push(thread.to_owned());
        functions.reverse();
        *stacks.entry(functions.join(";")).or_default() += 1;
    }
    stacks
}

/// A symbol without the hash of the compiler, and without the separator of stacks.
fn plain(symbol: &str) -> String {
    let name = match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 => name,
        _ => symbol,
    };
    name.replace(';', ",")
}

/// Samples by system call, and by function outside the kernel; those with the greatest shares.
fn summary(stacks: &BTreeMap<String, u64>, title: &str) -> String {
    let all: u64 = stacks.values().sum();
    let mut parts: BTreeMap<String, u64> = BTreeMap::new();
    for (stack, samples) in stacks {
        *parts.entry(part_of(stack)).or_default() += samples;
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
    let mut text = format!("**{title}**: {all} samples\n\n| part | share |\n|---|---|\n");
    for (name, samples) in parts.iter().take(PARTS) {
        let share = *samples as f64 * 100.0 / all.max(1) as f64;
        // Writing to a string does not fail.
        let _written = writeln!(text, "| {name} | {share:.1} % |");
    }
    text
}

/// System call of a stack with all that the kernel does for it, or its innermost function.
fn part_of(stack: &str) -> String {
    let is_in_kernel = |name: &&str| name.starts_with("asm_") || name.starts_with("entry_");
    let call = stack
        .split(';')
        .find_map(|name| name.strip_prefix("__x64_sys_"));
    match call {
        Some(call) => format!("kernel: `{call}`"),
        None if stack.split(';').any(|name| is_in_kernel(&name)) => {
            "kernel: interrupts, page faults, entry and exit".to_owned()
        }
        None => format!("`{}`", stack.rsplit(';').next().unwrap_or(stack)),
    }
}

fn draw(folded: &Path, title: &str) -> Result<()> {
    let drawn = Command::new("inferno-flamegraph")
        .args(["--title", title, "--minwidth", "0.4"])
        .arg(folded)
        .stdout(File::create(folded.with_extension("svg"))?)
        .stderr(Stdio::null())
        .status();
    if !drawn.is_ok_and(|status| status.success()) {
        std::fs::remove_file(folded.with_extension("svg"))?;
        println!("    no flame graph: cargo install inferno");
    }
    Ok(())
}
