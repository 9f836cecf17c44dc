//! Requests of a model client.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Client;
use super::settings::Position;
use crate::net;
use crate::rng::Rng;

/// Request without an answer so far.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: u64,
    pub(crate) op: &'static str,
    pub(crate) names: Vec<String>,
    /// The client's own positions, by topic.
    pub(crate) from: BTreeMap<String, Position>,
    /// Snapshot wish: `None` if the request has none.
    pub(crate) snapshot: Option<Value>,
    pub(crate) t: i64,
    /// Topics that the parts of the answer have named so far.
    pub(crate) seen: Vec<String>,
}

/// Channels with the modes and policies that they accept.
const CHANNELS: [&str; 6] = ["trade", "quote", "ticker", "bar", "bar", "status"];

impl Client {
    /// A topic or pattern; mostly one that exists.
    fn random_name(rng: &mut Rng, symbols: &[String]) -> String {
        let channel = *rng.pick(&CHANNELS);
        let symbol = if rng.chance(30) || symbols.is_empty() {
            let patterns = ["*", "A*", "B*", "A1*"];
            (*rng.pick(&patterns)).to_owned()
        } else {
            rng.pick(symbols).clone()
        };
        match channel {
            "bar" => {
                let interval = if rng.chance(80) { "1s" } else { "1m" };
                format!("bar:{symbol}:{interval}")
            }
            _ => format!("{channel}:{symbol}"),
        }
    }

