//! The ledger from the client's side: counted from the wire alone, to be compared with the
//! server's.
//!
//! An account is as strict as the protocol: numbers without a hole, jumps only where the settings
//! in force allow them, closed bars, the positions of snapshots and gaps, and the sums of
//! `heartbeat` and `ledger`.

#![deny(clippy::arithmetic_side_effects)]

use super::account::{Account, AccountError, Rules};
use super::held::HeldTopics;
use crate::codec::EventRef;
use crate::protocol::{
    Control, Entry, Gap, GapCause, Heartbeat, LagLevel, LedgerAnswer, LedgerEntry, Seq,
    ServerMessage, Snapshot,
};

/// All accounts of one connection.
#[derive(Debug, Default)]
pub struct Accounts {
    topics: HeldTopics,
    degraded: bool,
    warned: bool,
    every_bar: bool,
    /// Entries of a list that comes in several parts.
    listed: u64,
    /// Sums since the connection began, also of accounts that have ended.
    pub delivered: u64,
    /// See [`Self::delivered`].
    pub merged: u64,
    /// See [`Self::delivered`].
    pub lost: u64,
}

impl Accounts {
    /// Accounts of a market that trades in every interval of every bar topic, so that a missing bar
    /// is one that was swallowed.
    pub fn with_every_bar() -> Self {
        Self {
            every_bar: true,
            ..Self::default()
        }
    }

    /// The account of a topic that is held.
    pub fn get(&self, topic: &str) -> Option<&Account> {
        self.topics.get(topic)
    }

    /// All accounts, by topic.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Account)> {
        self.topics.iter()
    }

    /// Takes a message in; an error is a violation of the protocol by the server.
    pub fn take(&mut self, message: &ServerMessage) -> Result<(), AccountError> {
        match message {
            ServerMessage::Events(events) => {
                let mut events = events.iter().map(EventRef::from);
                events.try_for_each(|event| self.take_event(&event))
            }
            ServerMessage::Control(control) => self.control(control),
        }
    }

    const fn rules(&self) -> Rules {
        Rules {
            degraded: self.degraded,
            every_bar: self.every_bar,
        }
    }

    /// Takes in an event that [`visit_events`](super::visit_events) decoded.
    pub fn take_event(&mut self, event: &EventRef<'_>) -> Result<(), AccountError> {
        let rules = self.rules();
        let (topic, account) = self
            .topics
            .of_event(event.channel, event.symbol)
            .ok_or_else(|| AccountError::NotSubscribed(event.topic()))?;
        let merged = account.event(topic, event, rules)?;
        self.merged = self.merged.saturating_add(merged);
        self.delivered = self.delivered.saturating_add(1);
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), AccountError> {
        match control {
            Control::Subscribed(subscribed) => {
                self.entries(&subscribed.ok);
                return self.check_count(subscribed.count, subscribed.more);
            }
            Control::Topics(topics) => {
                self.entries(&topics.added);
                for removed in &topics.removed {
                    self.topics.remove(&removed.topic);
                }
            }
            Control::Unsubscribed(unsubscribed) => {
                for topic in &unsubscribed.topics {
                    self.topics.remove(topic);
                }
                self.entries(&unsubscribed.ok);
                return self.check_count(unsubscribed.count, unsubscribed.more);
            }
            Control::Subscriptions(subscriptions) => {
                self.check_settings(&subscriptions.ok)?;
                return self.check_count(subscriptions.count, subscriptions.more);
            }
            Control::Snapshot(snapshot) => return self.snapshot(snapshot),
            Control::Gap(gap) => return self.gap(gap),
            Control::Lag(lag) => {
                self.degraded = lag.level == LagLevel::Degraded;
                self.warned = lag.level != LagLevel::Ok;
            }
            Control::Heartbeat(heartbeat) => return self.check_sums(heartbeat),
            Control::Ledger(ledger) => return self.compare(ledger),
            _ => {}
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[Entry]) {
        for entry in each_topic(entries) {
            let (Some(settings), Some(seq)) = (entry.settings(), entry.seq) else {
                continue;
            };
            match self.topics.get_mut(&entry.topic) {
                Some(account) => account.acknowledge(entry, settings, seq),
                None => {
                    let account = Account::new(entry, settings, seq);
                    self.topics.insert(&entry.topic, account);
                }
            }
        }
    }

    fn check_settings(&self, entries: &[Entry]) -> Result<(), AccountError> {
        for entry in each_topic(entries).filter(|entry| entry.seq.is_some()) {
            let own = self.topics.get(&entry.topic);
            if own.is_none_or(|own| Some(own.settings) != entry.settings()) {
                return Err(AccountError::Settings(entry.topic.clone()));
            }
        }
        Ok(())
    }

    fn check_count(&self, server: u64, more: bool) -> Result<(), AccountError> {
        let client = self.topics.len() as u64;
        if more || server == client {
            return Ok(());
        }
        Err(AccountError::Count { server, client })
    }

    /// A subscription that goes on where an earlier connection broke off: its account begins at
    /// `seq`.
    pub fn resume(&mut self, topic: &str, seq: Seq) {
        if let Some(account) = self.topics.get_mut(topic) {
            account.resume(seq);
        }
    }

    fn subscribed_account(&mut self, topic: &str) -> Result<&mut Account, AccountError> {
        self.topics
            .get_mut(topic)
            .ok_or_else(|| AccountError::NotSubscribed(topic.to_owned()))
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), AccountError> {
        let (rules, topic) = (self.rules(), snapshot.topic.as_str());
        let shown = (snapshot.seq, snapshot.events.as_slice());
        let account = self.subscribed_account(topic)?;
        let merged = account.snapshot(topic, &snapshot.epoch, shown, rules)?;
        self.merged = self.merged.saturating_add(merged);
        Ok(())
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), AccountError> {
        let (rules, warned, topic) = (self.rules(), self.warned, gap.topic.as_str());
        let account = self.subscribed_account(topic)?;
        if gap.epoch != account.epoch {
            return Err(AccountError::Epoch {
                topic: topic.to_owned(),
                epoch: gap.epoch.clone(),
            });
        }
        if gap.cause == GapCause::Slow && !warned {
            return Err(AccountError::GapWithoutLag(topic.to_owned()));
        }
        let count = gap
            .to
            .0
            .checked_add(1)
            .and_then(|end| end.checked_sub(gap.from.0));
        let is_of_source = gap.cause == GapCause::Source;
        if count != Some(gap.n) || (gap.n == 0) != is_of_source {
            return Err(AccountError::GapCount(topic.to_owned()));
        }
        let merged = account.gap(topic, (gap.from, gap.to), rules)?;
        self.merged = self.merged.saturating_add(merged);
        self.lost = self.lost.saturating_add(gap.n);
        Ok(())
    }

    fn check_sums(&self, heartbeat: &Heartbeat) -> Result<(), AccountError> {
        let own = (self.delivered, self.merged, self.lost);
        if own == (heartbeat.delivered, heartbeat.merged, heartbeat.lost) {
            return Ok(());
        }
        Err(AccountError::HeartbeatMismatch {
            heartbeat: Box::new(heartbeat.clone()),
            delivered: own.0,
            merged: own.1,
            lost: own.2,
        })
    }

    fn compare(&mut self, ledger: &LedgerAnswer) -> Result<(), AccountError> {
        for entry in &ledger.topics {
            let own = self.topics.get(&entry.topic);
            if !own.is_some_and(|own| agrees(own, entry)) {
                return Err(AccountError::LedgerMismatch {
                    topic: entry.topic.clone(),
                    server: Box::new(entry.clone()),
                    client: own.cloned().map(Box::new),
                });
            }
        }
        self.listed = self.listed.saturating_add(ledger.topics.len() as u64);
        if ledger.more {
            return Ok(());
        }
        let listed = std::mem::take(&mut self.listed);
        self.check_count(listed, false)
    }
}

