//! A publisher that was overtaken adds nothing to the log, whatever it has sent ahead.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tickcast::cluster::{AppendFault, Author, ClusterStatus, Kind, Last, Position, Store};
use tickcast::config::Config;
use tickcast::metrics::Metrics;

use super::MARKET;
use super::process::Cluster;

async fn append(
    store: &Store,
    (record, behind): (bytes::Bytes, Position),
    last: Last,
) -> Result<(), AppendFault> {
    store
        .append(record, behind.sum, last)
        .await?
        .accepted()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_sent_ahead_is_refused_though_its_number_fits() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let config = Config::parse(&cluster.publisher_config(MARKET), "a.yaml")?;
    let settings = config.cluster.context("a publisher")?;
    let status = ClusterStatus::new(Metrics::new().add_cluster("publisher"));
    let store = Store::open(&settings, Arc::new(status), true).await?;
    let (old, new) = (Author { term: 1, node: 1 }, Author { term: 2, node: 2 });
    let verified = |position: Position| Last {
        number: position.number,
        unverified: None,
    };
    let sent_ahead = |position: Position| Last {
        number: position.number,
        unverified: Some(position.sum),
    };
    let start = Position::default();
    let first = old.write(Kind::Lead, start, b"old");
    ensure!(append(&store, first.clone(), verified(start)).await.is_ok());
    // The old leader sends two records ahead of their acknowledgements, but is overtaken.
    let second = old.write(Kind::Tick, first.1, b"");
    let third = old.write(Kind::Tick, second.1, b"");
    let lead = new.write(Kind::Lead, first.1, b"new");
    ensure!(
        append(&store, lead.clone(), verified(first.1))
            .await
            .is_ok()
    );
    let refused = Err(AppendFault::Refused);
    ensure!(append(&store, second.clone(), verified(first.1)).await == refused);
    ensure!(append(&store, third, sent_ahead(second.1)).await == refused);
    // The new leader goes on, also with records sent ahead.
    let fourth = new.write(Kind::Tick, lead.1, b"");
    let fifth = new.write(Kind::Tick, fourth.1, b"");
    ensure!(
        append(&store, fourth.clone(), sent_ahead(lead.1))
            .await
            .is_ok()
    );
    ensure!(append(&store, fifth, sent_ahead(fourth.1)).await.is_ok());
    Ok(())
}
