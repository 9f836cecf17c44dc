//! One topic's account on the client's side, and the delivery rules that a server must keep for it.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use crate::codec::EventRef;
use crate::market::{Body, UnixNanos};
use crate::protocol::{DataEvent, Entry, Heartbeat, LedgerEntry, Mode, OnSlow, Seq, Settings};
use crate::topic::{Channel, Kind, TopicName};

/// One topic's account, as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The topic's epoch.
    pub epoch: String,
    /// Sequence number at which the account began.
    pub start: Seq,
    /// The last number taken in: by an event, a gap or a snapshot.
    pub head: Seq,
    /// Events received.
    pub delivered: u64,
    /// Events that a newer one replaced.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
    /// `None`: a channel of a later protocol version, of which no rule is known.
    channel: Option<Channel>,
    pub(super) settings: Settings,
    /// Earlier settings hold up to the number that the newest acknowledgement named.
    earlier: Earlier,
    /// Positions at which an acknowledgement announced a snapshot, or may have.
    acknowledged: Vec<Position>,
    /// The epoch before this one; it never returns.
    previous_epoch: Option<String>,
    /// A gap ends at `head`, so that a snapshot may follow.
    after_gap: bool,
    /// The newest bar.
    bar: LastBar,
}

/// A violation of the protocol by the server.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AccountError {
    /// A message for a topic without a subscription.
    #[error("{0}: received an event or message without a subscription")]
    NotSubscribed(String),
    /// A sequence number that is not greater than the one before it.
    #[error("{topic}: received seq {seq} after seq {head}; expected a greater number")]
    OutOfOrder {
        /// The topic.
        topic: String,
        /// Sequence number received.
        seq: Seq,
        /// Sequence number received before it.
        head: Seq,
    },
    /// Missing events that no gap reports, in a topic that is not merged.
    #[error("{topic}: events {from} to {to} are missing and no gap reports them")]
    UnreportedLoss {
        /// The topic.
        topic: String,
        /// First missing event.
        from: Seq,
        /// Last missing event.
        to: Seq,
    },
    /// The last event of a closed bar is missing.
    #[error("{topic}: a closed bar before seq {seq} was not delivered and no gap reports it")]
    MissingClosedBar {
        /// The topic.
        topic: String,
        /// Event or snapshot after the missing one.
        seq: Seq,
    },
    /// A snapshot at a position that neither an acknowledgement nor a gap announced.
    #[error(
        "{topic}: unexpected snapshot at seq {seq}; no acknowledgement and no gap announced it"
    )]
    UnexpectedSnapshot {
        /// The topic.
        topic: String,
        /// The snapshot's number.
        seq: Seq,
    },
    /// A snapshot without the state at its sequence number.
    #[error("{topic}: the events of the snapshot at seq {seq} are not the state at that number")]
    SnapshotContents {
        /// The topic.
        topic: String,
        /// The snapshot's number.
        seq: Seq,
    },
    /// A message of an epoch that is not the topic's current one.
    #[error("{topic}: received a message of epoch {epoch}, which is not the topic's current epoch")]
    Epoch {
        /// The topic.
        topic: String,
        /// The message's epoch.
        epoch: String,
    },
    /// A gap with cause `slow` without a `lag` message before it.
    #[error("{0}: gap with cause `slow` without a preceding `lag` message")]
    GapWithoutLag(String),
    /// A gap whose `n` is not the number of its events.
    #[error("{0}: `n` of a gap is not the number of events from `from` to `to`")]
    GapCount(String),
    /// A listed topic that is not subscribed, or has other settings.
    #[error("{0}: the listed settings differ from the acknowledged ones")]
    Settings(String),
    /// A response whose `count` or list is not the number of subscribed topics.
    #[error("the server counts {server} subscribed topics, the client counts {client}")]
    Count {
        /// The server's.
        server: u64,
        /// The client's.
        client: u64,
    },
    /// The accounts of server and client differ.
    #[error(
        "{topic}: ledgers differ: server: {}; client: {}",
        server_counts(server),
        client_counts(client.as_deref())
    )]
    LedgerMismatch {
        /// The topic.
        topic: String,
        /// The server's.
        server: Box<LedgerEntry>,
        /// The client's.
        client: Option<Box<Account>>,
    },
    /// The sums of a heartbeat differ from those of the accounts.
    #[error(
        "heartbeat counts {} delivered, {} merged, {} lost; the client counts {delivered} delivered, {merged} merged, {lost} lost",
        heartbeat.delivered, heartbeat.merged, heartbeat.lost
    )]
    HeartbeatMismatch {
        /// The server's.
        heartbeat: Box<Heartbeat>,
        /// The client's.
        delivered: u64,
        /// The client's.
        merged: u64,
        /// The client's.
        lost: u64,
    },
}

