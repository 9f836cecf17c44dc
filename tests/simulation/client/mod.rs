//! Model of a client with the strictest accounts. It reads the bytes of the wire by `net`, and
//! knows the protocol from its page alone.

pub(crate) mod account;
mod answers;
mod messages;
mod requests;
pub(crate) mod settings;

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tickcast::shard::memory_socket::ClientEnd;

use crate::Violation;
use crate::net::{self, Inbound};
use crate::rng::Rng;
use crate::truth::Truth;
use account::{Account, Lag};
use requests::Pending;
use settings::{Position, Settings};

/// Nanoseconds of a millisecond.
const MILLISECOND: u64 = 1_000_000;
/// Time in nanoseconds by which a heartbeat may be late: the longest advance of time, and the
/// turns of the server.
const HEARTBEAT_LATE_MAX: u64 = 100 * MILLISECOND;
/// Time in nanoseconds by which a message may be gathered, and its event read later than another.
const JITTER_MAX: u64 = 6 * MILLISECOND;

/// Event as its distance from the next one sees it.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Time of receipt.
    at: u64,
    /// It is the last one of a bar.
    closes_bar: bool,
}

/// Sums over all accounts of a connection.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Totals {
    delivered: u64,
    merged: u64,
    lost: u64,
}

/// How the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The server has sent `bye` with this code.
    Bye(u64),
    /// The server has sent its close frame.
    Closed(Option<u64>),
}

/// A client, over all of its connections.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Client {
    pub(crate) number: usize,
    /// Its socket, while it is connected.
    pub(crate) socket: Option<ClientEnd>,
    pub(crate) is_binary: bool,
    inbound: Inbound,
    pub(crate) accounts: BTreeMap<String, Account>,
    /// Subscriptions by their names.
    names: BTreeMap<String, Settings>,
    pending: VecDeque<Pending>,
    next_id: u64,
    /// Number of requests of the connection that may be refused with 400.
    refused: usize,
    pub(crate) lag: Lag,
    totals: Totals,
    is_welcome: bool,
    pub(crate) end: Option<End>,
    /// The client itself has begun to close, or has reset the connection.
    pub(crate) has_left: bool,
    /// It was refused at the handshake.
    pub(crate) is_refused: bool,
    /// Bytes of the kernels between the two.
    pub(crate) capacity: usize,
    /// It reads nothing.
    pub(crate) is_stalled: bool,
    /// It reads, but answers no ping.
    pub(crate) is_deaf: bool,
    /// Bytes that its socket has not sent yet.
    outgoing: Vec<u8>,
    /// Answers to pings that are not sent yet.
    pongs: VecDeque<Vec<u8>>,
    /// Positions of the last connection, to resume from.
    pub(crate) remembered: Vec<(String, Position)>,
    /// Epoch in the latest `welcome`.
    pub(crate) known_epoch: String,
    /// Entries of a ledger that comes in several parts.
    listed: usize,
    /// Bound of the bytes that the server reports as queued, while it is known.
    pub(crate) queued_max: Option<u64>,
    /// Server's time of the latest heartbeat, or the time of the beginning.
    pub(crate) heartbeat_at: u64,
    /// Time since when it reads and answers everything at once, while it does.
    pub(crate) calm_since: Option<u64>,
    pub(crate) heartbeat_ms: u64,
    /// Time of the last bytes that it sent.
    pub(crate) sent_at: u64,
    /// Digest of everything that it received.
    pub(crate) digest: u64,
    pub(crate) messages: u64,
    /// Messages received since the diary has last taken them, if somebody reads it.
    pub(crate) received: Option<Vec<String>>,
    /// By topic, its latest event since the client is calm.
    last_events: BTreeMap<String, Sent>,
}

impl Client {
    pub(crate) fn new(number: usize, is_binary: bool) -> Self {
        Self {
            number,
            socket: None,
            is_binary,
            inbound: Inbound::default(),
            accounts: BTreeMap::new(),
            names: BTreeMap::new(),
            pending: VecDeque::new(),
            next_id: 0,
            refused: 0,
            lag: Lag::Ok,
            totals: Totals::default(),
            is_welcome: false,
            end: None,
            has_left: false,
            is_refused: false,
            capacity: 0,
            is_stalled: false,
            is_deaf: false,
            outgoing: Vec::new(),
            pongs: VecDeque::new(),
            remembered: Vec::new(),
            known_epoch: String::new(),
            listed: 0,
            queued_max: None,
            heartbeat_at: 0,
            calm_since: None,
            heartbeat_ms: 0,
            sent_at: 0,
            digest: 0,
            messages: 0,
            received: None,
            last_events: BTreeMap::new(),
        }
    }

