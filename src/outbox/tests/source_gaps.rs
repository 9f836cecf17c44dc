//! Gaps of the source in the stream of one client: their place, whatever the client's mode, and in
//! whichever way it receives the events around them.

use super::rig::Rig;
use crate::protocol::{
    Control, DeliveryWish, Encoding, Gap, GapCause, Mode, OnSlow, Op, ResumeFrom, Seq,
    ServerMessage, Subscribe,
};

fn subscribe(topic: &str, mode: Mode, from: Option<ResumeFrom>) -> Op {
    Op::Subscribe(Subscribe {
        topics: vec![topic.into()],
        wish: DeliveryWish {
            mode: Some(mode),
            interval_ms: mode.interval_ms(),
            on_slow: (topic != "trade:A").then_some(OnSlow::Conflate),
        },
        from,
        ..Subscribe::default()
    })
}

fn publish(rig: &mut Rig, topic: &str, events: usize) {
    let topic = rig.topic(topic);
    for _ in 0..events {
        rig.publish(topic, false, true);
    }
}

fn miss(rig: &mut Rig, topic: &str) {
    let topic = rig.topic(topic);
    rig.miss(topic, true);
}

/// Numbers of events and positions of source gaps, in the order of receipt.
fn received(rig: &Rig, topic: &str) -> Vec<(char, u64)> {
    let mut all = Vec::new();
    for message in &rig.seen {
        match message {
            ServerMessage::Events(events) => {
                let of_topic = events
                    .iter()
                    .filter(|event| event.topic.to_string() == topic);
                all.extend(of_topic.map(|event| ('e', event.seq.0)));
            }
            ServerMessage::Control(Control::Gap(gap)) if gap.topic == topic => {
                assert_eq!((gap.cause, gap.n), (GapCause::Source, 0), "{gap:?}");
                assert_eq!(gap.from, gap.to.next());
                all.push(('g', gap.to.0));
            }
            _ => {}
        }
    }
    all
}

fn settled(mut rig: Rig) -> Rig {
    rig.settle();
    assert_eq!(rig.failed, None);
    rig
}

#[test]
fn source_gaps_keep_their_place_in_every_mode() {
    for blocked in [false, true] {
        for topic in ["trade:A", "quote:A", "bar:A:1s"] {
            for mode in [Mode::Raw, Mode::Conflate, Mode::Interval(10)] {
                if topic == "trade:A" && mode != Mode::Raw {
                    continue;
                }
                let mut rig = Rig::new(Encoding::Msgpack);
                rig.request(subscribe(topic, mode, None));
                rig.flush();
                if blocked {
                    rig.room = 0;
                    rig.outbox.heartbeat();
                    rig.flush();
                }
                publish(&mut rig, topic, 3);
                miss(&mut rig, topic);
                publish(&mut rig, topic, 2);
                let rig = settled(rig);
                let expected: &[(char, u64)] = if mode == Mode::Raw {
                    &[('e', 1), ('e', 2), ('e', 3), ('g', 3), ('e', 4), ('e', 5)]
                } else {
                    &[('g', 3), ('e', 5)]
                };
                assert_eq!(
                    received(&rig, topic),
                    expected,
                    "{topic} {mode:?} {blocked}"
                );
            }
        }
    }
}

#[test]
fn a_state_after_a_source_gap_is_sent_again() {
    let mut rig = Rig::new(Encoding::Json);
    rig.request(subscribe("quote:A", Mode::Conflate, None));
    publish(&mut rig, "quote:A", 1);
    rig.flush();
    miss(&mut rig, "quote:A");
    rig.flush();
    let Some(ServerMessage::Control(Control::Snapshot(last))) = rig.seen.last() else {
        unreachable!("the snapshot follows the gap");
    };
    assert_eq!(last.seq, Seq(1));
    settled(rig);
}

#[test]
fn a_resumed_client_receives_the_source_gaps_it_missed() {
    for (topic, mode) in [
        ("trade:A", Mode::Raw),
        ("quote:A", Mode::Raw),
        ("quote:A", Mode::Conflate),
    ] {
        let mut rig = Rig::new(Encoding::Json);
        rig.request(subscribe(topic, Mode::Raw, None));
        publish(&mut rig, topic, 2);
        let rig = {
            let mut rig = settled(rig);
            rig.request(Op::Unsubscribe(crate::protocol::TopicsAsked::All));
            rig.flush();
            rig
        };
        let mut rig = rig;
        miss(&mut rig, topic);
        publish(&mut rig, topic, 2);
        miss(&mut rig, topic);
        publish(&mut rig, topic, 1);
        rig.seen.clear();
        rig.accounts = crate::client::Accounts::default();
        let from = ResumeFrom {
            epoch: String::new(),
            seqs: vec![(topic.into(), Seq(2))],
            epochs: vec![(topic.into(), "0000000000000007".into())],
        };
        rig.resume_from(topic, Seq(2), "0000000000000007");
        rig.request(subscribe(topic, mode, Some(from)));
        rig.flush();
        let expected: &[(char, u64)] = if mode == Mode::Raw {
            &[('g', 2), ('e', 3), ('e', 4), ('g', 4), ('e', 5)]
        } else {
            &[('g', 2), ('g', 4), ('e', 5)]
        };
        assert_eq!(received(&rig, topic), expected, "{topic} {mode:?}");
        assert_eq!(rig.failed, None);
    }
}

#[test]
fn source_gaps_of_a_slow_client_take_bounded_memory() {
    let mut rig = Rig::new(Encoding::Json);
    rig.request(subscribe("trade:A", Mode::Raw, None));
    rig.request(subscribe("quote:A", Mode::Conflate, None));
    rig.flush();
    rig.room = 0;
    rig.outbox.heartbeat();
    rig.flush();
    for _ in 0..2_000 {
        for topic in ["trade:A", "quote:A"] {
            publish(&mut rig, topic, 1);
            miss(&mut rig, topic);
        }
        rig.flush();
        assert!(rig.outbox.queued_bytes() < 4 * rig.limits.outbox_bytes);
    }
    let rig = settled(rig);
    let sum = |topic: &str| -> u64 {
        let of_topic = |gap: &&Gap| gap.topic == topic && gap.cause == GapCause::Source;
        let gaps = rig.gaps.iter().filter(of_topic);
        gaps.filter_map(|gap| gap.missing).sum()
    };
    assert_eq!(sum("quote:A"), 2_000, "joined gaps keep their sum");
}
