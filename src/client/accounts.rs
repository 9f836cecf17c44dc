//! The ledger from the client's side: counted from the wire alone, to be compared with the server's.

use std::collections::HashMap;
use std::fmt::Write;

use crate::protocol::{
    Control, Entry, GapCause, LagLevel, LedgerEntry, Mode, OnSlow, ServerMessage, Settings,
};
use crate::topic::{Kind, Topic};

/// One topic's account, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The topic's epoch.
    pub epoch: String,
    /// Where the account began.
    pub start: u64,
    /// The last number taken in: by an event, a gap or a snapshot.
    pub head: u64,
    /// Events received.
    pub delivered: u64,
    /// Events that a newer one replaced.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
    settings: Settings,
    /// Up to this number an earlier mode may have merged.
    merges_until: u64,
    /// Up to this number an earlier `on_slow` may have merged while degraded.
    degrades_until: u64,
    /// The epoch of these numbers; before it begins, they bound nothing.
    until_epoch: String,
}

/// What the server did that it must not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A topic that isn't held.
    #[error("{0} is not held, but an event or message of it came")]
    NotHeld(String),
    /// Not after what came before.
    #[error("{topic}: {seq} came after {head}")]
    Backwards {
        /// The topic.
        topic: String,
        /// What came.
        seq: u64,
        /// What had come before.
        head: u64,
    },
    /// A hole that no gap names, in a topic that doesn't merge.
    #[error("{topic}: {from} to {to} were lost in silence")]
    Silent {
        /// The topic.
        topic: String,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// A gap with cause `slow` without a warning.
    #[error("{0}: a gap came without a lag message before it")]
    Unannounced(String),
    /// The server's account says something else.
    #[error("{topic}: the server says {server:?}, the client counted {client:?}")]
    Differs {
        /// The topic.
        topic: String,
        /// The server's.
        server: Box<LedgerEntry>,
        /// The client's.
        client: Option<Box<Account>>,
    },
}

/// All accounts of one connection.
#[derive(Debug, Default)]
pub struct Accounts {
    topics: HashMap<String, Account>,
    /// The name of the event's topic that is looked up; used again.
    name: String,
    degraded: bool,
    warned: bool,
    /// Sums since the connection began, also of accounts that have ended.
    pub delivered: u64,
    /// See [`Self::delivered`].
    pub merged: u64,
    /// See [`Self::delivered`].
    pub lost: u64,
}

impl Account {
    /// Whether the account hasn't come to `until` yet, a number of the epoch in which it was told.
    fn is_before(&self, until: u64) -> bool {
        until > 0 && (self.head + 1 < until || self.epoch != self.until_epoch)
    }
}

impl Accounts {
    /// The account of a topic that is held.
    pub fn get(&self, topic: &str) -> Option<&Account> {
        self.topics.get(topic)
    }

