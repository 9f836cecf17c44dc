//! `tickcast cluster checkpoint`: requests to the leading publisher.

use anyhow::Result;

use crate::cli::{Exit, print};
use crate::cluster::{ClusterSettings, request_checkpoint};

pub(super) async fn checkpoint(settings: &ClusterSettings) -> Result<Exit> {
    let done = request_checkpoint(settings).await?;
    let (name, node) = (&settings.name, &done.node);
    let (record, bytes) = (done.record, done.bytes);
    print(
        format!(
            "cluster     {name}\nleader      {node}\ncheckpoint  record {record}, {bytes} bytes\n"
        )
        .as_bytes(),
    )
}
