//! Control messages on their way out: typed while they wait, bytes only when the socket accepts
//! them.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Counts, Outbox, View};
use crate::access::{InstrumentList, ListedInstrument};
use crate::codec::{encode_control, encode_parts};
use crate::limits::OutboxLimits;
use crate::protocol::{Control, Heartbeat, Id, InstrumentEntry, Instruments};

/// Instruments in one part of a long answer.
const INSTRUMENTS_A_PART: usize = 256;
/// Work of a flush that an instrument of a list takes, in bytes of other messages.
const INSTRUMENT_WORK: usize = 512;

/// Reason for a message, which decides the bound that it counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Answers a request, in order; reading stops while it waits.
    Response,
    /// Message that the client did not request; bounded by `fanout.control`.
    Notification,
    /// Change of the subscriptions that the client did not request.
    Change,
}

/// A typed message that waits.
#[derive(Debug)]
pub(super) struct Message {
    reason: Reason,
    /// Shared by all clients that get it.
    control: Arc<Control>,
    /// Memory that is counted for it.
    cost: usize,
    /// Bytes of a message that the client accepted when it was queued.
    bytes_max: usize,
}

#[derive(Debug)]
pub(super) enum ControlEntry {
    Message(Message),
    /// A long answer, made as the socket drains.
    Instruments(Box<InstrumentsLeft>),
    /// Numbers are filled in when it is written; a newer one isn't needed while this waits.
    Heartbeat,
}

/// The part of an answer to `instruments` that isn't made yet.
#[derive(Debug)]
pub(super) struct InstrumentsLeft {
    id: Option<Id>,
    list: InstrumentList,
}

impl InstrumentsLeft {
    /// Memory that it takes.
    const COST: usize = size_of::<Self>();
}

impl Outbox {
    fn queue_message(&mut self, reason: Reason, control: Arc<Control>) {
        // A message that is shared counts in full for each client, so that a bound holds whoever
        // else gets it.
        let cost = size_of::<ControlEntry>() + control.footprint();
        let bytes_max = self.frames.message_max();
        *self.waiting.bytes_of(reason) += cost;
        let message = Message {
            reason,
            control,
            cost,
            bytes_max,
        };
        self.waiting
            .control
            .push_back(ControlEntry::Message(message));
    }

    /// An answer to a request, after those before it.
    pub fn respond(&mut self, control: Control) {
        self.queue_message(Reason::Response, Arc::new(control));
    }

    /// A message that the client didn't ask for. Returns false where the control queue is full.
    #[must_use]
    pub fn notify(&mut self, control: Arc<Control>, limits: &OutboxLimits) -> bool {
        self.queue_message(Reason::Notification, control);
        self.waiting.notification_bytes <= limits.control_bytes
    }

    /// A change of lag level. Not asked for, so it keeps no request waiting; changes of level are
    /// few, so it needs no bound.
    pub(super) fn queue_lag(&mut self, lag: Control) {
        self.queue_message(Reason::Notification, Arc::new(lag));
    }

    /// The answer to `instruments`, made as the socket drains.
    pub fn respond_instruments(&mut self, id: Option<Id>, list: InstrumentList) {
        let left = InstrumentsLeft { id, list };
        self.waiting.response_bytes += InstrumentsLeft::COST;
        self.waiting
            .control
            .push_back(ControlEntry::Instruments(Box::new(left)));
    }

    /// True if the client has read enough of the previous changes to be notified of another one, of
    /// any length.
    pub fn has_room_for_change(&self, limits: &OutboxLimits) -> bool {
        self.waiting.change_bytes <= limits.control_bytes
    }

    /// A message about what the client holds from now on, before the data that it announces. It
    /// doesn't pause reading.
    pub fn notify_change(&mut self, control: Control) {
        self.queue_message(Reason::Change, Arc::new(control));
    }

    /// It is time for a heartbeat.
    pub fn heartbeat(&mut self) {
        if !std::mem::replace(&mut self.waiting.heartbeat_waits, true) {
            self.waiting.control.push_back(ControlEntry::Heartbeat);
        }
    }

    /// Encodes a message that fits into one frame, behind all that is in the frame buffer.
    pub fn put(&mut self, control: &Control) {
        self.frames
            .control(&encode_control(control, self.frames.encoding()));
    }

    /// Encodes a message in parts of at most `bytes_max` bytes, behind all that is in the frame
    /// buffer. Returns their bytes.
    pub(super) fn put_parts(&mut self, control: &Control, bytes_max: usize) -> usize {
        let mut bytes = 0;
        for part in encode_parts(control, self.frames.encoding(), bytes_max) {
            bytes += part.len();
            self.frames.control(&part);
        }
        bytes
    }

