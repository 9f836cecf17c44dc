//! Directed cases: each shows one promise at a place where it was once broken, or where random
//! operations seldom come.

use std::time::Duration;

use compact_str::CompactString;

use super::rig::{Rig, TOPICS};
use crate::log::CLOSED_BARS_KEPT;
use crate::outbox::Outbox;
use crate::protocol::{
    Control, DeliveryWish, Encoding, Gap, GapCause, LagLevel, Mode, OnSlow, Op, Seq, ServerMessage,
    SnapshotWish, Subscribe,
};

const BAR: &str = "bar:A:1s";
const TRADE: &str = "trade:A";

fn names(topics: &[&str]) -> Vec<CompactString> {
    topics.iter().map(|topic| (*topic).into()).collect()
}

fn in_mode(topics: &[&str], mode: Mode, on_slow: Option<OnSlow>) -> Op {
    Op::Subscribe(Subscribe {
        topics: names(topics),
        wish: DeliveryWish {
            mode: Some(mode),
            interval_ms: mode.interval_ms(),
            on_slow,
        },
        ..Subscribe::default()
    })
}

/// A client that holds topics and has received all there was.
fn holding(topics: &[&str], mode: Mode, on_slow: Option<OnSlow>) -> Rig {
    let mut rig = Rig::new(Encoding::Json);
    rig.request(in_mode(topics, mode, on_slow));
    rig.flush();
    rig
}

/// The socket takes nothing more.
fn block(rig: &mut Rig) {
    rig.room = 0;
    rig.outbox.heartbeat();
    rig.flush();
    assert!(rig.outbox.frames.blocked);
}

fn publish(rig: &mut Rig, topic: &str, events: usize) {
    let topic = rig.topic(topic);
    for _ in 0..events {
        rig.publish(topic, false, true);
    }
    rig.flush();
}

fn publish_unseen(rig: &mut Rig, topic: &str, events: usize) {
    let topic = rig.topic(topic);
    for _ in 0..events {
        rig.publish(topic, false, false);
    }
}

/// Bars of three events each.
fn publish_bars(rig: &mut Rig, bars: usize) {
    let topic = rig.topic(BAR);
    for at in 0..bars * 3 {
        rig.publish(topic, at % 3 == 2, true);
    }
    rig.flush();
}

fn settled(mut rig: Rig) -> Rig {
    rig.settle();
    assert_eq!(rig.failed, None);
    rig
}

#[test]
fn filling_a_frame_ends_where_the_client_must_read_first() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    block(&mut rig);
    publish(&mut rig, TRADE, 50);
    // The socket accepts bytes again, and the client has not read what was sent.
    rig.outbox.frames.blocked = false;
    for step in [0, 1] {
        rig.outbox.frames.hold_after(step);
        let before = rig.outbox.frames.len();
        rig.with_view(Outbox::fill_frame);
        assert!(rig.outbox.has_more());
        assert!(rig.outbox.frames.len() <= before + 1000);
    }
}

fn resync(topics: &[&str]) -> Op {
    Op::Resync {
        topics: names(topics),
    }
}

fn level(rig: &Rig) -> LagLevel {
    rig.outbox.level()
}

fn snapshots(rig: &Rig, name: &str) -> Vec<Seq> {
    let seqs = rig.seen.iter().filter_map(|message| match message {
        ServerMessage::Control(Control::Snapshot(snapshot)) if snapshot.topic == name => {
            Some(snapshot.seq)
        }
        _ => None,
    });
    seqs.collect()
}

#[test]
fn a_closed_bar_before_a_snapshot_is_delivered_to_a_slow_client() {
    for mode in [Mode::Raw, Mode::Conflate] {
        for again in [false, true] {
            let mut rig = holding(&[BAR, "quote:A"], mode, None);
            block(&mut rig);
            publish_bars(&mut rig, 3);
            rig.request(if again {
                Op::Subscribe(Subscribe {
                    topics: names(&[BAR]),
                    wish: DeliveryWish {
                        mode: Some(mode),
                        ..DeliveryWish::default()
                    },
                    snapshot: Some(SnapshotWish::Yes),
                    ..Subscribe::default()
                })
            } else {
                resync(&[BAR])
            });
            publish_bars(&mut rig, 2);
            // Raw quotes of another subscription fill the outbox until it is shed.
            rig.request(in_mode(&["quote:A"], Mode::Raw, None));
            publish(&mut rig, "quote:A", 200);
            assert_eq!(level(&rig), LagLevel::Degraded);
            let rig = settled(rig);
            let lost = rig.accounts.get(BAR).map(|own| own.lost);
            assert_eq!(lost, Some(0), "five bars are no reason for a gap");
        }
    }
}

