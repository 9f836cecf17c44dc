//! The few words of the protocol that a server must say so that the load tester counts its events.

use compact_str::CompactString;
use tickcast::codec::{decode_request, encode_control};
use tickcast::log::{Catalog, TopicId};
use tickcast::protocol::{
    Control, Encoding, Entry, Id, Limits, Mode, OnSlow, Op, Seq, Settings, Subscribed, Welcome,
};
use tickcast::topic::TopicName;

pub(crate) fn welcome() -> Vec<u8> {
    let limits = Limits {
        topics: 1000,
        requests_per_s: 1000,
        message_bytes: 65_536,
        snapshot_events: 1,
    };
    let welcome = Welcome {
        server: "baseline".to_owned(),
        session: "0".to_owned(),
        epoch: "1".to_owned(),
        ts: 0,
        encoding: Encoding::Msgpack,
        heartbeat_ms: 60_000,
        limits,
        max_message: 512 * 1024,
        auth: "none".to_owned(),
    };
    encode_control(&Control::Welcome(welcome), Encoding::Msgpack)
}

/// The topics that a request subscribes to, as indices, and the answer to it.
pub(crate) fn subscribe(payload: &[u8], catalog: &Catalog) -> Option<(Vec<usize>, Vec<u8>)> {
    let request = decode_request(payload, Encoding::Msgpack).ok()?;
    let Op::Subscribe(subscribe) = request.op else {
        return None;
    };
    let topics = subscribe
        .topics
        .iter()
        .filter_map(|text| match TopicName::parse(text) {
            Ok(TopicName::Topic(topic)) => catalog.find(&topic).map(TopicId::index),
            _ => None,
        });
    let settings = Settings {
        mode: Mode::Raw,
        on_slow: OnSlow::Gap,
    };
    let entry = |text: &CompactString| Entry {
        epoch: Some("1".to_owned()),
        seq: Some(Seq::START),
        ..Entry::new(text.to_string(), settings)
    };
    let ok: Vec<Entry> = subscribe.topics.iter().map(entry).collect();
    let id = Some(request.id.unwrap_or(Id::Number(0)));
    let answer = Subscribed {
        id,
        count: ok.len() as u64,
        ok,
        err: Vec::new(),
        max_message: None,
        more: false,
    };
    Some((
        topics.collect(),
        encode_control(&Control::Subscribed(answer), Encoding::Msgpack),
    ))
}
