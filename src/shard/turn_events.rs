//! Events of one turn: gathered by topic, then assigned by connection, so that each outbox is
//! visited once and its bytes are copied while they are in the cache.

use std::sync::Arc;

use super::connection::ConnectionKey;
use super::registry::Registry;
use crate::log::{Batch, Event, TopicId};
use crate::market::UnixNanos;
use crate::outbox::{EventRange, EventRef, SlotId};
use crate::protocol::{Encoding, PerEncoding, Seq};

const NONE: u32 = u32::MAX;

/// A topic's events of this turn.
#[derive(Debug)]
struct TopicEvents {
    topic: TopicId,
    /// Its first and last place.
    places: (u32, u32),
    /// Its first and last sequence number.
    seqs: (Seq, Seq),
    /// Publication time of its first event.
    published: UnixNanos,
    /// Range of its contiguous bytes, once a subscriber needs them.
    joined: PerEncoding<Option<(u32, u32)>>,
    /// True if its newest bytes are cached for conflated subscriptions.
    is_kept: PerEncoding<bool>,
}

/// Subscription with new events.
#[derive(Debug, Clone, Copy)]
pub struct Assigned {
    /// Slot within the connection.
    pub slot: SlotId,
    /// Index of the topic's run.
    pub run: u32,
    /// Next subscription of the same connection.
    next: u32,
}

/// Events of one turn by topic. The memory is reused by the next turn.
#[derive(Debug, Default)]
pub struct TurnEvents {
    batches: Vec<Arc<Batch>>,
    places: Vec<EventRef>,
    runs: Vec<TopicEvents>,
    /// By topic: its run.
    of_topic: Vec<u32>,
    joined: PerEncoding<Vec<u8>>,
    /// Events encoded since [`Self::take_encoded`].
    encoded: PerEncoding<u64>,
    assigned: Vec<Assigned>,
    /// By connection: its first assigned range.
    of_connection: Vec<u32>,
}

/// Subscribers of the events of a turn, in delivery order.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    pub registry: Registry,
    /// Subscriptions of mode `raw`.
    pub raw: usize,
    pub events: TurnEvents,
    /// Connections with assigned events; kept for reuse of its memory.
    pub order: Vec<ConnectionKey>,
    /// Rotates the first connection, so that none is always last.
    pub rotation: Rotation,
}

impl TurnEvents {
    /// True if there are no events to assign.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds an event that has subscribers.
    pub fn push(&mut self, batch: &Arc<Batch>, item: usize, event: &Event) {
        if self
            .batches
            .last()
            .is_none_or(|last| !Arc::ptr_eq(last, batch))
        {
            self.batches.push(Arc::clone(batch));
        }
        let place = EventRef {
            batch: self.batches.len() as u32 - 1,
            item: item as u32,
            next: EventRef::END,
        };
        let at = self.places.len() as u32;
        self.places.push(place);
        let topic = event.topic.index();
        if self.of_topic.len() <= topic {
            self.of_topic.resize(topic + 1, NONE);
        }
        let Some(run) = self.runs.get_mut(self.of_topic[topic] as usize) else {
            self.of_topic[topic] = self.runs.len() as u32;
            let seqs = (event.seq, event.seq);
            self.runs.push(TopicEvents {
                topic: event.topic,
                places: (at, at),
                seqs,
                published: event.tx,
                joined: PerEncoding::default(),
                is_kept: PerEncoding::default(),
            });
            return;
        };
        self.places[run.places.1 as usize].next = at;
        (run.places.1, run.seqs.1) = (at, event.seq);
    }