    /// Puts the next control message on the wire. Returns false if there is none.
    pub(super) fn send_control(&mut self, view: &mut View<'_>) -> bool {
        match self.waiting.control.pop_front() {
            None => return false,
            Some(ControlEntry::Message(message)) => {
                *self.waiting.bytes_of(message.reason) -= message.cost;
                let before = self.frames.position();
                let bytes = self.put_parts(&message.control, message.bytes_max);
                // Many short messages of a client that was blocked would else be encoded in one
                // turn.
                view.counts.work(bytes);
                if message.reason == Reason::Response {
                    self.note_asked_since(before);
                }
            }
            Some(ControlEntry::Heartbeat) => {
                self.waiting.heartbeat_waits = false;
                let totals = self.totals;
                self.put(&Control::Heartbeat(Heartbeat {
                    ts: view.now.0,
                    delivered: totals.delivered,
                    merged: totals.merged,
                    lost: totals.lost,
                    queued_bytes: self.queued_bytes() as u64,
                }));
            }
            Some(ControlEntry::Instruments(left)) => {
                self.waiting.response_bytes -= InstrumentsLeft::COST;
                self.send_instruments(left, view.counts);
            }
        }
        true
    }

    /// Puts the messages that wait on the wire, because nothing comes after. A list of instruments
    /// is not made to its end, and neither a response nor a change of the subscriptions behind it
    /// is sent.
    pub fn frame_responses(&mut self) {
        if self.waiting.are_unused() {
            return;
        }
        let mut is_cut = false;
        for entry in std::mem::take(&mut self.waiting.control) {
            match entry {
                ControlEntry::Instruments(_) => is_cut = true,
                // Responses are in order, and changes may belong to one of them.
                ControlEntry::Message(message)
                    if is_cut && message.reason != Reason::Notification => {}
                ControlEntry::Message(message) => {
                    self.put_parts(&message.control, message.bytes_max);
                }
                ControlEntry::Heartbeat => {}
            }
        }
        let waiting = &mut *self.waiting;
        (
            waiting.response_bytes,
            waiting.notification_bytes,
            waiting.change_bytes,
            waiting.heartbeat_waits,
        ) = (0, 0, 0, false);
    }

    fn send_instruments(&mut self, mut left: Box<InstrumentsLeft>, counts: &mut Counts) {
        let instruments: Vec<_> = left
            .list
            .take(INSTRUMENTS_A_PART)
            .into_iter()
            .map(instrument_entry)
            .collect();
        counts.work(instruments.len() * INSTRUMENT_WORK);
        let more = !left.list.is_empty();
        let part = Control::Instruments(Instruments {
            id: left.id.clone(),
            instruments,
            more,
        });
        let before = self.frames.position();
        self.put_parts(&part, self.frames.message_max());
        self.note_asked_since(before);
        if more {
            self.waiting.response_bytes += InstrumentsLeft::COST;
            self.waiting
                .control
                .push_front(ControlEntry::Instruments(left));
        }
    }
}