fn server_counts(entry: &LedgerEntry) -> String {
    let counts = [entry.delivered, entry.merged, entry.lost];
    let counts = counts_text(&entry.epoch, entry.start, entry.head, counts);
    format!("{counts}, {} pending", entry.pending)
}

fn client_counts(account: Option<&Account>) -> String {
    account.map_or_else(
        || "not subscribed".to_owned(),
        |own| {
            let counts = [own.delivered, own.merged, own.lost];
            counts_text(&own.epoch, own.start, own.head, counts)
        },
    )
}

fn counts_text(epoch: &str, start: Seq, head: Seq, [delivered, merged, lost]: [u64; 3]) -> String {
    format!(
        "epoch {epoch}, start {start}, head {head}, {delivered} delivered, {merged} merged, {lost} lost"
    )
}

/// A number within an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Position {
    epoch: String,
    seq: Seq,
}

/// Permissions of earlier settings, which hold for events up to `until`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Earlier {
    until: Position,
    merges: bool,
    degrades: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastBar {
    /// None was received since the account began, or since a gap.
    Unknown,
    Open(UnixNanos),
    Closed(UnixNanos),
}

/// Conditions outside the account that decide which jumps are allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The latest `lag` message was `degraded`.
    pub degraded: bool,
    /// Every interval of every bar topic has a bar.
    pub every_bar: bool,
}

impl Account {
    /// Begins at the position of an acknowledgement.
    pub(super) fn new(entry: &Entry, settings: Settings, seq: Seq) -> Self {
        let channel = match TopicName::parse(&entry.topic) {
            Ok(TopicName::Topic(topic)) => Some(topic.channel),
            _ => None,
        };
        let epoch = entry.epoch.clone().unwrap_or_default();
        Self {
            acknowledged: vec![Position {
                epoch: epoch.clone(),
                seq,
            }],
            epoch,
            start: seq,
            head: seq,
            delivered: 0,
            merged: 0,
            lost: 0,
            channel,
            settings,
            earlier: Earlier::default(),
            previous_epoch: None,
            after_gap: false,
            bar: LastBar::Unknown,
        }
    }

    /// Takes an acknowledgement of a topic that is held already: the settings in force, and the
    /// topic's head.
    pub(super) fn acknowledge(&mut self, entry: &Entry, settings: Settings, seq: Seq) {
        let position = Position {
            epoch: entry.epoch.clone().unwrap_or_default(),
            seq,
        };
        self.earlier = Earlier {
            merges: self.settings.mode != Mode::Raw || self.allowed_earlier(self.earlier.merges),
            degrades: self.settings.on_slow == OnSlow::Conflate
                || self.allowed_earlier(self.earlier.degrades),
            until: position.clone(),
        };
        self.settings = settings;
        if !self.acknowledged.contains(&position) {
            self.acknowledged.push(position);
        }
    }

    /// Begins after `seq` instead, because the client resumes there.
    pub(super) fn resume(&mut self, seq: Seq) {
        (self.start, self.head) = (seq, seq);
    }

