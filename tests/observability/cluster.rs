//! Dashboard and alerts of a cluster, with a real NATS server.

use anyhow::{Context, Result};

use crate::dashboards::{CLUSTER, panels};
use crate::process::Cluster;
use crate::prometheus::{Prometheus, exclusive, is_installed, until};

const MARKET: &str =
    "[{name: sim, kind: sim, seed: 5, instruments: [{symbol: A, start: 100, rate: 2000/s}]}]";

#[test]
fn panels_of_a_cluster_have_data_and_its_alerts_fire_when_nats_fails() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let standby = cluster.publisher("b", MARKET)?;
    let servers = [publisher.admin, gateway.admin, standby.admin];
    let prometheus = Prometheus::start_with(&servers)?;
    let mut empty: Vec<String> = Vec::new();
    for panel in panels()? {
        if panel.dashboard == CLUSTER {
            empty.extend(panel.queries().map(str::to_owned));
        }
    }
    until("every query has data", || {
        let mut left = Vec::new();
        for query in std::mem::take(&mut empty) {
            let asked = query
                .replace("$__rate_interval", "4s")
                .replace("$job", "tickcast")
                .replace("$instance", ".+");
            let found = prometheus.query(&asked).with_context(|| query.clone())?;
            if found.iter().all(|(_, value)| value.is_nan()) {
                left.push(query);
            }
        }
        empty = left;
        Ok(empty.is_empty().then_some(()))
    })
    .with_context(|| format!("{empty:#?}"))?;
    assert!(
        prometheus.firing()?.is_empty(),
        "{:?}",
        prometheus.firing()?
    );
    cluster.crash_nats()?;
    for name in [
        "TickcastClusterLogSilent",
        "TickcastClusterBufferFilling",
        "TickcastNatsDisconnected",
    ] {
        prometheus.alert(name)?;
    }
    // The publisher that stands by cannot take over while nobody can write.
    publisher.crash()?;
    prometheus.alert("TickcastClusterNoLeader")?;
    Ok(())
}
