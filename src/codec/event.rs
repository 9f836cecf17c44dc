//! Encoding of data events, written by hand because it is on the hot path, and decoding with serde.

use std::borrow::Cow;

use rust_decimal::Decimal;
use serde::Deserialize;

use super::decode_error::MessageFault;
use crate::market::{
    Aggressor, Bar, Body, Level, Price, Qty, Quote, SourceKind, Status, Ticker, Trade, TradeId,
    TradingState, UnixNanos, parse_decimal, write_decimal,
};
use crate::protocol::{DataEvent, Encoding, Seq};
use crate::topic::{Channel, Topic};

/// Encoded common prefix of all events of a topic, in every encoding; built once per topic.
#[derive(Debug, Clone)]
pub struct EventHead {
    channel: Channel,
    msgpack: Box<[u8]>,
    json: Box<[u8]>,
}

impl EventHead {
    /// Encodes `ch`, `sym` and the parameter of `topic`.
    pub fn new(topic: &Topic) -> Self {
        let mut msgpack = Vec::new();
        let symbol = topic.symbol.as_str();
        for (key, text) in [("ch", topic.channel.name()), ("sym", symbol)]
            .into_iter()
            .chain(param_of(topic.channel))
        {
            msgpack_text(&mut msgpack, key);
            msgpack_text(&mut msgpack, text);
        }
        let quoted = serde_json::to_string(symbol).expect("a text is always JSON");
        let mut json = format!("{{\"ch\":\"{}\",\"sym\":{quoted}", topic.channel.name());
        if let Some((key, text)) = param_of(topic.channel) {
            json.extend([",\"", key, "\":\"", text, "\""]);
        }
        Self {
            channel: topic.channel,
            msgpack: msgpack.into(),
            json: json.into_bytes().into(),
        }
    }
}

fn param_of(channel: Channel) -> Option<(&'static str, &'static str)> {
    channel.param().map(|param| ("iv", param))
}

/// Appends one event as a map: prices and quantities as strings, times and counts as integers.
pub fn encode_event(
    out: &mut Vec<u8>,
    encoding: Encoding,
    head: &EventHead,
    seq: Seq,
    tx: UnixNanos,
    body: &Body,
) {
    match encoding {
        Encoding::Msgpack => {
            let at = out.len();
            out.push(0);
            out.extend_from_slice(&head.msgpack);
            let mut writer = Msgpack {
                out,
                fields: 2 + u8::from(head.channel.param().is_some()),
            };
            write_fields(&mut writer, seq, tx, body);
            // A map of up to 15 entries stores its count in the marker; events have at most 14
            // fields.
            let marker = 0x80 | writer.fields;
            out[at] = marker;
        }
        Encoding::Json => {
            out.extend_from_slice(&head.json);
            write_fields(&mut Json { out }, seq, tx, body);
            out.push(b'}');
        }
    }
}

