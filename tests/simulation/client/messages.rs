//! Messages of the server, checked one by one.

use serde_json::Value;

use super::account::{Around, Lag, Start};
use super::answers::events_by_default;
use super::{Client, End, JITTER_MAX, MILLISECOND, Sent, Totals, list, number, text};
use crate::Violation;
use crate::net;
use crate::truth::Truth;

/// Number of requests refused with 400 that does not close a connection.
const REFUSED_MAX: usize = 20;

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
            "heartbeat" => self.heartbeat(message),
            "ledger" => self.ledger(message, truth),
            "topics" => self.topics(message),
            "source" | "instrument" => Ok(()),
            _ => self.answer(op, message, truth, now),
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
        if self.is_refused != (code == 406) || (code == 400 && self.refused <= REFUSED_MAX) {
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
        let interval = account.settings.interval_ms;
        let sent = Sent {
            at: now,
            closes_bar: event["done"] == true,
        };
        self.check_interval(topic, interval, sent)
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
        self.check_queued(message)?;
        // It is sent on each change.
        if level == self.lag {
            return Err(Violation::new(format!("{message} again")));
        }
        self.lag = level;
        Ok(())
    }

    fn check_queued(&self, message: &Value) -> Result<(), Violation> {
        let queued = number(message, "queued_bytes")?;
        match self.queued_max {
            Some(most) if queued > most => Err(Violation::new(format!(
                "{message}: at most {most} bytes should be queued"
            ))),
            _ => Ok(()),
        }
    }

    /// Events of mode `interval` keep their distance, as far as a client can see it that reads at
    /// once. A closed bar comes together with the event that follows it, though a source gap may
    /// stand between them.
    fn check_interval(
        &mut self,
        topic: String,
        interval_ms: Option<u64>,
        sent: Sent,
    ) -> Result<(), Violation> {
        if self.calm_since.is_none() {
            return Ok(());
        }
        let before = self.last_events.insert(topic.clone(), sent);
        if let (Some(before), Some(interval_ms)) = (before, interval_ms) {
            let distance = sent.at - before.at;
            let is_together = before.closes_bar && distance <= JITTER_MAX;
            if distance + JITTER_MAX < interval_ms * MILLISECOND && !is_together {
                return Err(Violation::new(format!(
                    "{topic}: an event {distance} ns after another; the interval is {interval_ms} ms"
                )));
            }
        }
        Ok(())
    }

    fn heartbeat(&mut self, message: &Value) -> Result<(), Violation> {
        self.check_queued(message)?;
        let ts = number(message, "ts")?;
        let is_calm = self
            .calm_since
            .is_some_and(|since| since <= self.heartbeat_at);
        let before = std::mem::replace(&mut self.heartbeat_at, ts);
        if is_calm && ts + JITTER_MAX < before + self.heartbeat_ms * MILLISECOND {
            return Err(Violation::new(format!(
                "{message} after one at {before}; expected one every {} ms",
                self.heartbeat_ms
            )));
        }
        let theirs = Totals {
            delivered: number(message, "delivered")?,
            merged: number(message, "merged")?,
            lost: number(message, "lost")?,
        };
        if theirs != self.totals {
            return Err(Violation::new(format!("{message}; own {:?}", self.totals)));
        }
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
