//! `tickcast cluster verify`.

use anyhow::Result;

use crate::cli::{Exit, print, print_error};
use crate::cluster::{ClusterSettings, Verified, verify};

pub(super) async fn run(settings: &ClusterSettings, from: Option<u64>) -> Result<Exit> {
    let verified = verify(settings, from).await?;
    print(shown(&verified, settings).as_bytes())?;
    Ok(match verified.wrong {
        None => Exit::Ok,
        Some((number, flaw)) => {
            print_error(&format!("record {number} is wrong: {flaw}"));
            Exit::Failed
        }
    })
}

fn shown(verified: &Verified, settings: &ClusterSettings) -> String {
    let Verified {
        first,
        records,
        bytes,
        terms,
        bodies_from,
        events,
        ..
    } = verified;
    let name = &settings.name;
    let chain = match first + records {
        next if next == *first => "no record".to_owned(),
        next => format!(
            "records {first} to {}, {bytes} bytes, terms: {terms}",
            next - 1
        ),
    };
    let bodies = match bodies_from {
        Some(from) => format!("from record {from}, {events} events"),
        None => "none: no checkpoint leads to these records".to_owned(),
    };
    format!("cluster   {name}\nverified  {chain}\nbodies    {bodies}\n")
}
