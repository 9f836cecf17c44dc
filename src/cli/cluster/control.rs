//! `tickcast cluster checkpoint`, `new-epoch` and `handover`: requests to the leading publisher.

use anyhow::Result;

use crate::cli::{Exit, print};
use crate::cluster::{ClusterSettings, request_checkpoint, request_handover, request_new_epoch};

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

pub(super) async fn new_epoch(settings: &ClusterSettings) -> Result<Exit> {
    let done = request_new_epoch(settings).await?;
    let (name, node, record) = (&settings.name, &done.node, done.record);
    print(
        format!(
            "cluster  {name}\nleader   {node}\nepochs   all topics begin new ones behind record {record}\n"
        )
        .as_bytes(),
    )
}

pub(super) async fn handover(settings: &ClusterSettings) -> Result<Exit> {
    let done = request_handover(settings).await?;
    let (name, from, to) = (&settings.name, &done.from, &done.to);
    let (record, pause) = (done.record, done.pause.as_secs_f64() * 1e3);
    print(
        format!(
            "cluster  {name}\nleader   {to} since record {record}, before that {from}\npause    {pause:.1} ms between their records\n"
        )
        .as_bytes(),
    )
}