    /// True if a permission of earlier settings still holds for the next event.
    fn allowed_earlier(&self, permission: bool) -> bool {
        let until = &self.earlier.until;
        permission && (self.epoch != until.epoch || self.head < until.seq)
    }

    /// True if a permission of earlier settings covers events up to `last`.
    fn covered_earlier(&self, permission: bool, last: Seq) -> bool {
        let until = &self.earlier.until;
        permission && (self.epoch != until.epoch || last <= until.seq)
    }

    /// Checks that the events after `head` up to `last` may be merged.
    fn check_jump(&self, topic: &str, last: Seq, rules: Rules) -> Result<(), AccountError> {
        if last <= self.head {
            return Ok(());
        }
        let by_mode =
            self.settings.mode != Mode::Raw || self.covered_earlier(self.earlier.merges, last);
        let by_degrade = rules.degraded
            && (self.settings.on_slow == OnSlow::Conflate
                || self.covered_earlier(self.earlier.degrades, last));
        let merges =
            self.channel.map(Channel::kind) != Some(Kind::Event) && (by_mode || by_degrade);
        if merges || self.channel.is_none() {
            return Ok(());
        }
        Err(AccountError::UnreportedLoss {
            topic: topic.to_owned(),
            from: self.head.next(),
            to: last,
        })
    }

    fn check_order(&self, topic: &str, seq: Seq, first: Seq) -> Result<(), AccountError> {
        if seq >= first {
            return Ok(());
        }
        Err(AccountError::OutOfOrder {
            topic: topic.to_owned(),
            seq,
            head: self.head,
        })
    }

    /// Takes an event in; returns how many it replaced.
    pub(super) fn event(
        &mut self,
        topic: &str,
        event: &EventRef<'_>,
        rules: Rules,
    ) -> Result<u64, AccountError> {
        let before = event.seq.previous();
        self.check_order(topic, event.seq, self.head.next())?;
        self.check_jump(topic, before, rules)?;
        self.see_bar(topic, event, rules)?;
        let jumped = before.since(self.head);
        self.merged = self.merged.saturating_add(jumped);
        self.delivered = self.delivered.saturating_add(1);
        self.advance(event.seq);
        Ok(jumped)
    }

    /// Takes a gap in; returns how many events before it were merged.
    pub(super) fn gap(
        &mut self,
        topic: &str,
        (from, to): (Seq, Seq),
        rules: Rules,
    ) -> Result<u64, AccountError> {
        let before = from.previous();
        self.check_order(topic, from, self.head.next())?;
        self.check_jump(topic, before, rules)?;
        let jumped = before.since(self.head);
        self.merged = self.merged.saturating_add(jumped);
        self.lost = self.lost.saturating_add(to.since(before));
        self.advance(to);
        self.after_gap = true;
        if to >= from {
            // A gap of the source leaves out no bar of the server.
            self.bar = LastBar::Unknown;
        }
        Ok(jumped)
    }

    /// Takes a snapshot in; returns how many events it replaced.
    pub(super) fn snapshot(
        &mut self,
        topic: &str,
        epoch: &str,
        (seq, events): (Seq, &[DataEvent]),
        rules: Rules,
    ) -> Result<u64, AccountError> {
        self.check_contents(topic, seq, events)?;
        if self.epoch != epoch {
            self.begin_epoch(topic, epoch, seq)?;
            if let Some(last) = events.last() {
                self.see_bar(topic, &last.into(), rules)?;
            }
            return Ok(0);
        }
        self.check_order(topic, seq, self.head)?;
        let is_announced = self
            .acknowledged
            .iter()
            .any(|position| position.seq == seq && position.epoch == epoch);
        let ends_gap = self.after_gap && seq == self.head;
        if !(is_announced || ends_gap) {
            return Err(AccountError::UnexpectedSnapshot {
                topic: topic.to_owned(),
                seq,
            });
        }
        self.check_jump(topic, seq, rules)?;
        if events
            .iter()
            .any(|event| event.seq > self.head && is_done(event))
        {
            return Err(AccountError::MissingClosedBar {
                topic: topic.to_owned(),
                seq,
            });
        }
        if let Some(last) = events.last() {
            self.see_bar(topic, &last.into(), rules)?;
        }
        let jumped = seq.since(self.head);
        self.merged = self.merged.saturating_add(jumped);
        self.advance(seq);
        Ok(jumped)
    }