#[test]
fn closed_bars_that_accumulate_before_snapshots_become_a_gap() {
    let mut rig = holding(&[BAR], Mode::Raw, None);
    block(&mut rig);
    for _ in 0..100 {
        publish_bars(&mut rig, 5);
        rig.request(resync(&[BAR]));
    }
    rig.flush();
    let asked = rig.outbox.asked_bytes();
    assert!(
        rig.outbox.queued_bytes() < asked + 3 * rig.limits.outbox_bytes,
        "{} bytes wait",
        rig.outbox.queued_bytes()
    );
    let rig = settled(rig);
    assert!(rig.gaps.iter().any(|gap| gap.cause == GapCause::Slow));
}

#[test]
fn evicted_closed_bars_become_a_gap() {
    let evicted = 5 * CLOSED_BARS_KEPT / 100;
    let lost = |gaps: &[Gap]| gaps.iter().map(|gap| gap.n).sum::<u64>();
    for becomes_raw in [false, true] {
        let mut rig = holding(&[BAR], Mode::Conflate, None);
        block(&mut rig);
        publish_bars(&mut rig, CLOSED_BARS_KEPT + evicted);
        if becomes_raw {
            // The pending bars are queued, as far as they are still there.
            rig.limits.outbox_bytes = 1 << 20;
            rig.request(Op::Modify {
                topics: names(&[BAR]),
                wish: DeliveryWish {
                    mode: Some(Mode::Raw),
                    ..DeliveryWish::default()
                },
            });
        }
        let rig = settled(rig);
        assert!(rig.gaps.iter().all(|gap| gap.cause == GapCause::Slow));
        assert_eq!(
            lost(&rig.gaps),
            3 * evicted as u64,
            "each bar has three events"
        );
    }
    let mut rig = holding(&[BAR], Mode::Conflate, None);
    publish_bars(&mut rig, 1);
    block(&mut rig);
    publish_bars(&mut rig, CLOSED_BARS_KEPT + evicted);
    rig.reconnect(usize::MAX);
    let rig = settled(rig);
    let causes: Vec<_> = rig.gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(causes, [GapCause::Expired], "too far behind to resume");
}

#[test]
fn a_resync_after_a_resume_is_answered_at_its_own_seq() {
    for mode in [None, Some(Mode::Raw), Some(Mode::Conflate)] {
        let topics = [TRADE, "quote:A", BAR];
        let mut rig = holding(&topics, Mode::Raw, None);
        for topic in topics {
            publish(&mut rig, topic, 40);
        }
        publish_bars(&mut rig, 1);
        let room = usize::MAX;
        rig.request(Op::Ledger);
        rig.flush();
        block(&mut rig);
        publish_bars(&mut rig, 4);
        publish(&mut rig, TRADE, 20);
        publish(&mut rig, "quote:A", 20);
        rig.reconnect(room);
        if let Some(mode) = mode {
            rig.request(Op::Modify {
                topics: names(&["quote:A", BAR]),
                wish: DeliveryWish {
                    mode: Some(mode),
                    ..DeliveryWish::default()
                },
            });
        }
        rig.seen.clear();
        let mut expected = Vec::new();
        for _ in 0..3 {
            rig.request(resync(&topics));
            expected.push(topics.map(|topic| rig.replica.head(rig.topic(topic))));
            let (trade, bar) = (rig.topic(TRADE), rig.topic(BAR));
            for at in 0..7 {
                rig.publish(trade, false, true);
                rig.publish(bar, at % 3 == 2, true);
            }
        }
        rig.flush();
        for (at, topic) in topics.iter().enumerate() {
            let seqs: Vec<_> = expected.iter().map(|heads| heads[at]).collect();
            assert_eq!(snapshots(&rig, topic), seqs, "{topic}, {mode:?}");
        }
        settled(rig);
    }
}

#[test]
fn a_gap_after_an_overrun_across_epochs_names_missed_events_only() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    publish(&mut rig, TRADE, 10);
    publish_unseen(&mut rig, TRADE, 5);
    for events in [95, 3] {
        rig.new_epoch(TRADE, false);
        publish_unseen(&mut rig, TRADE, events);
    }
    rig.restore();
    rig.flush();
    let rig = settled(rig);
    let gaps: Vec<_> = rig
        .gaps
        .iter()
        .map(|gap| (gap.from, gap.to, gap.cause))
        .collect();
    assert_eq!(gaps, [(Seq(11), Seq(15), GapCause::Bus)]);
}