/// Writer for the types that occur in event fields.
trait FieldWriter {
    fn integer(&mut self, key: &'static str, value: u64);
    fn decimal(&mut self, key: &'static str, value: Decimal);
    fn text(&mut self, key: &'static str, value: &str);
    fn number_text(&mut self, key: &'static str, value: u64);
    fn flag(&mut self, key: &'static str, value: bool);
    fn null(&mut self, key: &'static str);
}

fn write_fields<W: FieldWriter>(writer: &mut W, seq: Seq, tx: UnixNanos, body: &Body) {
    writer.integer("seq", seq.0);
    writer.integer("ts", body.ts().0);
    writer.integer("tx", tx.0);
    match body {
        Body::Trade(trade) => write_trade(writer, trade),
        Body::Quote(quote) => {
            write_level(writer, "bid", "bidq", quote.bid);
            write_level(writer, "ask", "askq", quote.ask);
        }
        Body::Ticker(ticker) => write_ticker(writer, ticker),
        Body::Bar(bar) => write_bar(writer, bar),
        Body::Status(status) => {
            writer.text("state", status.state.name());
            writer.text("src", status.src.name());
            writer.integer("since", status.since.0);
        }
    }
}

fn write_trade<W: FieldWriter>(writer: &mut W, trade: &Trade) {
    writer.decimal("px", trade.px.0);
    writer.decimal("qty", trade.qty.0);
    writer.text("side", trade.side.name());
    match &trade.id {
        TradeId::None => {}
        TradeId::Number(number) => writer.number_text("id", *number),
        TradeId::Text(text) => writer.text("id", text),
    }
}

fn write_level<W: FieldWriter>(
    writer: &mut W,
    px: &'static str,
    qty: &'static str,
    level: Option<Level>,
) {
    match level {
        Some(level) => {
            writer.decimal(px, level.px.0);
            if let Some(size) = level.qty {
                writer.decimal(qty, size.0);
            }
        }
        None => {
            writer.null(px);
            writer.null(qty);
        }
    }
}

fn write_ticker<W: FieldWriter>(writer: &mut W, ticker: &Ticker) {
    writer.decimal("last", ticker.last.0);
    writer.decimal("open", ticker.open.0);
    writer.decimal("high", ticker.high.0);
    writer.decimal("low", ticker.low.0);
    writer.decimal("vol", ticker.vol.0);
    writer.decimal("vwap", ticker.vwap);
    writer.integer("n", ticker.n);
    if let Some(chg) = ticker.chg {
        writer.decimal("chg", chg);
    }
}

fn write_bar<W: FieldWriter>(writer: &mut W, bar: &Bar) {
    writer.integer("start", bar.start.0);
    writer.decimal("o", bar.open.0);
    writer.decimal("h", bar.high.0);
    writer.decimal("l", bar.low.0);
    writer.decimal("c", bar.close.0);
    writer.decimal("vol", bar.vol.0);
    writer.integer("n", bar.n);
    writer.flag("done", bar.done);
}

struct Msgpack<'a> {
    out: &'a mut Vec<u8>,
    fields: u8,
}

impl Msgpack<'_> {
    fn key(&mut self, key: &'static str) {
        self.fields += 1;
        self.out.push(0xa0 | key.len() as u8);
        self.out.extend_from_slice(key.as_bytes());
    }
}

impl FieldWriter for Msgpack<'_> {
    fn integer(&mut self, key: &'static str, value: u64) {
        self.key(key);
        msgpack_integer(self.out, value);
    }
    fn decimal(&mut self, key: &'static str, value: Decimal) {
        self.key(key);
        let at = self.out.len();
        self.out.push(0);
        write_decimal(self.out, value);
        let len = self.out.len() - at - 1;
        if len < 32 {
            self.out[at] = 0xa0 | len as u8;
        } else {
            self.out[at] = 0xd9;
            self.out.insert(at + 1, len as u8);
        }
    }
    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        msgpack_text(self.out, value);
    }
    fn number_text(&mut self, key: &'static str, value: u64) {
        self.key(key);
        msgpack_text(self.out, itoa::Buffer::new().format(value));
    }
    fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.push(if value { 0xc3 } else { 0xc2 });
    }
    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.push(0xc0);
    }
}

fn msgpack_integer(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Appends a string of up to 255 bytes; symbols, ids and keywords are all shorter.
fn msgpack_text(out: &mut Vec<u8>, text: &str) {
    if text.len() < 32 {
        out.push(0xa0 | text.len() as u8);
    } else {
        out.extend_from_slice(&[0xd9, text.len() as u8]);
    }
    out.extend_from_slice(text.as_bytes());
}

struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

impl FieldWriter for Json<'_> {
    fn integer(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    fn decimal(&mut self, key: &'static str, value: Decimal) {
        self.key(key);
        self.out.push(b'"');
        write_decimal(self.out, value);
        self.out.push(b'"');
    }
    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        serde_json::to_writer(&mut *self.out, value)
            .expect("a text is always JSON, and a Vec takes all");
    }
    fn number_text(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out.push(b'"');
        self.out
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.push(b'"');
    }
    fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out
            .extend_from_slice(if value { b"true" } else { b"false" });
    }
    fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }
}

