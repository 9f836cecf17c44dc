//! Responses of the server, checked against their requests.

use serde_json::Value;

use super::account::{Account, Start};
use super::requests::Pending;
use super::settings::{Kind, Position, Settings};
use super::{Client, list, number, text};
use crate::Violation;
use crate::truth::Truth;

/// Events of a snapshot whose request gives no number.
pub(super) fn events_by_default(topic: &str) -> u64 {
    if topic.starts_with("trade:") { 50 } else { 1 }
}

/// True if a pattern matches a topic.
fn matches(pattern: &str, topic: &str) -> bool {
    let (pattern, topic): (Vec<&str>, Vec<&str>) =
        (pattern.split(':').collect(), topic.split(':').collect());
    let [channel, symbol, param @ ..] = &pattern[..] else {
        return false;
    };
    let Some(prefix) = symbol.strip_suffix('*') else {
        return false;
    };
    topic.len() == pattern.len()
        && topic[0] == *channel
        && topic[1].starts_with(prefix)
        && topic[2..] == *param
}

impl Client {
    pub(super) fn hold(&mut self, entry: &Value, start: &Start) -> Result<(), Violation> {
        let topic = text(entry, "topic")?;
        let account = Account::new(topic, position(entry)?, Settings::of_entry(entry)?, start);
        self.accounts.insert(topic.to_owned(), account);
        Ok(())
    }

    /// Settings are those of the narrowest subscription that covers a topic.
    pub(super) fn check_settings(&self, topic: &str, entry: &Value) -> Result<(), Violation> {
        let patterns = self.names.iter().filter(|(name, _)| matches(name, topic));
        let longest = patterns.max_by_key(|(name, _)| name.len());
        let narrowest = self
            .names
            .get(topic)
            .or(longest.map(|(_, settings)| settings));
        if narrowest == Some(&Settings::of_entry(entry)?) {
            return Ok(());
        }
        Err(Violation::new(format!(
            "{entry}: expected {narrowest:?} of {:?}",
            self.names
        )))
    }

    pub(super) fn answer(
        &mut self,
        op: &str,
        message: &Value,
        truth: &Truth,
        now: u64,
    ) -> Result<(), Violation> {
        let at = self.pending.iter().position(|one| one.op != "ledger");
        let at = at.filter(|at| {
            let request = &self.pending[*at];
            // The id of a malformed request may be illegible.
            Some(request.id) == message["id"].as_u64()
                || (request.op == "malformed" && message["id"].is_null())
        });
        let Some(at) = at else {
            // A ledger can be refused too.
            let refused = self.pending.iter().position(|one| one.op == "ledger");
            if let ("error", Some(at)) = (op, refused)
                && Some(self.pending[at].id) == message["id"].as_u64()
            {
                self.pending.remove(at);
                return Ok(());
            }
            return Err(Violation::new(format!(
                "{message}: next is {:?}",
                self.pending.front()
            )));
        };
        let is_last = message["more"] != Value::Bool(true);
        let Some(mut request) = self.pending.remove(at) else {
            return Ok(());
        };
        match (op, request.op) {
            ("subscribed", "subscribe" | "modify" | "resync") => {
                self.subscribed(message, &mut request, truth, now)?;
            }
            ("unsubscribed", "unsubscribe") => self.unsubscribed(message, &request, is_last)?,
            ("subscriptions", "subscriptions") => {
                for entry in each_topic(list(message, "ok")?) {
                    self.check_settings(text(entry, "topic")?, entry)?;
                }
            }
            ("pong", "ping") if message["t"].as_i64() == Some(request.t) => {}
            ("instruments", "instruments") => {}
            // Of the requests of a model client only those above the rate are refused, and a
            // `modify` without the interval that it needs.
            ("error", _) if message["code"].as_u64() == Some(429) => return Ok(()),
            ("error", "modify" | "malformed") if message["code"].as_u64() == Some(400) => {
                return Ok(());
            }
            _ => return Err(Violation::new(format!("{message} answers {request:?}"))),
        }
        if !is_last {
            self.pending.insert(at, request);
        } else if let Some(count) = message["count"].as_u64()
            && count != self.accounts.len() as u64
        {
            return Err(Violation::new(format!(
                "count of {message}; {} are held",
                self.accounts.len()
            )));
        }
        Ok(())
    }

    fn subscribed(
        &mut self,
        message: &Value,
        request: &mut Pending,
        truth: &Truth,
        now: u64,
    ) -> Result<(), Violation> {
        let entries = list(message, "ok")?;
        for entry in entries {
            let name = text(entry, "topic")?;
            if request.op == "subscribe" || request.op == "modify" {
                self.names
                    .insert(name.to_owned(), Settings::of_entry(entry)?);
            }
        }
        for entry in each_topic(entries) {
            if let Some(start) = self.acknowledged(entry, request)? {
                check_recovery(entry, &start, truth, now)?;
                self.hold(entry, &start)?;
            }
        }
        let is_last = message["more"] != Value::Bool(true);
        if is_last && request.op != "resync" {
            for entry in each_topic(entries) {
                self.check_settings(text(entry, "topic")?, entry)?;
            }
        }
        Ok(())
    }