    fn begin_epoch(&mut self, topic: &str, epoch: &str, seq: Seq) -> Result<(), AccountError> {
        if self.previous_epoch.as_deref() == Some(epoch) {
            return Err(AccountError::Epoch {
                topic: topic.to_owned(),
                epoch: epoch.to_owned(),
            });
        }
        self.previous_epoch = Some(std::mem::replace(&mut self.epoch, epoch.to_owned()));
        (self.start, self.head) = (seq, seq);
        (self.delivered, self.merged, self.lost) = (0, 0, 0);
        // Acknowledgements come in the order of epochs.
        let known = self
            .acknowledged
            .iter()
            .position(|position| position.epoch == epoch);
        self.acknowledged.drain(..known.unwrap_or(0));
        let ended = self.previous_epoch.as_deref();
        self.acknowledged
            .retain(|position| Some(position.epoch.as_str()) != ended);
        (self.after_gap, self.bar) = (false, LastBar::Unknown);
        Ok(())
    }

    /// A snapshot shows the state at its `seq`: the newest event has that number, trades are
    /// consecutive.
    fn check_contents(
        &self,
        topic: &str,
        seq: Seq,
        events: &[DataEvent],
    ) -> Result<(), AccountError> {
        let is_complete = match self.channel.map(Channel::kind) {
            None => true,
            Some(Kind::Event) => {
                let numbers = events.iter().rev().map(|event| event.seq);
                numbers.eq((1..=seq.0).rev().map(Seq).take(events.len()))
            }
            Some(Kind::State | Kind::Bar) => events.last().is_none_or(|last| last.seq == seq),
        };
        if is_complete && (seq == Seq::START || !events.is_empty()) {
            return Ok(());
        }
        Err(AccountError::SnapshotContents {
            topic: topic.to_owned(),
            seq,
        })
    }

    /// Bars follow one another only once the one before is `done`; `event` is the newest that was
    /// received.
    fn see_bar(
        &mut self,
        topic: &str,
        event: &EventRef<'_>,
        rules: Rules,
    ) -> Result<(), AccountError> {
        let (Some((bar_start, is_done)), Some(Channel::Bar(interval))) = (event.bar, self.channel)
        else {
            return Ok(());
        };
        let after = |start: UnixNanos, length: Duration| bar_start > start.plus(length);
        let is_missing = match self.bar {
            LastBar::Unknown => false,
            LastBar::Open(start) => after(start, Duration::ZERO),
            LastBar::Closed(start) => rules.every_bar && after(start, interval.span()),
        };
        if is_missing {
            return Err(AccountError::MissingClosedBar {
                topic: topic.to_owned(),
                seq: event.seq,
            });
        }
        self.bar = if is_done {
            LastBar::Closed(bar_start)
        } else {
            LastBar::Open(bar_start)
        };
        Ok(())
    }

    fn advance(&mut self, head: Seq) {
        self.head = head;
        self.after_gap = false;
        if !self.acknowledged.is_empty() {
            let epoch = &self.epoch;
            self.acknowledged
                .retain(|position| position.epoch != *epoch || position.seq >= head);
        }
    }

    /// The newest number that an acknowledgement named in the account's epoch.
    pub(super) fn newest_known(&self) -> Seq {
        let known = self
            .acknowledged
            .iter()
            .filter(|position| position.epoch == self.epoch);
        known
            .map(|position| position.seq)
            .max()
            .unwrap_or(self.head)
    }
}

fn is_done(event: &DataEvent) -> bool {
    matches!(&event.body, Body::Bar(bar) if bar.done)
}