/// Causes of the gaps that a client sees whose catch-up waits for its socket while `happens`.
fn causes_of_catch_up(happens: impl FnOnce(&mut Rig)) -> Vec<GapCause> {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    publish(&mut rig, TRADE, 10);
    block(&mut rig);
    publish(&mut rig, TRADE, 40);
    rig.reconnect(300);
    rig.flush();
    assert!(rig.outbox.frames.blocked, "the catch-up waits");
    happens(&mut rig);
    let rig = settled(rig);
    rig.gaps.iter().map(|gap| gap.cause).collect()
}

#[test]
fn a_catch_up_interrupted_by_an_overrun_has_cause_bus() {
    let in_the_epoch = causes_of_catch_up(|rig| {
        publish_unseen(rig, TRADE, 70);
        rig.restore();
    });
    assert_eq!(in_the_epoch, [GapCause::Bus]);
    let across_epochs = causes_of_catch_up(|rig| {
        publish_unseen(rig, TRADE, 70);
        rig.new_epoch(TRADE, false);
        publish_unseen(rig, TRADE, 7);
        rig.restore();
    });
    assert_eq!(across_epochs, [GapCause::Bus]);
    let by_the_client = causes_of_catch_up(|rig| publish(rig, TRADE, 200));
    assert_eq!(by_the_client, [GapCause::Slow]);
    let by_an_epoch = causes_of_catch_up(|rig| rig.new_epoch(TRADE, true));
    assert_eq!(by_an_epoch, [GapCause::Slow]);
}

#[test]
fn epochs_that_begin_while_a_client_is_slow_do_not_accumulate() {
    for (mode, on_slow) in [
        (Mode::Raw, None),
        (Mode::Raw, Some(OnSlow::Gap)),
        (Mode::Conflate, None),
    ] {
        let mut rig = holding(&TOPICS[1..3], mode, on_slow);
        rig.request(in_mode(&[TRADE, TOPICS[3]], Mode::Raw, None));
        rig.request(in_mode(&[TOPICS[4]], mode, on_slow));
        rig.flush();
        block(&mut rig);
        for _ in 0..300 {
            for topic in TOPICS {
                let id = rig.topic(topic);
                for at in 0..6 {
                    rig.publish(id, at % 3 == 2, true);
                }
                rig.new_epoch(topic, true);
            }
            rig.tick(Duration::from_millis(1));
        }
        let queued = rig.outbox.queued_bytes();
        assert!(
            queued < 2 * rig.limits.outbox_bytes + 4 * rig.limits.frame_bytes,
            "{mode:?}, {on_slow:?}: {queued} bytes wait"
        );
        settled(rig);
    }
}

#[test]
fn queued_bytes_includes_everything_queued() {
    let mut rig = holding(&TOPICS, Mode::Raw, None);
    block(&mut rig);
    let mut before = rig.outbox.queued_bytes();
    let mut grew = |rig: &Rig, what: &str| {
        let queued = rig.outbox.queued_bytes();
        assert!(queued > before, "{what} is not counted");
        before = queued;
    };
    publish(&mut rig, "quote:A", 1);
    grew(&rig, "an event");
    rig.request(resync(&[TRADE]));
    grew(&rig, "a snapshot");
    rig.request(Op::Ledger);
    grew(&rig, "a ledger");
    rig.new_epoch("quote:A", true);
    grew(&rig, "an epoch's snapshot");
    publish_unseen(&mut rig, TRADE, 3);
    rig.restore();
    grew(&rig, "a gap");
    settled(rig);
}

#[test]
fn a_gap_an_epoch_and_a_lag_message_do_not_pause_reading() {
    let mut rig = holding(&TOPICS, Mode::Raw, Some(OnSlow::Gap));
    rig.request(in_mode(&TOPICS[1..3], Mode::Raw, Some(OnSlow::Conflate)));
    rig.flush();
    block(&mut rig);
    for _ in 0..50 {
        publish_unseen(&mut rig, TRADE, 3);
        rig.restore();
        rig.new_epoch(TRADE, true);
        publish(&mut rig, TRADE, 20);
        publish(&mut rig, "quote:A", 20);
    }
    assert_eq!(level(&rig), LagLevel::Degraded);
    assert!(!rig.outbox.responses_wait());
    assert_eq!(rig.outbox.asked_bytes(), 0);
    settled(rig);
}

