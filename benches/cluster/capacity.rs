//! Deliveries of one gateway and of two, each with a share of one core of its own: the publisher, NATS
//! and the tester have the other core.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tickcast::load::{Plan, run as load};

use crate::latency::{GATEWAY, PUBLISHER, market, plan};
use crate::process::Process;
use crate::report::Report;
use crate::{ONE, Span, cores};

/// Processor time of a gateway, as a share of a core.
const SHARE: f64 = 0.35;
/// Period in which it has that share, in microseconds.
const PERIOD_US: f64 = 10_000.0;
const EVENTS_PER_S: f64 = 20_000.0;
/// Connections of a gateway: more than it can serve with its share.
const CONNECTIONS: usize = 400;

/// Control group of a process with a share of a core, removed with this value.
struct Group(PathBuf);

impl Group {
    /// Limits a process; `None` if this machine does not let us.
    fn limit(name: &str, process: &Process) -> Option<Self> {
        let name = format!("tickcast-bench-{}-{name}", std::process::id());
        let quota = PERIOD_US * SHARE;
        let (folder, settings) = if Path::new("/sys/fs/cgroup/cpu").is_dir() {
            let settings = [
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ];
            (
                Path::new("/sys/fs/cgroup/cpu").join(name),
                settings.to_vec(),
            )
        } else {
            let settings = [("cpu.max", format!("{quota} {PERIOD_US}"))];
            (Path::new("/sys/fs/cgroup").join(name), settings.to_vec())
        };
        std::fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        for (file, value) in settings {
            std::fs::write(group.0.join(file), value).ok()?;
        }
        std::fs::write(group.0.join("cgroup.procs"), process.id().to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It cannot be removed while its process ends; it is empty then.
        let _busy = std::fs::remove_dir(&self.0);
    }
}

/// Deliveries per second over all gateways.
fn deliveries(gateways: &[Process], span: Span) -> Result<f64> {
    let run = |gateway: &Process| {
        let plan = Plan {
            workers: 1,
            ..plan(gateway.address, CONNECTIONS, span.measured)
        };
        std::thread::spawn(move || cores::on(cores::SERVERS, || Ok(load(&plan, &mut |_| false)?)))
    };
    let running: Vec<_> = gateways.iter().map(run).collect();
    let mut sum = 0.0;
    for run in running {
        let outcome = run
            .join()
            .map_err(|_panic| anyhow::anyhow!("a tester panicked"))??;
        sum += outcome.delivered_per_s();
    }
    Ok(sum)
}

pub(crate) fn run(span: Span, report: &mut Report) -> Result<()> {
    let cluster = cores::on(cores::SERVERS, || ONE.start())?;
    let _publisher = cores::on(cores::SERVERS, || {
        let publisher = cluster.member("a", PUBLISHER, &market(EVENTS_PER_S))?;
        publisher.logs("leading the cluster")?;
        Ok(publisher)
    })?;
    let mut gateways = Vec::new();
    let mut groups = Vec::new();
    for name in ["one", "two"] {
        let gateway = cores::on(cores::TESTER, || cluster.member(name, GATEWAY, ""))?;
        let Some(group) = Group::limit(name, &gateway) else {
            println!("  capacity: not measured, this machine allows no control group");
            return Ok(());
        };
        groups.push(group);
        gateways.push(gateway);
    }
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..span.rounds {
        one.push(deliveries(&gateways[..1], span)?);
        two.push(deliveries(&gateways, span)?);
    }
    let ratios: Vec<f64> = two.iter().zip(&one).map(|(two, one)| two / one).collect();
    ensure!(one.iter().all(|rate| *rate > 0.0), "nothing was delivered");
    report.add("deliveries of one gateway with 0.35 core", one, "/s", "");
    report.add(
        "deliveries of two gateways with 0.35 core each",
        two,
        "/s",
        "",
    );
    report.add("two gateways to one", ratios, "", "≥ 1.9");
    drop(gateways);
    Ok(())
}
