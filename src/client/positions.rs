//! Resume positions: the last sequence number that a client received of each topic.

use std::collections::HashMap;

use crate::protocol::{Control, Entry, ResumeFrom, Seq, ServerMessage};

/// Resume position of each topic, kept from the messages that a client receives; after a
/// disconnect, [`resume_from`](Self::resume_from) is the `from` of the next `subscribe`.
///
/// ```
/// use tickcast::client::{Positions, decode_server_message};
/// use tickcast::protocol::{Encoding, Seq};
///
/// let mut positions = Positions::default();
/// let snapshot = br#"{"op":"snapshot","topic":"trade:A","epoch":"e1","seq":7,"events":[]}"#;
/// positions.take(&decode_server_message(snapshot, Encoding::Json)?);
/// let from = positions.resume_from().expect("one topic has a position");
/// assert_eq!(from.seqs, [("trade:A".into(), Seq(7))]);
/// # Ok::<(), tickcast::client::DecodeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Positions {
    /// The epoch of the server's `welcome`.
    epoch: String,
    topics: HashMap<String, Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: String,
    seq: Seq,
}

impl Positions {
    /// Updates the positions by a received message.
    pub fn take(&mut self, message: &ServerMessage) {
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    if let Some(position) = self.topics.get_mut(&event.topic.to_string()) {
                        position.seq = event.seq;
                    }
                }
            }
            ServerMessage::Control(control) => self.take_control(control),
        }
    }

    fn take_control(&mut self, control: &Control) {
        match control {
            Control::Welcome(welcome) => self.epoch.clone_from(&welcome.epoch),
            Control::Subscribed(answer) => self.take_entries(&answer.ok),
            Control::Topics(change) => {
                self.take_entries(&change.added);
                for refusal in &change.removed {
                    self.topics.remove(&refusal.topic);
                }
            }
            Control::Unsubscribed(answer) => {
                for topic in &answer.topics {
                    self.topics.remove(topic);
                }
            }
            Control::Snapshot(snapshot) => {
                self.set(&snapshot.topic, &snapshot.epoch, snapshot.seq);
            }
            Control::Gap(gap) => self.set(&gap.topic, &gap.epoch, gap.to),
            _ => {}
        }
    }

    fn take_entries(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(matched) = &entry.matched {
                self.take_entries(matched);
            }
            let (Some(epoch), Some(seq)) = (&entry.epoch, entry.seq) else {
                continue;
            };
            // The missed events of a recovered topic are still to come.
            let known = self.topics.get(&entry.topic);
            if known.is_none_or(|known| known.epoch != *epoch) {
                self.set(&entry.topic, epoch, seq);
            }
        }
    }

    fn set(&mut self, topic: &str, epoch: &str, seq: Seq) {
        let position = Position {
            epoch: epoch.to_owned(),
            seq,
        };
        self.topics.insert(topic.to_owned(), position);
    }

    /// `from` of a `subscribe` that resumes at these positions; `None` without positions.
    pub fn resume_from(&self) -> Option<ResumeFrom> {
        if self.topics.is_empty() {
            return None;
        }
        let mut seqs: Vec<_> = self
            .topics
            .iter()
            .map(|(topic, position)| (topic.into(), position.seq))
            .collect();
        seqs.sort_unstable();
        let mut epochs: Vec<_> = self
            .topics
            .iter()
            .filter(|(_, position)| position.epoch != self.epoch)
            .map(|(topic, position)| (topic.into(), (&position.epoch).into()))
            .collect();
        epochs.sort_unstable();
        Some(ResumeFrom {
            epoch: self.epoch.clone(),
            seqs,
            epochs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::decode_server_message;
    use crate::protocol::Encoding;

    fn take(positions: &mut Positions, text: &str) {
        let message =
            decode_server_message(text.as_bytes(), Encoding::Json).expect("valid message");
        positions.take(&message);
    }

    const SUBSCRIBED: &str = r#"{"op":"subscribed","id":1,"ok":[{"topic":"trade:*","mode":"raw","on_slow":"gap","matched":[
        {"topic":"trade:A","epoch":"e1","mode":"raw","on_slow":"gap","seq":5},
        {"topic":"trade:B","epoch":"e2","mode":"raw","on_slow":"gap","seq":9}]}],"err":[],"count":2}"#;

    #[test]
    fn positions_follow_events_snapshots_and_gaps() {
        let mut positions = Positions::default();
        assert_eq!(positions.resume_from(), None);
        take(
            &mut positions,
            r#"{"op":"welcome","server":"s","session":"x","epoch":"e1","ts":1,"encoding":"json","heartbeat_ms":1000,"limits":{"topics":1,"requests_per_s":1,"message_bytes":1,"snapshot_events":1},"auth":"none"}"#,
        );
        take(&mut positions, SUBSCRIBED);
        take(
            &mut positions,
            r#"[{"ch":"trade","sym":"A","seq":6,"ts":1,"tx":1,"px":"1","qty":"1","side":"buy"}]"#,
        );
        take(
            &mut positions,
            r#"{"op":"gap","topic":"trade:B","epoch":"e2","from":10,"to":12,"n":3,"cause":"slow"}"#,
        );
        let from = positions.resume_from().expect("positions of two topics");
        assert_eq!(
            from.seqs,
            [("trade:A".into(), Seq(6)), ("trade:B".into(), Seq(12))]
        );
        assert_eq!(from.epochs, [("trade:B".into(), "e2".into())]);
        // An answer to a resume names the head; the missed events are still to come.
        take(
            &mut positions,
            &SUBSCRIBED.replace("\"seq\":5", "\"seq\":50"),
        );
        let from = positions.resume_from().expect("positions of two topics");
        assert_eq!(from.seqs[0], ("trade:A".into(), Seq(6)));
        take(
            &mut positions,
            r#"{"op":"topics","added":[],"removed":[{"topic":"trade:A","code":412,"message":"gone"}],"err":[]}"#,
        );
        assert_eq!(
            positions
                .resume_from()
                .expect("position of one topic")
                .seqs
                .len(),
            1
        );
    }
}