    /// Assigns the topics' runs to their subscribers, the oldest first, and puts each connection
    /// into `order` once. `first_of` returns the index of the first subscriber of a topic.
    pub fn assign(
        &mut self,
        registry: &Registry,
        order: &mut Vec<ConnectionKey>,
        first_of: impl Fn(usize) -> usize,
    ) {
        for (run, topic) in self.runs.iter().enumerate() {
            let subscribers = registry.of(topic.topic);
            let (before, from) = subscribers.split_at(first_of(subscribers.len()));
            for subscriber in from.iter().chain(before) {
                let at = subscriber.connection.0 as usize;
                if self.of_connection.len() <= at {
                    self.of_connection.resize(at + 1, NONE);
                }
                let next =
                    std::mem::replace(&mut self.of_connection[at], self.assigned.len() as u32);
                if next == NONE {
                    order.push(subscriber.connection);
                }
                self.assigned.push(Assigned {
                    slot: subscriber.slot,
                    run: run as u32,
                    next,
                });
            }
        }
    }

    /// First range assigned to a connection.
    pub fn first(&self, key: ConnectionKey) -> Option<&Assigned> {
        self.assigned
            .get(*self.of_connection.get(key.0 as usize)? as usize)
    }

    /// Takes the first range assigned to a connection; [`Self::after`] returns the next.
    pub fn take_first(&mut self, key: ConnectionKey) -> Option<Assigned> {
        let first = std::mem::replace(self.of_connection.get_mut(key.0 as usize)?, NONE);
        self.assigned.get(first as usize).copied()
    }

    /// Next range assigned to the same connection.
    pub fn after(&self, assigned: Assigned) -> Option<Assigned> {
        self.assigned.get(assigned.next as usize).copied()
    }

    /// Run of a topic in an encoding; its bytes are joined when first needed.
    pub fn run(&mut self, run: u32, encoding: Encoding) -> EventRange<'_> {
        let Self {
            batches,
            places,
            runs,
            joined,
            encoded,
            ..
        } = self;
        let TopicEvents {
            places: (at, last_at),
            seqs: (first, last),
            joined: ranges,
            ..
        } = &mut runs[run as usize];
        let mut found = EventRange {
            batches,
            places,
            at: *at,
            first: *first,
            last: *last,
            joined: &[],
            encoding,
        };
        let mut bytes_of = |place: &EventRef| {
            let (bytes, made) = batches[place.batch as usize].encode(encoding);
            encoded[encoding] += made;
            bytes.item(place.item as usize)
        };
        if at == last_at {
            found.joined = bytes_of(&places[*at as usize]);
            return found;
        }
        let joined = &mut joined[encoding];
        let (from, to) = *ranges[encoding].get_or_insert_with(|| {
            let from = joined.len();
            let mut next = places.get(*at as usize);
            while let Some(place) = next {
                if joined.len() > from {
                    joined.extend(encoding.separator());
                }
                joined.extend_from_slice(bytes_of(place));
                next = places.get(place.next as usize);
            }
            (from as u32, joined.len() as u32)
        });
        found.joined = &joined[from as usize..to as usize];
        found
    }

    /// Publication time of a range's first event.
    pub fn published(&self, run: u32) -> UnixNanos {
        self.runs[run as usize].published
    }

    /// True if a range's newest bytes must still be kept for conflating subscriptions; true only
    /// once.
    pub fn must_keep(&mut self, run: u32, encoding: Encoding) -> bool {
        !std::mem::replace(&mut self.runs[run as usize].is_kept[encoding], true)
    }

    /// Number of events that were encoded since the last call.
    pub fn take_encoded(&mut self) -> PerEncoding<u64> {
        std::mem::take(&mut self.encoded)
    }

    /// Clears the events of the turn.
    pub fn clear(&mut self) {
        for run in self.runs.drain(..) {
            self.of_topic[run.topic.index()] = NONE;
        }
        self.batches.clear();
        self.places.clear();
        self.assigned.clear();
        for joined in self.joined.values_mut() {
            joined.clear();
        }
    }
}

/// Rotating start position, so that no connection is always last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotation(u32);

impl Rotation {
    /// Advances to the next position.
    pub const fn next(&mut self) -> Self {
        // Steps of the golden ratio cover the circle evenly.
        self.0 = self.0.wrapping_add(0x9e37_79b9);
        *self
    }

    /// The same relative position in a list of another length.
    pub const fn first_of(self, len: usize) -> usize {
        ((self.0 as u64 * len as u64) >> 32) as usize
    }
}