/// The entries of single topics, also those that stand below a pattern.
fn each_topic(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().flat_map(|entry| {
        entry
            .matched
            .as_deref()
            .unwrap_or(std::slice::from_ref(entry))
    })
}

fn agrees(own: &Account, server: &LedgerEntry) -> bool {
    let sums = (own.delivered, own.merged, own.lost);
    let total = server.delivered.checked_add(server.merged);
    let total = total.and_then(|total| total.checked_add(server.lost));
    own.epoch == server.epoch
        && (own.start, own.head) == (server.start, server.head)
        && sums == (server.delivered, server.merged, server.lost)
        && server.head.checked_since(server.start) == total
        && server.pending >= own.newest_known().since(server.head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_server_message;
    use crate::protocol::Encoding;

    #[test]
    fn invalid_numbers_are_rejected_without_overflow() {
        let read = |text: &str| {
            decode_server_message(text.as_bytes(), Encoding::Json).expect("valid message")
        };
        let held = read(
            r#"{"op":"subscribed","id":null,"ok":[{"topic":"trade:A","epoch":"e","mode":"raw","on_slow":"gap","seq":3}],"err":[],"count":1}"#,
        );
        let max = u64::MAX;
        for text in [
            format!(
                r#"{{"op":"gap","topic":"trade:A","epoch":"e","from":4,"to":{max},"n":1,"cause":"bus"}}"#
            ),
            format!(
                r#"{{"op":"gap","topic":"trade:A","epoch":"e","from":{max},"to":0,"n":1,"cause":"bus"}}"#
            ),
            format!(
                r#"{{"op":"ledger","id":null,"topics":[{{"topic":"trade:A","epoch":"e","start":3,"head":3,"delivered":{max},"merged":{max},"lost":1,"pending":{max}}}]}}"#
            ),
            r#"{"op":"ledger","id":null,"topics":[{"topic":"trade:A","epoch":"e","start":3,"head":0,"delivered":0,"merged":0,"lost":0,"pending":0}]}"#.to_owned(),
            format!(
                r#"[{{"ch":"trade","sym":"A","seq":{max},"ts":1,"tx":1,"px":"1","qty":"1","side":"buy"}}]"#
            ),
            r#"[{"ch":"trade","sym":"A","seq":0,"ts":1,"tx":1,"px":"1","qty":"1","side":"buy"}]"#.to_owned(),
        ] {
            let mut accounts = Accounts::default();
            assert!(accounts.take(&held).is_ok());
            assert!(accounts.take(&read(&text)).is_err(), "{text}");
        }
    }
}
