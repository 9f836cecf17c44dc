//! Messages of a server, and what they do to the state of a connection.

use super::super::request::{chunks, part_of};
use super::{ConnectionError, LoadConnection, Phase, Turn};
use crate::codec::{decode_server_message, visit_events};
use crate::load::recorder::{Recorder, TestSettings, add_failure};
use crate::market::UnixNanos;
use crate::protocol::{
    Control, Encoding, LagLevel, LedgerEntry, OnSlow, Op, ResumeFrom, ServerMessage, Subscribe,
    Subscribed,
};

impl LoadConnection {
    pub(super) fn on_message(
        &mut self,
        payload: &[u8],
        now: UnixNanos,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) -> Result<Turn, ConnectionError> {
        let events = match &mut self.probe {
            Some(probe) => visit_events(payload, settings.encoding, |event| {
                probe.take_event(&event, now, settings, recorder);
            })?,
            None => count_json(payload, settings.encoding),
        };
        if let Some(events) = events {
            self.delivered += events;
            recorder.tally.delivered += events;
            return Ok(Turn::On);
        }
        let message = decode_server_message(payload, settings.encoding)?;
        if let Some(probe) = &mut self.probe {
            probe.take_control(&message, settings, recorder);
        }
        match message {
            // Counters skip the arrays of MessagePack, unless they come in several frames.
            ServerMessage::Events(events) => {
                self.delivered += events.len() as u64;
                recorder.tally.delivered += events.len() as u64;
                Ok(Turn::On)
            }
            ServerMessage::Control(control) => Ok(self.on_control(control, settings, recorder)),
        }
    }

    fn on_control(
        &mut self,
        control: Control,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) -> Turn {
        if self.take_token_message(&control) {
            return Turn::On;
        }
        match control {
            Control::Welcome(welcome) => {
                self.epoch = welcome.epoch;
                self.subscribe(settings);
            }
            Control::Subscribed(answer) => return self.on_subscribed(&answer, recorder),
            Control::Gap(gap) => {
                recorder.tally.gaps += 1;
                recorder.tally.lost += gap.n;
            }
            Control::Lag(lag) => {
                recorder.tally.degraded += u64::from(lag.level == LagLevel::Degraded);
            }
            Control::Heartbeat(heartbeat) if heartbeat.delivered != self.delivered => {
                let counted = self.delivered;
                self.fail(
                    recorder,
                    &format!(
                        "the heartbeat counts {} delivered events, but {counted} were received",
                        heartbeat.delivered
                    ),
                );
                self.delivered = heartbeat.delivered;
            }
            Control::Ledger(answer) => return self.on_ledger(answer.topics, answer.more, recorder),
            Control::Error(error) => self.fail(
                recorder,
                &format!(
                    "the server reported error {} {}: {}",
                    error.code, error.name, error.message
                ),
            ),
            _ => {}
        }
        Turn::On
    }

    fn on_subscribed(&mut self, answer: &Subscribed, recorder: &mut Recorder<'_>) -> Turn {
        for refused in &answer.err {
            recorder.tally.refused += 1;
            self.fail(
                recorder,
                &format!(
                    "{} rejected with {}: {}",
                    refused.topic, refused.code, refused.message
                ),
            );
        }
        for entry in answer.ok.iter().flat_map(|entry| {
            entry
                .matched
                .as_deref()
                .unwrap_or(std::slice::from_ref(entry))
        }) {
            match entry.recovered {
                Some(true) => recorder.tally.recovered += 1,
                Some(false) => recorder.tally.expired += 1,
                None => {}
            }
        }
        let Phase::Joining(left) = &mut self.phase else {
            return Turn::On;
        };
        if answer.more {
            return Turn::On;
        }
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Turn::On;
        }
        self.phase = Phase::Open;
        Turn::Joined
    }

    fn on_ledger(
        &mut self,
        topics: Vec<LedgerEntry>,
        more: bool,
        recorder: &mut Recorder<'_>,
    ) -> Turn {
        let Phase::Closing(entries) = &mut self.phase else {
            return Turn::On;
        };
        entries.extend(topics);
        if more {
            return Turn::On;
        }
        let entries = std::mem::take(entries);
        for entry in &entries {
            let published = entry.head.since(entry.start);
            let accounted = entry.delivered + entry.merged + entry.lost;
            if published != accounted {
                self.fail(
                    recorder,
                    &format!(
                        "{}: the server's ledger does not balance: head − start is {published}, delivered + merged + lost is {accounted}",
                        entry.topic
                    ),
                );
            }
        }
        let seqs = entries
            .iter()
            .map(|entry| ((&entry.topic).into(), entry.head))
            .collect();
        let other = entries.iter().filter(|entry| entry.epoch != self.epoch);
        let epochs = other
            .map(|entry| ((&entry.topic).into(), (&entry.epoch).into()))
            .collect();
        self.from = Some(ResumeFrom {
            epoch: self.epoch.clone(),
            seqs,
            epochs,
        });
        self.phase = Phase::Closing(entries);
        Turn::Ledger
    }

    fn fail(&self, recorder: &mut Recorder<'_>, what: &str) {
        add_failure(
            recorder.failures,
            format!("connection {}: {what}", self.assignment.number),
        );
    }

    fn subscribe(&mut self, settings: &TestSettings) {
        let mut requests = 0;
        // Trades are never conflated, so they are always requested raw.
        let (trades, states): (Vec<_>, Vec<_>) = self
            .assignment
            .topics
            .iter()
            .cloned()
            .partition(|topic| topic.starts_with("trade:"));
        for (topics, is_trade) in [(trades, true), (states, false)] {
            let mut wish = self.assignment.wish;
            if is_trade {
                (wish.mode, wish.interval_ms) = (None, None);
                wish.on_slow = wish.on_slow.filter(|on_slow| *on_slow != OnSlow::Conflate);
            }
            for topics in chunks(topics) {
                let from = self.from.as_ref().map(|from| part_of(from, &topics));
                requests += 1;
                let op = Op::Subscribe(Subscribe {
                    topics: topics.iter().map(Into::into).collect(),
                    wish,
                    from,
                    ..Subscribe::default()
                });
                self.ask(op, requests, settings.encoding);
            }
        }
        if let (Some(probe), Some(from)) = (&mut self.probe, &self.from) {
            probe.resume(from);
        }
        self.phase = Phase::Joining(requests as usize);
    }
}

/// Number of events in a JSON array: each begins with its channel, and no text in an event can hold
/// a bare quote.
fn count_json(payload: &[u8], encoding: Encoding) -> Option<u64> {
    if encoding != Encoding::Json || payload.first() != Some(&b'[') {
        return None;
    }
    Some(memchr::memmem::find_iter(payload, b"{\"ch\":\"").count() as u64)
}
