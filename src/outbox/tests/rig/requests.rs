//! The rig's client: requests, their actions, and reconnects.

use std::sync::Arc;

use compact_str::CompactString;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};

use super::{LIMITS, Rig};
use crate::access::Principal;
use crate::client::Accounts;
use crate::codec::encode_request;
use crate::log::TopicId;
use crate::outbox::Outbox;
use crate::protocol::{Id, Op, Request, ResumeFrom, Seq, Subscribe};
use crate::session::{Action, Join, Session};

impl Rig {
    pub(in crate::outbox::tests) fn request(&mut self, op: Op) {
        let payload = encode_request(
            &Request {
                id: Some(Id::Number(1)),
                op,
            },
            self.encoding,
        );
        let mut payload = Some(payload);
        while payload.is_some() || self.session.is_busy() {
            let view = crate::session::View {
                replica: &self.replica,
                principal: &Principal::Everyone,
                held: &self.outbox,
                now: self.now,
            };
            let actions = match payload.take() {
                Some(payload) => self.session.on_request(&payload, self.encoding, view),
                None => self.session.go_on(view),
            };
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Respond(control) => self.outbox.respond(control),
            Action::Subscribe(topic, settings, join) => {
                if !matches!(join, Join::Live | Join::Resume(_)) {
                    self.announce(topic);
                }
                _ = self.with_view(|outbox, view| outbox.subscribe(topic, settings, join, view));
            }
            Action::Modify(topic, settings) => self.with_view(|outbox, view| {
                let slot = outbox.slot_of(topic).expect("a held topic is set");
                outbox.modify(slot, settings, view);
            }),
            Action::Snapshot(topic, events) => {
                self.announce(topic);
                self.with_view(|outbox, view| {
                    let slot = outbox.slot_of(topic).expect("a held topic is snapshot");
                    outbox.snapshot(slot, events, view);
                });
            }
            Action::LimitMessages(bytes) => self.outbox.frames.limit_messages(bytes),
            Action::Unsubscribe(topic) => {
                let text = self.text(topic);
                self.truth.snapshots.retain(|(topic, ..)| *topic != text);
                self.outbox.unsubscribe(topic);
            }
            Action::Ledger(id) => self.outbox.respond_ledger(id),
            other => unreachable!("not asked for: {other:?}"),
        }
    }

    fn announce(&mut self, topic: TopicId) {
        let epoch = self.replica.epoch(topic).to_string();
        let place = (self.text(topic), epoch, self.replica.head(topic));
        self.truth.snapshots.push(place);
    }

    /// The connection breaks off wherever it is; the next one asks to go on from what was received.
    pub(in crate::outbox::tests) fn reconnect(&mut self, room: usize) {
        self.resumed = self
            .accounts
            .iter()
            .map(|(topic, own)| (topic.clone(), own.head, own.epoch.clone()))
            .collect();
        self.resumed.sort();
        let from = ResumeFrom {
            epoch: String::new(),
            seqs: self
                .resumed
                .iter()
                .map(|(topic, seq, _)| (topic.into(), *seq))
                .collect(),
            epochs: self
                .resumed
                .iter()
                .map(|(topic, _, epoch)| (topic.into(), epoch.into()))
                .collect(),
        };
        self.outbox = Outbox::new(self.encoding, 2000);
        self.session = Session::new(Arc::new(LIMITS), self.now);
        self.context = WebSocketContext::new(Role::Client, None);
        (self.accounts, self.received) = (Accounts::with_every_bar(), Vec::new());
        self.room = room;
        self.timers.clear();
        self.pongs.clear();
        self.truth.snapshots.clear();
        let positions = self.resumed.iter();
        let positions = positions.map(|(topic, seq, _)| (topic.clone(), *seq));
        self.truth.repeatable.extend(positions);
        self.request(Op::Subscribe(Subscribe {
            topics: self.resumed_topics(),
            from: Some(from),
            ..Subscribe::default()
        }));
    }

    /// The next connection resumes a topic from this place.
    pub(in crate::outbox::tests) fn resume_from(&mut self, topic: &str, seq: Seq, epoch: &str) {
        self.resumed = vec![(topic.to_owned(), seq, epoch.to_owned())];
        self.truth.repeatable.push((topic.to_owned(), seq));
    }

    /// Topics that the last connection resumed.
    pub(in crate::outbox::tests) fn resumed_topics(&self) -> Vec<CompactString> {
        self.resumed
            .iter()
            .map(|(topic, ..)| topic.into())
            .collect()
    }
}
