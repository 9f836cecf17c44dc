//! Latency of healthy clients under attack, compared with calm: interleaved pairs, the server on
//! one core, the clients and attackers on another. `cargo test --release --test attacks --
//! --ignored --nocapture pairs` prints the table.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::clock::Clock;

use crate::arena::{BASE_BYTES, Healthy, Latency, TURN_MAX, Target, market, p99};
use crate::attackers::{ATTACKS, Victim, attack_for};

/// Pairs of a calm and an attacked span.
const PAIRS: usize = 5;
const SPAN: Duration = Duration::from_millis(2_500);
/// Time for an attack to begin, and for its connections to end.
const RAMP: Duration = Duration::from_millis(400);
/// Maximum latency under attack, in milliseconds; on a shared machine a ratio to the calm spans says
/// little, so it is printed only.
const P99_MAX_MS: f64 = 100.0;
/// Variable with the attack that this process makes: name, feed, feed with TLS.
const ATTACK: &str = "TICKCAST_TEST_ATTACK";

const NAME: &str = "pairs::healthy_clients_keep_their_latency_under_attack";

/// Limits as by default, but attackers on loopback have them too.
const LIMITS: &str =
    "shards: 1\nlimits: {exempt: [127.0.0.1, 127.0.0.201, 127.0.0.202], handshake: 2s}";

/// Measurements of an attack.
struct Row {
    /// Median over the pairs, in milliseconds.
    calm: f64,
    attacked: f64,
    /// Median of the ratios.
    ratio: f64,
    /// Processor time of the server in milliseconds per second.
    calm_cpu: f64,
    attacked_cpu: f64,
    rounds_per_s: f64,
    longest_turn: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Pins a process with all of its threads and further children to a core.
fn pin(process: u32, core: &str) -> Result<()> {
    let done = Command::new("taskset")
        .args(["-a", "-c", "-p", core, &process.to_string()])
        .output()
        .context("taskset")?;
    ensure!(done.status.success(), "{done:?}");
    Ok(())
}

/// Starts an attack from a process of its own with the lowest priority, so that it does not delay
/// the clients on their core.
fn start_attack(name: &str, victim: Victim) -> Result<Child> {
    let child = Command::new("nice")
        .args(["-n", "19"])
        .arg(std::env::current_exe()?)
        .args(["--ignored", "--exact", "--nocapture", NAME])
        .env(ATTACK, format!("{name}|{}|{}", victim.feed, victim.secure))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// Attacks as the variable says.
async fn attack_as(text: &str) -> Result<()> {
    let mut fields = text.split('|');
    let mut next = || fields.next().context("a field");
    let name = next()?;
    let victim = Victim {
        feed: next()?.parse()?,
        secure: next()?.parse()?,
    };
    let rounds = attack_for(name, victim, RAMP + SPAN).await?;
    eprintln!("\nrounds {rounds}");
    // Without waiting for connections that are held.
    std::process::exit(0)
}

/// Lets a span pass, whose latencies are marked with a phase; returns the processor time of the
/// server in milliseconds per second.
async fn pass(target: &Target, healthy: &Healthy, phase: usize) -> Result<f64> {
    let (clock, before) = (Clock::start(), target.cpu()?);
    let begun = clock.now();
    healthy.begin(phase);
    tokio::time::sleep(SPAN).await;
    healthy.begin(0);
    let (time, used) = (
        clock.now().since(begun),
        target.cpu()?.saturating_sub(before),
    );
    Ok(used.as_secs_f64() / time.as_secs_f64() * 1e3)
}

/// The 99th percentile of a phase, in milliseconds.
fn p99_of(latencies: &[Latency], phase: usize) -> Result<f64> {
    let of_phase = latencies.iter().filter(|(of, _)| *of == phase);
    Ok(p99(of_phase.map(|(_, latency)| *latency))?.as_secs_f64() * 1e3)
}

async fn measure(name: &str) -> Result<Row> {
    let push = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ";
    let config = market(LIMITS).replace("sources: [", push);
    let target = Target::start_secure(&config, "taskset -c -p 0 $$ >/dev/null")?;
    let victim = Victim {
        feed: target.feed,
        secure: target.secure.context("a feed with TLS")?,
    };
    let healthy = Healthy::start(&target).await?;
    let (mut calm_cpu, mut attacked_cpu, mut rounds) = (Vec::new(), Vec::new(), 0.0);
    for pair in 0..PAIRS {
        calm_cpu.push(pass(&target, &healthy, 2 * pair + 1).await?);
        let attacking = start_attack(name, victim)?;
        tokio::time::sleep(RAMP).await;
        attacked_cpu.push(pass(&target, &healthy, 2 * pair + 2).await?);
        let output = tokio::task::spawn_blocking(|| attacking.wait_with_output()).await??;
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = output.lines().find_map(|line| line.strip_prefix("rounds "));
        rounds += found.context(output.clone())?.parse::<f64>()?;
        tokio::time::sleep(RAMP).await;
    }
    let latencies = healthy.end().await.with_context(|| name.to_owned())?;
    let mut p99s = [Vec::new(), Vec::new()];
    for phase in 1..=2 * PAIRS {
        p99s[1 - phase % 2].push(p99_of(&latencies, phase)?);
    }
    let [calm, attacked] = p99s;
    let ratios = calm
        .iter()
        .zip(&attacked)
        .map(|(calm, attacked)| attacked / calm);
    let bound = target.metric("tickcast_memory_bound_bytes", "").await? + BASE_BYTES;
    ensure!(target.peak_bytes()? < bound, "{name}: memory");
    let log = target.log()?;
    ensure!(!log.contains("panicked"), "{name}: {log}");
    Ok(Row {
        ratio: median(ratios.collect()),
        calm: median(calm),
        attacked: median(attacked),
        calm_cpu: median(calm_cpu),
        attacked_cpu: median(attacked_cpu),
        rounds_per_s: rounds / (PAIRS as f64 * (RAMP + SPAN).as_secs_f64()),
        longest_turn: target
            .metric("tickcast_shard_turn_duration_max_seconds", "")
            .await?,
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of five minutes; ./check --full runs it"]
async fn healthy_clients_keep_their_latency_under_attack() -> Result<()> {
    if let Ok(text) = std::env::var(ATTACK) {
        return attack_as(&text).await;
    }
    if std::thread::available_parallelism()?.get() < 2 {
        eprintln!("skipped: two cores are needed, one of them for the server");
        return Ok(());
    }
    pin(std::process::id(), "1")?;
    eprintln!(
        "| attack | rounds/s | p99 calm, ms | p99 attacked, ms | ratio | processor calm, ms/s | processor attacked, ms/s | longest turn, ms |"
    );
    eprintln!("|---|---|---|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (name, _) in ATTACKS {
        let row = measure(name).await?;
        let turn = row.longest_turn * 1e3;
        eprintln!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {turn:.1} |",
            row.rounds_per_s, row.calm, row.attacked, row.ratio, row.calm_cpu, row.attacked_cpu,
        );
        // A shared machine interrupts turns, too.
        if row.attacked > P99_MAX_MS || row.longest_turn > 2.0 * TURN_MAX {
            missed.push(name);
        }
    }
    ensure!(missed.is_empty(), "missed: {missed:?}");
    Ok(())
}