    fn random_names(&self, rng: &mut Rng, symbols: &[String]) -> Vec<String> {
        let count = 1 + rng.below(3);
        let mut names: Vec<String> = (0..count)
            .map(|_| {
                let held: Vec<&String> = self.names.keys().collect();
                if !held.is_empty() && rng.chance(30) {
                    (*rng.pick(&held)).clone()
                } else {
                    Self::random_name(rng, symbols)
                }
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn random_wish(rng: &mut Rng, request: &mut Value) {
        match rng.below(5) {
            0 | 1 => {}
            2 => request["mode"] = json!("raw"),
            3 => request["mode"] = json!("conflate"),
            _ => {
                request["mode"] = json!("interval");
                request["interval_ms"] = json!(*rng.pick(&[10, 50, 100, 1000]));
            }
        }
        if rng.chance(40) {
            request["on_slow"] = match rng.below(7) {
                0..=2 => json!("gap"),
                3..=5 => json!("conflate"),
                _ => json!("disconnect"),
            };
        }
    }

    /// Sends a request of a random kind.
    pub(crate) fn request_anything(&mut self, rng: &mut Rng, symbols: &[String], now: u64) {
        match rng.below(17) {
            16 => self.request_malformed(rng, now),
            0..=5 => self.request_subscribe(rng, symbols, now),
            6..=7 => {
                let names = self.held_names(rng, symbols);
                let mut request = json!({"op": "modify", "topics": names});
                Self::random_wish(rng, &mut request);
                self.request(request, rng, now);
            }
            8..=9 => {
                let held: Vec<String> = self.accounts.keys().cloned().collect();
                let names = if held.is_empty() || rng.chance(30) {
                    self.held_names(rng, symbols)
                } else {
                    vec![rng.pick(&held).clone()]
                };
                self.request(json!({"op": "resync", "topics": names}), rng, now);
            }
            10 => {
                let request = if rng.chance(10) {
                    json!({"op": "unsubscribe", "all": true})
                } else {
                    json!({"op": "unsubscribe", "topics": self.held_names(rng, symbols)})
                };
                self.request(request, rng, now);
            }
            11 => self.request(json!({"op": "subscriptions"}), rng, now),
            12..=13 => self.request(json!({"op": "ledger"}), rng, now),
            14 => self.request(json!({"op": "ping", "t": rng.below(1000)}), rng, now),
            _ => self.request(json!({"op": "instruments"}), rng, now),
        }
    }

    fn held_names(&self, rng: &mut Rng, symbols: &[String]) -> Vec<String> {
        let held: Vec<&String> = self.names.keys().collect();
        if held.is_empty() || rng.chance(5) {
            return self.random_names(rng, symbols);
        }
        let mut names: Vec<String> = (0..=rng.below(2))
            .map(|_| (*rng.pick(&held)).clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn request_subscribe(&mut self, rng: &mut Rng, symbols: &[String], now: u64) {
        let names = self.random_names(rng, symbols);
        let mut request = json!({"op": "subscribe", "topics": names});
        Self::random_wish(rng, &mut request);
        match rng.below(8) {
            0 => request["snapshot"] = json!(true),
            1 => request["snapshot"] = json!(false),
            2 => request["snapshot"] = json!(1 + rng.below(20)),
            _ => {}
        }
        if rng.chance(10) {
            request["atomic"] = json!(true);
        }
        if rng.chance(3) {
            request["max_message"] = json!(*rng.pick(&[4096, 20_000, 524_288]));
        }
        self.request(request, rng, now);
    }

    /// Sends a request that is refused as a whole, and changes nothing.
    fn request_malformed(&mut self, rng: &mut Rng, now: u64) {
        self.next_id += 1;
        let id = self.next_id;
        let text = match rng.below(9) {
            0 => "[1, 2]".to_owned(),
            1 => format!(r#"{{"op": "ping", "id": {id}"#),
            2 => format!(r#"{{"id": {id}, "topics": ["quote:*"]}}"#),
            3 => format!(r#"{{"op": "publish", "id": {id}}}"#),
            4 => format!(r#"{{"op": "unsubscribe", "id": {id}, "topics": "quote:*"}}"#),
            5 => format!(r#"{{"op": "ping", "id": {id}, "t": 1.0}}"#),
            6 => format!(r#"{{"op": "ping", "id": {id}, "t": 1, "t": 1}}"#),
            7 => {
                format!(r#"{{"op": "subscribe", "id": {id}, "topics": ["quote:*"], "mode": "x"}}"#)
            }
            _ => format!(
                r#"{{"op": "modify", "id": {id}, "topics": ["quote:*"], "mode": "interval", "interval_ms": 7}}"#
            ),
        };
        self.refused += 1;
        self.pending.push_back(Pending {
            id,
            op: "malformed",
            names: Vec::new(),
            from: BTreeMap::new(),
            snapshot: None,
            t: 0,
            seen: Vec::new(),
        });
        let mask = (rng.next() as u32).to_be_bytes();
        self.send(&net::client_frame(net::TEXT, text.as_bytes(), mask), now);
    }

    /// Asks to continue where an earlier connection broke off.
    pub(crate) fn request_resume(&mut self, rng: &mut Rng, now: u64) {
        let places = std::mem::take(&mut self.remembered);
        if places.is_empty() {
            return;
        }
        let mut names: Vec<String> = places.iter().map(|(topic, ..)| topic.clone()).collect();
        if rng.chance(20) {
            names.pop();
        }
        if rng.chance(20) {
            names.push("quote:*".to_owned());
        }
        let server = self.known_epoch.clone();
        let seqs: serde_json::Map<String, Value> = places
            .iter()
            .map(|(topic, at)| (topic.clone(), json!(at.seq)))
            .collect();
        let epochs: serde_json::Map<String, Value> = places
            .iter()
            .filter(|(_, at)| at.epoch != server)
            .map(|(topic, at)| (topic.clone(), json!(at.epoch)))
            .collect();
        let mut request = json!({
            "op": "subscribe",
            "topics": names,
            "from": {"epoch": server, "seqs": seqs, "epochs": epochs},
        });
        if rng.chance(30) {
            Self::random_wish(rng, &mut request);
        }
        self.request(request, rng, now);
        if let Some(pending) = self.pending.back_mut() {
            pending.from = places.into_iter().collect();
        }
    }

    /// Sends a request.
    pub(crate) fn request(&mut self, mut request: Value, rng: &mut Rng, now: u64) {
        self.next_id += 1;
        let id = self.next_id;
        request["id"] = json!(id);
        let op = match request["op"].as_str() {
            Some("subscribe") => "subscribe",
            Some("unsubscribe") => "unsubscribe",
            Some("modify") => "modify",
            Some("resync") => "resync",
            Some("subscriptions") => "subscriptions",
            Some("ledger") => "ledger",
            Some("ping") => "ping",
            _ => "instruments",
        };
        let names = request["topics"].as_array().map(|names| {
            let names = names.iter().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        });
        let pending = Pending {
            id,
            op,
            names: names.unwrap_or_default(),
            from: BTreeMap::new(),
            snapshot: request.get("snapshot").cloned(),
            seen: Vec::new(),
            t: request["t"].as_i64().unwrap_or_default(),
        };
        self.pending.push_back(pending);
        // It may lack an interval.
        self.refused += usize::from(op == "modify");
        // In either encoding, whichever the connection has.
        let opcode = if rng.chance(50) {
            net::TEXT
        } else {
            net::BINARY
        };
        let payload = net::encode(opcode, &request);
        let mask = (rng.next() as u32).to_be_bytes();
        self.send(&net::client_frame(opcode, &payload, mask), now);
    }
}