/// All fields of all events; the channel determines which of them are present.
#[derive(Default, Deserialize)]
pub(super) struct Flat<'a> {
    #[serde(borrow)]
    pub ch: Cow<'a, str>,
    #[serde(borrow)]
    pub sym: Cow<'a, str>,
    pub seq: Seq,
    pub ts: u64,
    pub tx: u64,
    #[serde(borrow)]
    pub iv: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub px: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub qty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub side: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub bid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub bidq: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub ask: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub askq: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub last: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub open: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub high: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub low: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub vol: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub vwap: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub chg: Option<Cow<'a, str>>,
    pub n: Option<u64>,
    pub start: Option<u64>,
    #[serde(borrow)]
    pub o: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub h: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub l: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub c: Option<Cow<'a, str>>,
    pub done: Option<bool>,
    #[serde(borrow)]
    pub state: Option<Cow<'a, str>>,
    pub src: Option<SourceKind>,
    pub since: Option<u64>,
}

const fn no(of: &'static str, field: &'static str) -> MessageFault {
    MessageFault::Missing { of, field }
}

fn decimal(field: &'static str, text: Option<&str>) -> Result<Decimal, MessageFault> {
    let text = text.ok_or(MessageFault::Missing { of: "event", field })?;
    parse_decimal(text).map_err(|error| MessageFault::Decimal { field, error })
}

impl Flat<'_> {
    /// Converts the fields to an event; `None` for channels unknown to this version, which clients
    /// ignore.
    pub(super) fn into_event(self) -> Result<Option<DataEvent>, MessageFault> {
        let Ok(channel) = Channel::parse(&self.ch, self.iv.as_deref()) else {
            return Ok(None);
        };
        let symbol = crate::market::Symbol::new(&self.sym)?;
        let body = self.body(channel)?;
        Ok(Some(DataEvent {
            topic: Topic { channel, symbol },
            seq: self.seq,
            tx: UnixNanos(self.tx),
            body,
        }))
    }

    fn body(&self, channel: Channel) -> Result<Body, MessageFault> {
        let ts = UnixNanos(self.ts);
        Ok(match channel {
            Channel::Trade => Body::Trade(Trade {
                ts,
                px: Price(decimal("px", self.px.as_deref())?),
                qty: Qty(decimal("qty", self.qty.as_deref())?),
                side: self
                    .side
                    .as_deref()
                    .and_then(Aggressor::parse)
                    .unwrap_or(Aggressor::None),
                id: self
                    .id
                    .as_deref()
                    .map_or(Some(TradeId::None), TradeId::parse)
                    .ok_or(MessageFault::LongId)?,
            }),
            Channel::Quote => Body::Quote(Quote {
                ts,
                bid: Level::from_fields(
                    ["bid", "bidq"],
                    self.bid.as_deref(),
                    self.bidq.as_deref(),
                    decimal,
                )?,
                ask: Level::from_fields(
                    ["ask", "askq"],
                    self.ask.as_deref(),
                    self.askq.as_deref(),
                    decimal,
                )?,
            }),
            Channel::Ticker => Body::Ticker(Ticker {
                ts,
                last: Price(decimal("last", self.last.as_deref())?),
                open: Price(decimal("open", self.open.as_deref())?),
                high: Price(decimal("high", self.high.as_deref())?),
                low: Price(decimal("low", self.low.as_deref())?),
                vol: Qty(decimal("vol", self.vol.as_deref())?),
                vwap: decimal("vwap", self.vwap.as_deref())?,
                n: self.n.ok_or(no("ticker", "n"))?,
                chg: self
                    .chg
                    .is_some()
                    .then(|| decimal("chg", self.chg.as_deref()))
                    .transpose()?,
            }),
            Channel::Bar(_) => Body::Bar(Bar {
                ts,
                start: UnixNanos(self.start.ok_or(no("bar", "start"))?),
                open: Price(decimal("o", self.o.as_deref())?),
                high: Price(decimal("h", self.h.as_deref())?),
                low: Price(decimal("l", self.l.as_deref())?),
                close: Price(decimal("c", self.c.as_deref())?),
                vol: Qty(decimal("vol", self.vol.as_deref())?),
                n: self.n.ok_or(no("bar", "n"))?,
                done: self.done.ok_or(no("bar", "done"))?,
            }),
            Channel::Status => Body::Status(Status {
                ts,
                state: self
                    .state
                    .as_deref()
                    .and_then(TradingState::parse)
                    .ok_or(MessageFault::State)?,
                since: UnixNanos(self.since.ok_or(no("status", "since"))?),
                src: self.src.ok_or(no("status", "src"))?,
            }),
        })
    }
}
