//! Random operations: what a market, a client, its socket and a shard may do, in any order.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Mode;
use super::rig::{Rig, TOPICS};
use crate::protocol::{DeliveryWish, OnSlow, Op, SnapshotWish, Subscribe, TopicsAsked};

const NAMES: [&str; 7] = [
    "trade:A", "quote:A", "bar:A:1s", "trade:B", "quote:B", "quote:*", "bar:*:1s",
];
const MODES: [Mode; 3] = [Mode::Raw, Mode::Conflate, Mode::Interval(10)];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Publish {
        topic: usize,
        events: u8,
        closes: bool,
    },
    Flush,
    Unblock {
        room: usize,
    },
    Tick {
        ms: u16,
    },
    /// The client's answers to pings arrive.
    Pong,
    Subscribe {
        name: usize,
        mode: usize,
        on_slow: Option<OnSlow>,
        snapshot: Option<bool>,
    },
    Unsubscribe {
        name: usize,
    },
    Modify {
        name: usize,
        mode: usize,
        on_slow: Option<OnSlow>,
    },
    Resync {
        name: usize,
    },
    Subscriptions,
    Ledger,
    Heartbeat,
    Epoch {
        topic: usize,
    },
    /// The source missed an event.
    Missed {
        topic: usize,
    },
    /// The shard sees nothing of some events, and of epochs that begin among them.
    Overrun {
        events: u8,
        epochs: u8,
    },
    /// The connection breaks off; the next one resumes, and sends more requests at once.
    Reconnect {
        room: usize,
        modify: Option<usize>,
        resyncs: u8,
        published: u8,
    },
}

fn on_slow() -> impl Strategy<Value = Option<OnSlow>> {
    prop_oneof![
        Just(None),
        Just(Some(OnSlow::Conflate)),
        Just(Some(OnSlow::Gap))
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (names, modes) = (0..NAMES.len(), 0..MODES.len());
    prop_oneof![
        20 => (0..TOPICS.len(), 1u8..40, any::<bool>())
            .prop_map(|(topic, events, closes)| Step::Publish { topic, events, closes }),
        8 => Just(Step::Flush),
        8 => (0usize..6000).prop_map(|room| Step::Unblock { room }),
        5 => (1u16..400).prop_map(|ms| Step::Tick { ms }),
        4 => Just(Step::Pong),
        6 => (names.clone(), modes.clone(), on_slow(), any::<Option<bool>>()).prop_map(
            |(name, mode, on_slow, snapshot)| Step::Subscribe { name, mode, on_slow, snapshot }
        ),
        1 => names.clone().prop_map(|name| Step::Unsubscribe { name }),
        3 => (names.clone(), modes.clone(), on_slow())
            .prop_map(|(name, mode, on_slow)| Step::Modify { name, mode, on_slow }),
        3 => names.prop_map(|name| Step::Resync { name }),
        1 => Just(Step::Subscriptions),
        2 => Just(Step::Ledger),
        1 => Just(Step::Heartbeat),
        2 => (0..TOPICS.len()).prop_map(|topic| Step::Epoch { topic }),
        4 => (0..TOPICS.len()).prop_map(|topic| Step::Missed { topic }),
        2 => (1u8..80, 0u8..3).prop_map(|(events, epochs)| Step::Overrun { events, epochs }),
        2 => (
            prop_oneof![Just(usize::MAX), 0usize..8000],
            proptest::option::of(modes),
            0u8..3,
            0u8..30,
        )
            .prop_map(|(room, modify, resyncs, published)| Step::Reconnect {
                room,
                modify,
                resyncs,
                published
            }),
    ]
}

fn wish(mode: usize, on_slow: Option<OnSlow>) -> DeliveryWish {
    DeliveryWish {
        mode: Some(MODES[mode]),
        interval_ms: MODES[mode].interval_ms(),
        on_slow,
    }
}

fn subscribe(
    name: usize,
    mode: usize,
    on_slow: Option<OnSlow>,
    snapshot: Option<bool>,
) -> Subscribe {
    let snapshot = snapshot.map(|yes| {
        if yes {
            SnapshotWish::Yes
        } else {
            SnapshotWish::No
        }
    });
    Subscribe {
        topics: vec![NAMES[name].into()],
        wish: wish(mode, on_slow),
        snapshot,
        ..Subscribe::default()
    }
}

impl Rig {
    pub(super) fn run(&mut self, step: &Step) {
        let named = |name: usize| vec![NAMES[name].into()];
        match *step {
            Step::Publish {
                topic,
                events,
                closes,
            } => {
                self.publish_some(topic, events, closes);
                self.flush();
            }
            Step::Flush => self.flush(),
            Step::Unblock { room } => self.unblock(room),
            Step::Tick { ms } => self.tick(Duration::from_millis(ms.into())),
            Step::Pong => self.pong(),
            Step::Subscribe {
                name,
                mode,
                on_slow,
                snapshot,
            } => self.request(Op::Subscribe(subscribe(name, mode, on_slow, snapshot))),
            Step::Unsubscribe { name } => {
                self.request(Op::Unsubscribe(TopicsAsked::These(named(name))));
            }
            Step::Modify {
                name,
                mode,
                on_slow,
            } => self.request(Op::Modify {
                topics: named(name),
                wish: wish(mode, on_slow),
            }),
            Step::Resync { name } => self.request(Op::Resync {
                topics: named(name),
            }),
            Step::Subscriptions => self.request(Op::Subscriptions),
            Step::Ledger => self.request(Op::Ledger),
            Step::Heartbeat => self.outbox.heartbeat(),
            Step::Epoch { topic } => self.new_epoch(TOPICS[topic], true),
            Step::Missed { topic } => {
                let topic = self.topic(TOPICS[topic]);
                self.miss(topic, true);
            }
            Step::Overrun { events, epochs } => self.overrun(events, epochs),
            Step::Reconnect {
                room,
                modify,
                resyncs,
                published,
            } => {
                self.reconnect(room);
                self.pipeline(modify, resyncs, published);
            }
        }
    }

    fn publish_some(&mut self, topic: usize, events: u8, closes: bool) {
        let topic = self.topic(TOPICS[topic]);
        for at in 0..events {
            self.publish(topic, closes && at % 5 == 4, true);
        }
    }

    fn overrun(&mut self, events: u8, epochs: u8) {
        self.flush();
        for epoch in 0..=epochs {
            for at in 0..events / (epochs + 1) {
                let topic = self.topic(TOPICS[at as usize % TOPICS.len()]);
                self.publish(topic, at % 7 == 6, false);
                if at % 9 == 8 {
                    self.miss(topic, false);
                }
            }
            if epoch < epochs {
                for topic in TOPICS {
                    self.new_epoch(topic, false);
                }
            }
        }
        self.restore();
        self.flush();
    }

    /// Requests behind a resume, before any of it is sent, while the market goes on.
    fn pipeline(&mut self, modify: Option<usize>, resyncs: u8, published: u8) {
        if let Some(mode) = modify {
            for topic in self.resumed_topics() {
                self.request(Op::Modify {
                    topics: vec![topic],
                    wish: wish(mode, None),
                });
            }
        }
        for _ in 0..resyncs {
            self.request(Op::Resync {
                topics: self.resumed_topics(),
            });
            for topic in 0..TOPICS.len() {
                self.publish_some(topic, published, true);
            }
        }
        self.flush();
    }
}