#[test]
fn events_behind_requested_data_do_not_age_while_the_client_reads() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    publish(&mut rig, TRADE, 50);
    block(&mut rig);
    rig.unblock(100);
    for _ in 0..10 {
        rig.request(resync(&[TRADE]));
    }
    publish(&mut rig, TRADE, 2);
    // It takes a part of the snapshots every 100 ms, many times longer than `behind` allows.
    for _ in 0..60 {
        rig.tick(Duration::from_millis(100));
        rig.unblock(800);
        assert_eq!(
            level(&rig),
            LagLevel::Ok,
            "a client that reads what it asked for"
        );
        if snapshots(&rig, TRADE).len() == 11 {
            break;
        }
    }
    let rig = settled(rig);
    assert_eq!(rig.gaps, []);
}

#[test]
fn events_behind_responses_do_not_age_while_the_client_reads() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    block(&mut rig);
    for _ in 0..40 {
        rig.request(Op::Subscriptions);
    }
    publish(&mut rig, TRADE, 2);
    for round in 0..40 {
        rig.tick(Duration::from_millis(100));
        rig.unblock(200);
        if round % 10 == 9 {
            rig.outbox.shrink();
            rig.outbox.heartbeat();
        }
        assert_eq!(level(&rig), LagLevel::Ok, "in round {round}");
    }
    let rig = settled(rig);
    assert_eq!(rig.gaps, []);
}

#[test]
fn a_client_that_stops_reading_requested_data_is_behind() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    publish(&mut rig, TRADE, 50);
    block(&mut rig);
    rig.request(resync(&[TRADE]));
    publish(&mut rig, TRADE, 2);
    for _ in 0..20 {
        rig.tick(Duration::from_millis(100));
    }
    assert_ne!(level(&rig), LagLevel::Ok);
    settled(rig);
}

#[test]
fn events_age_once_all_requested_data_before_them_is_sent() {
    let mut rig = holding(&[TRADE], Mode::Raw, None);
    rig.limits.outbox_bytes = 100_000;
    publish(&mut rig, TRADE, 50);
    block(&mut rig);
    rig.request(resync(&[TRADE]));
    publish(&mut rig, TRADE, 25);
    for _ in 0..8 {
        rig.tick(Duration::from_millis(100));
        rig.unblock(400);
    }
    while snapshots(&rig, TRADE).len() < 2 {
        rig.tick(Duration::from_millis(10));
        rig.unblock(300);
    }
    assert!(rig.outbox.has_more() && rig.gaps.is_empty());
    let since = rig.now;
    while level(&rig) == LagLevel::Ok {
        rig.tick(Duration::from_millis(10));
        rig.unblock(0);
    }
    let waited = rig.now.since(since);
    assert!(
        waited >= rig.limits.behind_max / 8 && waited < rig.limits.behind_max,
        "{waited:?}"
    );
    settled(rig);
}

#[test]
fn adjacent_gaps_of_different_causes_become_one_with_cause_slow() {
    let mut rig = holding(&[TRADE], Mode::Raw, Some(OnSlow::Gap));
    block(&mut rig);
    publish(&mut rig, TRADE, 500);
    publish_unseen(&mut rig, TRADE, 20);
    rig.restore();
    publish(&mut rig, TRADE, 500);
    let rig = settled(rig);
    let gaps: Vec<_> = rig.gaps.iter().map(|gap| gap.cause).collect();
    assert_eq!(gaps, [GapCause::Slow]);
}

#[test]
fn the_state_behind_a_gap_is_sent_though_events_before_it_were_merged() {
    const TICKS: &str = "quote:A";
    let mut rig = holding(&[TICKS], Mode::Raw, Some(OnSlow::Conflate));
    block(&mut rig);
    publish(&mut rig, TICKS, 1);
    publish_unseen(&mut rig, TICKS, 4);
    rig.restore();
    rig.tick(Duration::from_millis(600));
    assert_eq!(level(&rig), LagLevel::Degraded, "event 1 is merged");
    let rig = settled(rig);
    let gap = rig.gaps.last().map(|gap| (gap.from, gap.to, gap.cause));
    assert_eq!(gap, Some((Seq(2), Seq(5), GapCause::Bus)));
    assert_eq!(snapshots(&rig, TICKS).last(), Some(&Seq(5)));
}