    /// All accounts, by topic.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Account)> {
        self.topics.iter()
    }

    /// Takes a message in; an error is a promise that the server broke.
    pub fn take(&mut self, message: &ServerMessage) -> Result<(), AccountError> {
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    self.event(&event.topic, event.seq)?;
                }
                Ok(())
            }
            ServerMessage::Control(control) => self.control(control),
        }
    }

    fn event(&mut self, topic: &Topic, seq: u64) -> Result<(), AccountError> {
        let kind = topic.channel.kind();
        self.name.clear();
        write!(self.name, "{topic}").expect("a String takes all");
        let topic = self.name.as_str();
        let degraded = self.degraded;
        let account = self
            .topics
            .get_mut(topic)
            .ok_or_else(|| AccountError::NotHeld(topic.to_owned()))?;
        if seq <= account.head {
            return Err(AccountError::Backwards {
                topic: topic.to_owned(),
                seq,
                head: account.head,
            });
        }
        let jumped = seq - account.head - 1;
        let by_mode = account.settings.mode != Mode::Raw || account.is_before(account.merges_until);
        let when_degraded = account.settings.on_slow == OnSlow::Conflate
            || account.is_before(account.degrades_until);
        let may_jump = kind != Kind::Event && (by_mode || (degraded && when_degraded));
        if jumped > 0 && !may_jump {
            return Err(AccountError::Silent {
                topic: topic.to_owned(),
                from: account.head + 1,
                to: seq - 1,
            });
        }
        account.merged += jumped;
        account.delivered += 1;
        account.head = seq;
        self.merged += jumped;
        self.delivered += 1;
        Ok(())
    }

    fn control(&mut self, control: &Control) -> Result<(), AccountError> {
        match control {
            Control::Subscribed(subscribed) => self.entries(&subscribed.ok),
            Control::Topics(topics) => {
                self.entries(&topics.added);
                topics
                    .removed
                    .iter()
                    .for_each(|removed| _ = self.topics.remove(&removed.topic));
            }
            Control::Unsubscribed(unsubscribed) => {
                unsubscribed
                    .topics
                    .iter()
                    .for_each(|topic| _ = self.topics.remove(topic));
                self.entries(&unsubscribed.ok);
            }
            Control::Snapshot(snapshot) => {
                return self.snapshot(&snapshot.topic, &snapshot.epoch, snapshot.seq);
            }
            Control::Gap(gap) => return self.gap(&gap.topic, gap.from, gap.to, gap.cause),
            Control::Lag(lag) => {
                self.degraded = lag.level == LagLevel::Degraded;
                self.warned = lag.level != LagLevel::Ok;
            }
            Control::Ledger(ledger) => return self.compare(&ledger.topics),
            _ => {}
        }
        Ok(())
    }

    fn entries(&mut self, entries: &[Entry]) {
        for entry in entries.iter().flat_map(|entry| {
            entry
                .matched
                .as_deref()
                .unwrap_or(std::slice::from_ref(entry))
        }) {
            let (Some(settings), Some(seq)) = (entry.settings(), entry.seq) else {
                continue;
            };
            if let Some(account) = self.topics.get_mut(&entry.topic) {
                let merged =
                    account.settings.mode != Mode::Raw || account.is_before(account.merges_until);
                let degraded = account.settings.on_slow == OnSlow::Conflate
                    || account.is_before(account.degrades_until);
                account.merges_until = if merged { seq.max(1) } else { 0 };
                account.degrades_until = if degraded { seq.max(1) } else { 0 };
                account.until_epoch = entry.epoch.clone().unwrap_or_default();
                account.settings = settings;
                continue;
            }
            let account = Account {
                epoch: entry.epoch.clone().unwrap_or_default(),
                start: seq,
                head: seq,
                delivered: 0,
                merged: 0,
                lost: 0,
                settings,
                merges_until: 0,
                degrades_until: 0,
                until_epoch: entry.epoch.clone().unwrap_or_default(),
            };
            self.topics.insert(entry.topic.clone(), account);
        }
    }

    /// A subscription that goes on where an earlier connection broke off: its account begins at `seq`.
    pub fn resume(&mut self, topic: &str, seq: u64) {
        if let Some(account) = self.topics.get_mut(topic) {
            (account.start, account.head) = (seq, seq);
        }
    }

    fn snapshot(&mut self, topic: &str, epoch: &str, seq: u64) -> Result<(), AccountError> {
        let account = self
            .topics
            .get_mut(topic)
            .ok_or_else(|| AccountError::NotHeld(topic.to_owned()))?;
        if account.epoch != epoch {
            *account = Account {
                epoch: epoch.to_owned(),
                start: seq,
                head: seq,
                delivered: 0,
                merged: 0,
                lost: 0,
                ..account.clone()
            };
            return Ok(());
        }
        if seq < account.head {
            return Err(AccountError::Backwards {
                topic: topic.to_owned(),
                seq,
                head: account.head,
            });
        }
        let jumped = seq - account.head;
        account.merged += jumped;
        account.head = seq;
        self.merged += jumped;
        Ok(())
    }

    fn gap(
        &mut self,
        topic: &str,
        from: u64,
        to: u64,
        cause: GapCause,
    ) -> Result<(), AccountError> {
        let warned = self.warned;
        let account = self
            .topics
            .get_mut(topic)
            .ok_or_else(|| AccountError::NotHeld(topic.to_owned()))?;
        if cause == GapCause::Slow && !warned {
            return Err(AccountError::Unannounced(topic.to_owned()));
        }
        if from <= account.head {
            return Err(AccountError::Backwards {
                topic: topic.to_owned(),
                seq: from,
                head: account.head,
            });
        }
        let (merged, lost) = (from - 1 - account.head, to + 1 - from);
        account.merged += merged;
        account.lost += lost;
        account.head = to;
        self.merged += merged;
        self.lost += lost;
        Ok(())
    }

    fn compare(&self, server: &[LedgerEntry]) -> Result<(), AccountError> {
        for entry in server {
            let own = self.topics.get(&entry.topic);
            let agrees = own.is_some_and(|own| {
                (
                    own.start,
                    own.head,
                    own.delivered,
                    own.merged,
                    own.lost,
                    &own.epoch,
                ) == (
                    entry.start,
                    entry.head,
                    entry.delivered,
                    entry.merged,
                    entry.lost,
                    &entry.epoch,
                )
            });
            let is_zero = entry.head - entry.start == entry.delivered + entry.merged + entry.lost;
            if !(agrees && is_zero) {
                let client = own.cloned().map(Box::new);
                return Err(AccountError::Differs {
                    topic: entry.topic.clone(),
                    server: Box::new(entry.clone()),
                    client,
                });
            }
        }
        Ok(())
    }
}