    /// Begins a connection.
    pub(crate) fn connect(&mut self, socket: ClientEnd, capacity: usize, now: u64) {
        let before = std::mem::replace(self, Self::new(self.number, self.is_binary));
        *self = Self {
            socket: Some(socket),
            capacity,
            remembered: before.remembered,
            known_epoch: before.known_epoch,
            next_id: before.next_id,
            digest: before.digest,
            messages: before.messages,
            received: before.received,
            heartbeat_at: now,
            sent_at: now,
            ..Self::new(self.number, self.is_binary)
        };
    }

    /// True if the connection has begun and nobody has begun to end it.
    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some() && self.is_welcome && self.end.is_none() && !self.has_left
    }

    /// True if it has read all that its socket has, and sent all that it has to send.
    pub(crate) fn is_idle(&self) -> bool {
        self.socket.as_ref().is_none_or(|socket| {
            socket.received() == 0
                && self.outgoing.is_empty()
                && (self.pongs.is_empty() || self.is_deaf)
        })
    }

    pub(crate) fn missing_answer(&self) -> Option<String> {
        let missing = self.pending.front()?;
        Some(format!("no answer to {missing:?}"))
    }

    pub(crate) fn last_request(&self) -> Option<&Pending> {
        self.pending.back()
    }

    /// Notes that from now on it reads and answers everything at once, or no longer does.
    pub(crate) fn be_calm(&mut self, now: Option<u64>) {
        self.calm_since = now.filter(|_| self.is_open() && !self.is_stalled && !self.is_deaf);
        self.last_events.clear();
    }

    /// Checks that the latest heartbeat of a calm client is not too old.
    pub(crate) fn check_heartbeat(&self, now: u64) -> Result<(), Violation> {
        let Some(since) = self.calm_since.filter(|_| self.is_open()) else {
            return Ok(());
        };
        let silent = now.saturating_sub(since.max(self.heartbeat_at));
        if silent > self.heartbeat_ms * MILLISECOND + HEARTBEAT_LATE_MAX {
            return Err(Violation::new(format!(
                "client {}: no heartbeat for {silent} ns; expected one every {} ms",
                self.number, self.heartbeat_ms
            )));
        }
        Ok(())
    }

    /// Sends a pong that answers no ping.
    pub(crate) fn show_life(&mut self, rng: &mut Rng, now: u64) {
        let mask = (rng.next() as u32).to_be_bytes();
        self.send(&net::client_frame(net::PONG, b"alive", mask), now);
    }

    /// Begins to close the connection.
    pub(crate) fn close(&mut self, rng: &mut Rng, now: u64) {
        if self.has_left {
            return;
        }
        self.has_left = true;
        let mask = (rng.next() as u32).to_be_bytes();
        self.send(
            &net::client_frame(net::CLOSE, &1000_u16.to_be_bytes(), mask),
            now,
        );
        self.write(usize::MAX);
    }

    /// Forgets the connection; its positions stay.
    pub(crate) fn forget(&mut self) {
        if self.is_welcome {
            self.remembered = self
                .accounts
                .iter()
                .map(|(topic, own)| {
                    let at = Position {
                        epoch: own.epoch.clone(),
                        seq: own.head,
                    };
                    (topic.clone(), at)
                })
                .collect();
        }
        self.socket = None;
        self.accounts.clear();
        self.pending.clear();
    }

    /// Queues bytes for the server.
    pub(crate) fn send(&mut self, bytes: &[u8], now: u64) {
        self.outgoing.extend_from_slice(bytes);
        self.sent_at = now;
    }

    /// Lets its socket accept at most so many bytes from now on.
    pub(crate) fn narrow(&mut self, bytes: usize) {
        self.capacity = bytes;
        if let Some(socket) = &self.socket {
            socket.limit_room(bytes);
        }
    }

    /// Takes what is queued for the server, as bytes that came with the handshake.
    pub(crate) fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Sends at most `bytes_max` of the queued bytes, cut wherever that is. Returns their number.
    pub(crate) fn write(&mut self, bytes_max: usize) -> usize {
        let Some(socket) = &self.socket else {
            return 0;
        };
        let len = self.outgoing.len().min(bytes_max);
        if len > 0 {
            let sent: Vec<u8> = self.outgoing.drain(..len).collect();
            socket.send(&sent);
        }
        len
    }

    /// Answers pings that it has read, in order.
    pub(crate) fn answer_pings(&mut self, rng: &mut Rng, now: u64) {
        if self.is_deaf {
            return;
        }
        while let Some(payload) = self.pongs.pop_front() {
            let mask = (rng.next() as u32).to_be_bytes();
            self.send(&net::client_frame(net::PONG, &payload, mask), now);
        }
    }

    /// Reads at most `bytes_max` bytes, which makes room in the kernels' buffers. Returns their
    /// number.
    pub(crate) fn read(
        &mut self,
        bytes_max: usize,
        truth: &mut Truth,
        now: u64,
    ) -> Result<usize, Violation> {
        let Some(socket) = &self.socket else {
            return Ok(0);
        };
        let bytes = socket.receive(bytes_max);
        let room = self
            .capacity
            .saturating_sub(socket.received() + socket.room());
        if room > 0 {
            socket.give_room(room);
        }
        self.inbound.extend(&bytes);
        while let Some(frame) = self.inbound.next()? {
            self.frame(frame, truth, now)?;
        }
        Ok(bytes.len())
    }

    fn frame(&mut self, frame: net::Frame, truth: &mut Truth, now: u64) -> Result<(), Violation> {
        let net::Frame { opcode, payload } = frame;
        let bytes = payload.iter().map(|byte| u64::from(*byte));
        self.digest = bytes.fold(self.digest ^ u64::from(opcode), |digest, byte| {
            (digest.rotate_left(7) ^ byte).wrapping_mul(0x0100_0000_01b3)
        });
        if let Some(End::Closed(_)) = self.end {
            return Err(Violation::new("a frame behind the close frame"));
        }
        match opcode {
            net::PING => self.pongs.push_back(payload),
            net::PONG => {}
            net::CLOSE => self.closed(&payload)?,
            net::TEXT | net::BINARY if (opcode == net::BINARY) == self.is_binary => {
                self.messages += 1;
                let message = net::decode(opcode, &payload)?;
                if let Some(received) = &mut self.received {
                    received.push(excerpt(&message));
                }
                self.message(&message, truth, now)?;
            }
            _ => return Err(Violation::new(format!("frame with opcode {opcode}"))),
        }
        Ok(())
    }

    fn closed(&mut self, payload: &[u8]) -> Result<(), Violation> {
        let code = match payload {
            [a, b, ..] => Some(u64::from(u16::from_be_bytes([*a, *b]))),
            _ => None,
        };
        let by_server = match &self.end {
            Some(End::Bye(bye)) => Some(*bye),
            _ => None,
        };
        // A close code is the one of the `bye`, as a number from 4000 on or 1012.
        let expected = by_server.map(|bye| if bye == 503 { 1012 } else { 4000 + bye });
        let is_answer = self.has_left && expected.is_none();
        if !is_answer && (expected.is_none() || code != expected) {
            return Err(Violation::new(format!(
                "close frame with {code:?} after {:?}",
                self.end
            )));
        }
        self.end = Some(End::Closed(code));
        Ok(())
    }

    fn is_reset(&self) -> bool {
        self.socket.as_ref().is_some_and(ClientEnd::is_reset)
    }

    /// Checks what must hold once the server has closed the socket.
    pub(crate) fn check_end(&self) -> Result<(), Violation> {
        match &self.end {
            Some(End::Closed(_)) => Ok(()),
            _ if self.has_left => Ok(()),
            // It has not read what was queued before the close frame within the time for that.
            Some(End::Bye(_)) | None if self.is_reset() => Ok(()),
            end => Err(Violation::new(format!(
                "the server has closed without a close frame, after {end:?}; cut {}",
                self.inbound.is_cut()
            ))),
        }
    }
}

/// Message for the diary; only the heads of events.
fn excerpt(message: &Value) -> String {
    let Value::Array(events) = message else {
        return message.to_string().chars().take(400).collect();
    };
    let heads = events.iter().take(40).map(|event| {
        let (channel, symbol, param, seq) =
            (&event["ch"], &event["sym"], &event["iv"], &event["seq"]);
        format!("{channel}:{symbol}:{param} {seq}").replace('"', "")
    });
    heads.collect::<Vec<_>>().join(", ")
}

/// Text of a field.
fn text<'a>(message: &'a Value, field: &str) -> Result<&'a str, Violation> {
    message[field]
        .as_str()
        .ok_or_else(|| Violation::new(format!("no `{field}` in {message}")))
}

/// Number of a field.
fn number(message: &Value, field: &str) -> Result<u64, Violation> {
    message[field]
        .as_u64()
        .ok_or_else(|| Violation::new(format!("no `{field}` in {message}")))
}

/// List of a field.
fn list<'a>(message: &'a Value, field: &str) -> Result<&'a [Value], Violation> {
    let list = message[field].as_array();
    list.map(Vec::as_slice)
        .ok_or_else(|| Violation::new(format!("no `{field}` in {message}")))
}
