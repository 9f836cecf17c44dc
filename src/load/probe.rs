//! Probe: a connection that decodes everything, measures latencies and keeps its own ledger.

use hdrhistogram::Histogram;

use super::recorder::{Recorder, TestSettings, add_failure};
use crate::client::{AccountError, Accounts};
use crate::codec::EventRef;
use crate::market::UnixNanos;
use crate::protocol::{Control, ResumeFrom, Seq, ServerMessage};
use crate::topic::Channel;

/// State of a probe.
#[derive(Debug, Default)]
pub(super) struct Probe {
    accounts: Accounts,
    /// Resume positions of topics with their epochs; passed to the accounts once the topics are
    /// subscribed.
    resumed: Vec<(String, Seq, String)>,
    /// True after the first broken guarantee; its consequences are not reported again.
    is_broken: bool,
}

/// Records how long before `now` something was, by the server's clock. A time in the future is
/// counted in `negative` and not recorded: as the shortest latency it would pass every objective.
pub(super) fn record(
    into: &mut Histogram<u64>,
    since: u64,
    now: UnixNanos,
    settings: &TestSettings,
    negative: &mut u64,
) {
    let now = now.0.saturating_add_signed(settings.clock_offset_ns);
    match now.checked_sub(since) {
        Some(latency) => into.saturating_record(latency.max(1)),
        None => *negative += 1,
    }
}

impl Probe {
    pub(super) fn resume(&mut self, from: &ResumeFrom) {
        let epoch_of = |topic: &str| {
            from.epochs
                .iter()
                .find(|(other, _)| other == topic)
                .map_or(from.epoch.as_str(), |(_, epoch)| epoch)
        };
        self.resumed = from
            .seqs
            .iter()
            .map(|(topic, seq)| (topic.to_string(), *seq, epoch_of(topic).to_owned()))
            .collect();
    }

    pub(super) fn take_event(
        &mut self,
        event: &EventRef<'_>,
        now: UnixNanos,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) {
        if recorder.measures {
            measure(event, now, settings, recorder);
        }
        if self.is_broken || !settings.ledger {
            return;
        }
        let taken = self.accounts.take_event(event);
        self.check(taken, recorder);
    }

    pub(super) fn take_control(
        &mut self,
        message: &ServerMessage,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) {
        if self.is_broken || !settings.ledger {
            return;
        }
        let taken = self.accounts.take(message);
        self.check(taken, recorder);
        if let ServerMessage::Control(Control::Subscribed(_)) = message {
            let accounts = &mut self.accounts;
            self.resumed
                .retain(|(topic, seq, epoch)| match accounts.get(topic) {
                    None => true,
                    // The account of another epoch begins at the position of the response.
                    Some(account) if account.epoch != *epoch => false,
                    Some(_) => {
                        accounts.resume(topic, *seq);
                        false
                    }
                });
        }
    }

    fn check(&mut self, taken: Result<(), AccountError>, recorder: &mut Recorder<'_>) {
        if let Err(error) = taken {
            self.is_broken = true;
            add_failure(recorder.failures, format!("protocol violation: {error}"));
        }
    }
}

fn measure(
    event: &EventRef<'_>,
    now: UnixNanos,
    settings: &TestSettings,
    recorder: &mut Recorder<'_>,
) {
    record(
        &mut recorder.latency.published,
        event.tx.0,
        now,
        settings,
        &mut recorder.tally.negative,
    );
    // Derived events have no due time.
    if settings.due_is_known && matches!(event.channel, Channel::Trade | Channel::Quote) {
        let due = event.ts;
        record(
            &mut recorder.latency.due,
            due.0,
            now,
            settings,
            &mut recorder.tally.negative,
        );
        recorder
            .latency
            .lag
            .saturating_record(event.tx.since(due).as_nanos().max(1) as u64);
    }
}