/// The events of a range that conflated subscriptions need: the newest, and the newest that must be
/// kept.
pub fn last_values_of<'a>(
    run: &EventRange<'a>,
) -> impl Iterator<Item = (&'a Event, &'a [u8])> + use<'a> {
    let (mut last, mut kept) = (None, None);
    for (event, bytes) in run.events() {
        if event.must_keep() {
            kept = Some((event, bytes));
        } else {
            last = Some((event, bytes));
        }
    }
    kept.into_iter().chain(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Catalog, LogItem};
    use crate::market::{Body, Quote};

    #[test]
    fn no_connection_is_always_last() {
        for len in [1usize, 2, 3, 10, 1000] {
            let mut rotation = Rotation::default();
            let mut last = vec![0; len];
            for _ in 0..20 * len {
                last[(rotation.next().first_of(len) + len - 1) % len] += 1;
            }
            assert!(
                last.iter().all(|times| (15..=25).contains(times)),
                "of {len}: {last:?}"
            );
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one sequential scenario")]
    fn each_connection_gets_each_of_its_topics_once_and_in_order() {
        let symbol = crate::market::Symbol::new("A").expect("a symbol");
        let instrument = crate::market::Instrument {
            symbol,
            description: String::new(),
            price_scale: 0,
            qty_scale: 0,
            src: crate::market::SourceKind::Sim,
            has_trades: true,
            has_quotes: true,
            stale_after: None,
            session_start: std::time::Duration::ZERO,
            venue_symbol: None,
        };
        let mut catalog = Catalog::default();
        catalog.add(crate::log::SourceId(0), vec![instrument]);
        let event = |topic, seq| {
            let quote = Quote {
                ts: UnixNanos(1),
                bid: None,
                ask: None,
            };
            LogItem::Event(Event {
                topic: TopicId(topic),
                seq: Seq(seq),
                tx: UnixNanos(1),
                body: Body::Quote(quote),
            })
        };
        let items = vec![event(0, 5), event(1, 9), event(0, 6), event(0, 7)];
        let batch = Arc::new(Batch::new(items, Arc::new(catalog)));
        let (mut registry, mut turn_events, mut order) =
            (Registry::default(), TurnEvents::default(), Vec::new());
        for (topic, connection, slot) in [(0, 3, 0), (0, 1, 0), (1, 1, 1)] {
            let subscriber = super::super::registry::Subscriber {
                connection: ConnectionKey(connection),
                slot: SlotId(slot),
            };
            registry.add(TopicId(topic), subscriber);
        }
        for turn in 0..2 {
            for (at, item) in batch.items.iter().enumerate() {
                if let LogItem::Event(event) = item {
                    turn_events.push(&batch, at, event);
                }
            }
            turn_events.assign(&registry, &mut order, |_| turn);
            assert_eq!(
                order.drain(..).map(|key| key.0).collect::<Vec<_>>(),
                if turn == 0 { [3, 1] } else { [1, 3] }
            );
            for (key, expected) in [(3, vec![(0, 5, 7)]), (1, vec![(1, 9, 9), (0, 5, 7)])] {
                let mut got = Vec::new();
                let mut next = turn_events.take_first(ConnectionKey(key));
                while let Some(assigned) = next {
                    let run = turn_events.run(assigned.run, Encoding::Json);
                    got.push((assigned.slot.0, run.first.0, run.last.0));
                    let events: Vec<&[u8]> = run.events().map(|(_, bytes)| bytes).collect();
                    assert_eq!(run.joined, events.join(&b','), "contiguous, as in an array");
                    next = turn_events.after(assigned);
                }
                assert_eq!(got, expected);
                assert!(
                    turn_events.take_first(ConnectionKey(key)).is_none(),
                    "each range is taken once"
                );
            }
            turn_events.clear();
            assert!(turn_events.is_empty());
            let encoded = turn_events.take_encoded();
            let made = if turn == 0 { 4 } else { 0 };
            assert_eq!(encoded[Encoding::Json], made, "encoded once, then shared");
            assert_eq!(encoded[Encoding::Msgpack], 0, "no subscriber uses it");
        }
    }
}