/// Entry of an instrument in `instruments`, with its visible channels.
pub fn instrument_entry(listed: ListedInstrument<'_>) -> InstrumentEntry {
    let ListedInstrument {
        instrument,
        channels,
    } = listed;
    InstrumentEntry {
        symbol: instrument.symbol.to_string(),
        channels: instrument
            .channels()
            .into_iter()
            .filter(|channel| channels.has(*channel))
            .map(|channel| Cow::Borrowed(channel.full_name()))
            .collect(),
        price_scale: instrument.price_scale,
        qty_scale: instrument.qty_scale,
        src: instrument.src,
        description: instrument.description.clone(),
        venue_symbol: instrument.venue_symbol.as_deref().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Principal;
    use crate::log::{Catalog, SourceId};
    use crate::market::{Instrument, SourceKind, Symbol};
    use crate::protocol::{
        Code, Encoding, Entry, MESSAGE_BYTES_LEAST, MESSAGE_BYTES_MAX, Pong, ProtocolError,
        Refusal, Seq, Settings, SourceChange, SourceState, Subscribed, Subscriptions, TopicsChange,
    };
    use crate::topic::Channel;

    const LIMITS: OutboxLimits = OutboxLimits {
        outbox_bytes: 1 << 20,
        control_bytes: 1 << 16,
        frame_bytes: 256 << 10,
        behind_max: std::time::Duration::from_secs(10),
    };

    fn entry() -> Entry {
        Entry {
            epoch: Some("1767225600000000000-4294967295".to_owned()),
            seq: Some(Seq(u64::MAX)),
            recovered: Some(false),
            ..Entry::new(
                "bar:BTC-USD:1m".to_owned(),
                Settings::default_of(Channel::Quote),
            )
        }
    }

    fn subscriptions(entries: usize) -> Control {
        Control::Subscriptions(Subscriptions {
            id: None,
            ok: vec![entry(); entries],
            count: entries as u64,
            more: false,
        })
    }

    fn messages() -> Vec<Control> {
        let id = Some(Id::Text("0123456789abcdef".to_owned()));
        let refusal = Refusal::new("trade:X", Code::UnknownTopic, "there is no such topic");
        let pattern = Entry {
            matched: Some(vec![entry(); 100]),
            ..entry()
        };
        vec![
            subscriptions(0),
            subscriptions(100),
            Control::Subscribed(Subscribed {
                id: id.clone(),
                ok: vec![pattern],
                err: vec![refusal.clone(); 100],
                count: 100,
                max_message: Some(4096),
                more: true,
            }),
            Control::Topics(TopicsChange {
                added: vec![entry(); 10],
                removed: vec![refusal.clone(); 10],
                err: vec![refusal; 10],
                more: false,
            }),
            Control::Pong(Pong {
                id: id.clone(),
                t: i64::MIN,
                ts: u64::MAX,
            }),
            Control::Error(ProtocolError::new(id, Code::BadRequest, "no `op`")),
            Control::Source(SourceChange {
                name: "sim".to_owned(),
                state: SourceState::Reconnecting,
                since: u64::MAX,
                error: Some("the file is gone".to_owned()),
            }),
        ]
    }

    #[test]
    fn a_queued_message_is_charged_at_least_its_encoded_size() {
        for control in messages() {
            for encoding in Encoding::ALL {
                let bytes = encode_control(&control, encoding).len();
                let cost = control.footprint();
                assert!(cost >= bytes, "{cost} for {bytes} bytes of {control:?}");
            }
        }
    }

    #[test]
    fn control_messages_wait_unencoded_and_count_against_their_own_bound() {
        let mut outbox = Outbox::new(Encoding::Json, LIMITS.frame_bytes);
        outbox.notify_change(subscriptions(1000));
        assert!(!outbox.has_room_for_change(&LIMITS) && !outbox.responses_wait());
        let shared = Arc::new(subscriptions(100));
        let bound = LIMITS.control_bytes / shared.footprint();
        let fits = (0..=bound).filter(|_| outbox.notify(Arc::clone(&shared), &LIMITS));
        assert!(fits.count() <= bound, "a shared message counts in full");
        assert_eq!(outbox.requested_bytes(), 0, "nothing was asked for");
        outbox.respond(subscriptions(10));
        assert!(outbox.requested_bytes() > subscriptions(10).footprint());
        assert!(
            outbox.frames.is_empty(),
            "nothing is encoded while it waits"
        );
        outbox.frame_responses();
        assert!(!outbox.frames.is_empty());
        assert_eq!(outbox.queued_bytes(), outbox.frames.len());
    }

    #[test]
    fn no_response_overtakes_a_list_of_instruments_that_a_close_cuts_short() {
        let symbol = Symbol::new("A").expect("a symbol");
        let mut catalog = Catalog::default();
        let instrument = Instrument::new(symbol, SourceKind::Sim);
        catalog.add(SourceId(0), vec![instrument]);
        let mut outbox = Outbox::new(Encoding::Json, LIMITS.frame_bytes);
        outbox.respond(Control::Error(ProtocolError::new(
            None,
            Code::BadRequest,
            "before",
        )));
        let list = InstrumentList::new(Arc::new(catalog), &Principal::Everyone, "*");
        outbox.respond_instruments(None, list);
        outbox.respond(subscriptions(1));
        outbox.notify_change(Control::Topics(TopicsChange {
            added: vec![entry()],
            removed: Vec::new(),
            err: Vec::new(),
            more: false,
        }));
        let source = Control::Source(SourceChange {
            name: "sim".to_owned(),
            state: SourceState::Ended,
            since: 1,
            error: None,
        });
        assert!(outbox.notify(Arc::new(source), &LIMITS));
        outbox.frame_responses();
        let written = String::from_utf8_lossy(outbox.frames.unsent()).into_owned();
        let ops: Vec<&str> = written
            .split("\"op\":\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(ops, ["error", "source"]);
    }

    #[test]
    fn a_response_keeps_the_size_limit_at_its_request() {
        let mut outbox = Outbox::new(Encoding::Json, LIMITS.frame_bytes);
        outbox.frames.limit_messages(MESSAGE_BYTES_LEAST as u32);
        outbox.respond(subscriptions(100));
        outbox.frames.limit_messages(MESSAGE_BYTES_MAX as u32);
        outbox.frame_responses();
        outbox.frames.seal();
        let written = String::from_utf8_lossy(outbox.frames.unsent()).into_owned();
        let parts = written.matches("\"more\":true").count() + 1;
        assert!(
            parts >= 3,
            "{parts} parts of an answer before the limit rose"
        );
    }
}
