//! Messages of the server, checked one by one.

use serde_json::Value;

use super::account::{Account, Around, Lag, Position, Settings, Start};
use super::requests::Pending;
use super::{Client, End, Totals, list, number, text};
use crate::Violation;
use crate::net;
use crate::truth::Truth;

/// Events of a snapshot whose request gives no number.
fn events_by_default(topic: &str) -> u64 {
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
    pub(super) fn message(
        &mut self,
        message: &Value,
        truth: &mut Truth,
        now: u64,
    ) -> Result<(), Violation> {
        if let Value::Array(events) = message {
            if !self.is_welcome || events.is_empty() {
                return Err(Violation::new(format!(
                    "{message} before `welcome`, or empty"
                )));
            }
            return events
                .iter()
                .try_for_each(|event| self.event(event, truth, now));
        }
        let op = text(message, "op")?;
        if self.end.is_some() {
            return Err(Violation::new(format!("{message} after `bye`")));
        }
        if !self.is_welcome && op != "welcome" && op != "bye" {
            return Err(Violation::new(format!("{message} before `welcome`")));
        }
        match op {
            "welcome" => self.welcome(message),
            "bye" => self.bye(message),
            "snapshot" => self.snapshot(message, truth),
            "gap" => self.gap(message, truth),
            "lag" => self.level(message),
            "heartbeat" => self.heartbeat(message, now),
            "ledger" => self.ledger(message, truth),
            "topics" => self.topics(message),
            "source" | "instrument" => Ok(()),
            _ => self.answer(op, message),
        }
    }

    fn welcome(&mut self, message: &Value) -> Result<(), Violation> {
        if self.is_welcome || self.is_refused {
            return Err(Violation::new("an unexpected `welcome`"));
        }
        self.is_welcome = true;
        text(message, "epoch")?.clone_into(&mut self.known_epoch);
        self.heartbeat_ms = number(message, "heartbeat_ms")?;
        Ok(())
    }

    fn bye(&mut self, message: &Value) -> Result<(), Violation> {
        let code = number(message, "code")?;
        if code == 407 && self.lag == Lag::Ok {
            return Err(Violation::new(format!("{message} without a `lag` before")));
        }
        if self.is_refused != (code == 406) {
            return Err(Violation::new(format!("unexpected {message}")));
        }
        self.end = Some(End::Bye(code));
        self.pending.clear();
        Ok(())
    }

    fn event(&mut self, event: &Value, truth: &mut Truth, now: u64) -> Result<(), Violation> {
        let (channel, symbol, seq) = (
            text(event, "ch")?,
            text(event, "sym")?,
            number(event, "seq")?,
        );
        let topic = match event["iv"].as_str() {
            Some(param) => format!("{channel}:{symbol}:{param}"),
            None => format!("{channel}:{symbol}"),
        };
        let Some(account) = self.accounts.get_mut(&topic) else {
            return Err(Violation::new(format!(
                "{event} of a topic that is not held"
            )));
        };
        check_content(&topic, &account.epoch, event, truth)?;
        let around = Around {
            truth,
            lag: self.lag,
        };
        let merged = account.event(seq, around)?;
        self.totals.merged += merged;
        self.totals.delivered += 1;
        self.event_times.insert(topic, now);
        Ok(())
    }

    fn snapshot(&mut self, message: &Value, truth: &mut Truth) -> Result<(), Violation> {
        let (topic, epoch, seq) = (
            text(message, "topic")?,
            text(message, "epoch")?,
            number(message, "seq")?,
        );
        let events = list(message, "events")?;
        for event in events {
            check_content(topic, epoch, event, truth)?;
        }
        let around = Around {
            truth,
            lag: self.lag,
        };
        let Some(account) = self.accounts.get_mut(topic) else {
            return Err(Violation::new(format!(
                "{topic} is not held: snapshot at {seq} of {epoch}"
            )));
        };
        self.totals.merged += account.snapshot(epoch, seq, events, around)?;
        Ok(())
    }

    fn gap(&mut self, message: &Value, truth: &Truth) -> Result<(), Violation> {
        let topic = text(message, "topic")?;
        let around = Around {
            truth,
            lag: self.lag,
        };
        let Some(account) = self.accounts.get_mut(topic) else {
            return Err(Violation::new(format!(
                "{message} of a topic that is not held"
            )));
        };
        self.totals.merged += account.gap(message, around)?;
        self.totals.lost += number(message, "n")?;
        Ok(())
    }

    fn level(&mut self, message: &Value) -> Result<(), Violation> {
        let level = match text(message, "level")? {
            "ok" => Lag::Ok,
            "warn" => Lag::Warn,
            "degraded" => Lag::Degraded,
            _ => return Err(Violation::new(format!("{message}"))),
        };
        // It is sent on each change.
        if level == self.lag {
            return Err(Violation::new(format!("{message} again")));
        }
        self.lag = level;
        Ok(())
    }

    fn heartbeat(&mut self, message: &Value, now: u64) -> Result<(), Violation> {
        let theirs = Totals {
            delivered: number(message, "delivered")?,
            merged: number(message, "merged")?,
            lost: number(message, "lost")?,
        };
        if theirs != self.totals {
            return Err(Violation::new(format!("{message}; own {:?}", self.totals)));
        }
        self.heartbeat_at = now;
        Ok(())
    }

    fn ledger(&mut self, message: &Value, truth: &Truth) -> Result<(), Violation> {
        let id = number(message, "id")?;
        let at = self.pending.iter().position(|one| one.op == "ledger");
        let at = at.filter(|at| self.pending[*at].id == id);
        let Some(at) = at else {
            return Err(Violation::new(format!("{message}: not requested")));
        };
        let entries = list(message, "topics")?;
        for entry in entries {
            let topic = text(entry, "topic")?;
            let Some(account) = self.accounts.get(topic) else {
                return Err(Violation::new(format!("{entry}: not held")));
            };
            account.compare(entry, truth)?;
        }
        self.listed += entries.len();
        if message["more"] == Value::Bool(true) {
            return Ok(());
        }
        self.pending.remove(at);
        let listed = std::mem::take(&mut self.listed);
        if listed == self.accounts.len() {
            return Ok(());
        }
        Err(Violation::new(format!(
            "a ledger of {listed} topics; {} are held",
            self.accounts.len()
        )))
    }

    fn topics(&mut self, message: &Value) -> Result<(), Violation> {
        for entry in list(message, "added")? {
            let topic = text(entry, "topic")?;
            if self.accounts.contains_key(topic) {
                return Err(Violation::new(format!("{entry} is held already")));
            }
            self.check_settings(topic, entry)?;
            let start = Start::Snapshot(events_by_default(topic));
            self.hold(entry, &start)?;
        }
        for removed in list(message, "removed")? {
            let topic = text(removed, "topic")?;
            if self.accounts.remove(topic).is_none() {
                return Err(Violation::new(format!("{removed} is not held")));
            }
            self.names.remove(topic);
        }
        Ok(())
    }

    fn hold(&mut self, entry: &Value, start: &Start) -> Result<(), Violation> {
        let topic = text(entry, "topic")?;
        let account = Account::new(topic, position(entry)?, Settings::of_entry(entry)?, start);
        self.accounts.insert(topic.to_owned(), account);
        Ok(())
    }

    /// Settings are those of the narrowest subscription that covers a topic.
    fn check_settings(&self, topic: &str, entry: &Value) -> Result<(), Violation> {
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

    fn answer(&mut self, op: &str, message: &Value) -> Result<(), Violation> {
        let at = self.pending.iter().position(|one| one.op != "ledger");
        let at = at.filter(|at| Some(self.pending[*at].id) == message["id"].as_u64());
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
                self.subscribed(message, &mut request)?;
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
            ("error", "modify") if message["code"].as_u64() == Some(400) => return Ok(()),
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

    fn subscribed(&mut self, message: &Value, request: &mut Pending) -> Result<(), Violation> {
        let entries = list(message, "ok")?;
        for entry in entries {
            let name = text(entry, "topic")?;
            if request.op == "subscribe" || request.op == "modify" {
                self.names
                    .insert(name.to_owned(), Settings::of_entry(entry)?);
            }
        }
        for entry in each_topic(entries) {
            self.acknowledged(entry, request)?;
        }
        let is_last = message["more"] != Value::Bool(true);
        if is_last && request.op != "resync" {
            for entry in each_topic(entries) {
                self.check_settings(text(entry, "topic")?, entry)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, entry: &Value, request: &mut Pending) -> Result<(), Violation> {
        let topic = text(entry, "topic")?;
        // A topic appears below each of its names, and once as a subscription.
        if request.seen.iter().any(|one| one == topic) {
            return Ok(());
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
            let start = start_of(entry, &at, request, events)?;
            return self.hold(entry, &start);
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
        Ok(())
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

/// An event is the one that was published, the same for all clients in all encodings.
fn check_content(
    topic: &str,
    epoch: &str,
    event: &Value,
    truth: &mut Truth,
) -> Result<(), Violation> {
    let (seq, tx) = (number(event, "seq")?, number(event, "tx")?);
    let Some(record) = truth.record_mut(topic, epoch, seq) else {
        return Err(Violation::new(format!(
            "{event} of {epoch}: never published"
        )));
    };
    let digest = net::digest(event);
    let is_done = event["done"] == Value::Bool(true);
    let is_same = *record.content.get_or_insert(digest) == digest;
    if record.tx == tx && is_same && record.is_done == is_done {
        return Ok(());
    }
    Err(Violation::new(format!(
        "{event} of {epoch}: published {record:?}"
    )))
}