    /// Takes an entry in. Returns the beginning of a topic that was not held.
    fn acknowledged(
        &mut self,
        entry: &Value,
        request: &mut Pending,
    ) -> Result<Option<Start>, Violation> {
        let topic = text(entry, "topic")?;
        // A topic appears below each of its names, and once as a subscription.
        if request.seen.iter().any(|one| one == topic) {
            return Ok(None);
        }
        request.seen.push(topic.to_owned());
        let at = position(entry)?;
        let events = match &request.snapshot {
            Some(Value::Number(events)) => events.as_u64().unwrap_or_default(),
            _ => events_by_default(topic),
        };
        let recovered = entry["recovered"].as_bool();
        let Some(account) = self.accounts.get_mut(topic) else {
            if request.op != "subscribe" {
                return Err(Violation::new(format!("{entry} is not held")));
            }
            return start_of(entry, &at, request, events).map(Some);
        };
        if recovered.is_some() {
            return Err(Violation::new(format!("{entry} was held already")));
        }
        account.acknowledge(at.clone(), Settings::of_entry(entry)?);
        let has_snapshot = match (request.op, &request.snapshot) {
            ("resync", _) => true,
            ("subscribe", Some(wish)) => *wish != Value::Bool(false),
            _ => false,
        };
        if has_snapshot {
            account.announce(at, events);
        }
        Ok(None)
    }

    fn unsubscribed(
        &mut self,
        message: &Value,
        request: &Pending,
        is_last: bool,
    ) -> Result<(), Violation> {
        let refused: Vec<&str> = list(message, "err")?
            .iter()
            .filter_map(|one| one["topic"].as_str())
            .collect();
        if request.names.is_empty() {
            self.names.clear();
        }
        for name in request
            .names
            .iter()
            .filter(|name| !refused.contains(&name.as_str()))
        {
            self.names.remove(name);
        }
        for topic in list(message, "topics")?.iter().filter_map(Value::as_str) {
            if self.accounts.remove(topic).is_none() {
                return Err(Violation::new(format!("{topic} in {message} is not held")));
            }
        }
        for entry in list(message, "ok")? {
            let topic = text(entry, "topic")?;
            if is_last {
                self.check_settings(topic, entry)?;
            }
            let (at, settings) = (position(entry)?, Settings::of_entry(entry)?);
            let account = self.accounts.get_mut(topic);
            let account = account.ok_or_else(|| Violation::new(format!("{entry}: not held")))?;
            account.acknowledge(at, settings);
        }
        Ok(())
    }
}

/// The way in which a new subscription begins.
fn start_of(
    entry: &Value,
    at: &Position,
    request: &Pending,
    events: u64,
) -> Result<Start, Violation> {
    let topic = text(entry, "topic")?;
    let recovered = entry["recovered"].as_bool();
    let Some(own) = request.from.get(topic) else {
        if recovered.is_some() {
            return Err(Violation::new(format!("{entry} was not to be resumed")));
        }
        return Ok(if request.snapshot == Some(Value::Bool(false)) {
            Start::Live
        } else {
            Start::Snapshot(events)
        });
    };
    let is_known = own.epoch == at.epoch && own.seq <= at.seq;
    match recovered {
        Some(true) if is_known => Ok(Start::Recovered(own.seq)),
        Some(false) if is_known && own.seq == at.seq => Err(Violation::new(format!(
            "{entry}: the client misses nothing after {own:?}"
        ))),
        Some(false) if is_known => Ok(Start::Expired(own.seq, events)),
        Some(false) => Ok(Start::Snapshot(events)),
        _ => Err(Violation::new(format!("{entry}: resumed after {own:?}"))),
    }
}

/// What was missed is recovered whenever the server has it: the newest event of a merging mode
/// always, all of a raw one while they are in the history.
fn check_recovery(entry: &Value, start: &Start, truth: &Truth, now: u64) -> Result<(), Violation> {
    let Start::Expired(own, _) = start else {
        return Ok(());
    };
    let (topic, at) = (text(entry, "topic")?, position(entry)?);
    let is_kept = if Settings::of_entry(entry)?.mode == "raw" {
        truth.must_have_kept(topic, &at.epoch, (*own, at.seq), now)
    } else {
        Kind::of(topic) == Kind::State
    };
    if is_kept {
        return Err(Violation::new(format!(
            "{entry}: the server has everything after {own}"
        )));
    }
    Ok(())
}

fn position(entry: &Value) -> Result<Position, Violation> {
    Ok(Position {
        epoch: text(entry, "epoch")?.to_owned(),
        seq: number(entry, "seq")?,
    })
}

/// Entries of single topics, those below patterns included.
fn each_topic(entries: &[Value]) -> impl Iterator<Item = &Value> {
    entries.iter().flat_map(|entry| match &entry["matched"] {
        Value::Array(matched) => matched.as_slice(),
        _ => std::slice::from_ref(entry),
    })
}
