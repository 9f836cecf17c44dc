//! Bytes of the wire, without the server's codec: WebSocket frames, `MessagePack` and JSON.

use serde_json::{Map, Number, Value};

use crate::Violation;

/// Frame of the server.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Bytes of the server, cut into frames.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbound {
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// True if the bytes end inside a frame.
    pub(crate) fn is_cut(&self) -> bool {
        self.read < self.bytes.len()
    }

    /// The next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Violation> {
        let left = &self.bytes[self.read..];
        let [first, second, rest @ ..] = left else {
            return Ok(None);
        };
        if first & 0x70 != 0 || first & 0x80 == 0 || second & 0x80 != 0 {
            return Err(Violation::new(format!(
                "frame header {first:02x} {second:02x}: expected one unmasked frame per message"
            )));
        }
        let (len, head) = match (second, rest) {
            (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [long @ .., _]) if long.len() >= 8 => {
                let long = long.iter().take(8);
                let len = long.fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, 10)
            }
            (126 | 127, _) => return Ok(None),
            (len, _) => (usize::from(*len), 2),
        };
        if (head == 4 && len < 126) || (head == 10 && u16::try_from(len).is_ok()) {
            return Err(Violation::new("frame length not in its shortest form"));
        }
        if left.len() < head + len {
            return Ok(None);
        }
        let frame = Frame {
            opcode: first & 0x0f,
            payload: left[head..head + len].to_vec(),
        };
        self.read += head + len;
        Ok(Some(frame))
    }
}

/// Frame of a client, masked.
pub(crate) fn client_frame(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 0x7e);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 0x7f);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// Decodes a message in the encoding of its opcode.
pub(crate) fn decode(opcode: u8, payload: &[u8]) -> Result<Value, Violation> {
    if opcode == TEXT {
        return serde_json::from_slice(payload)
            .map_err(|error| Violation::new(format!("invalid JSON: {error}")));
    }
    let mut reader = Reader { bytes: payload };
    let value = reader.value()?;
    if reader.bytes.is_empty() {
        Ok(value)
    } else {
        Err(Violation::new("bytes behind a MessagePack value"))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], Violation> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or_else(|| Violation::new("MessagePack value cut short"))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<u64, Violation> {
        let bytes = self.take(len)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, len: usize) -> Result<Value, Violation> {
        let number = self.number(len)?;
        let unused = 64 - 8 * len as u32;
        Ok(Value::from((number << unused).cast_signed() >> unused))
    }

    fn text(&mut self, len: u64) -> Result<String, Violation> {
        let bytes = self.take(len as usize)?.to_vec();
        String::from_utf8(bytes).map_err(|error| Violation::new(format!("invalid text: {error}")))
    }

    fn array(&mut self, len: u64) -> Result<Value, Violation> {
        let items: Result<Vec<_>, _> = (0..len).map(|_| self.value()).collect();
        Ok(Value::Array(items?))
    }

    fn map(&mut self, len: u64) -> Result<Value, Violation> {
        let mut map = Map::new();
        for _ in 0..len {
            let Value::String(key) = self.value()? else {
                return Err(Violation::new("a MessagePack key that is no text"));
            };
            let value = self.value()?;
            if map.insert(key, value).is_some() {
                return Err(Violation::new("a MessagePack key twice"));
            }
        }
        Ok(Value::Object(map))
    }

    fn value(&mut self) -> Result<Value, Violation> {
        let [first] = *self.take(1)? else {
            return Err(Violation::new("MessagePack value cut short"));
        };
        let low = |bits: u8| u64::from(first & bits);
        match first {
            0x00..=0x7f => Ok(Value::from(first)),
            0x80..=0x8f => self.map(low(0x0f)),
            0x90..=0x9f => self.array(low(0x0f)),
            0xa0..=0xbf => Ok(Value::String(self.text(low(0x1f))?)),
            0xc0 => Ok(Value::Null),
            0xc2 => Ok(Value::Bool(false)),
            0xc3 => Ok(Value::Bool(true)),
            0xcc..=0xcf => Ok(Value::Number(Number::from(
                self.number(1 << (first - 0xcc))?,
            ))),
            0xd0..=0xd3 => self.signed(1 << (first - 0xd0)),
            0xd9..=0xdb => {
                let len = self.number(1 << (first - 0xd9))?;
                Ok(Value::String(self.text(len)?))
            }
            0xdc | 0xdd => {
                let len = self.number(2 << (first - 0xdc))?;
                self.array(len)
            }
            0xde | 0xdf => {
                let len = self.number(2 << (first - 0xde))?;
                self.map(len)
            }
            0xe0..=0xff => Ok(Value::from(first.cast_signed())),
            _ => Err(Violation::new(format!("MessagePack type {first:02x}"))),
        }
    }
}

/// Encodes a request in the encoding of an opcode.
pub(crate) fn encode(opcode: u8, value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    if opcode == TEXT {
        bytes.extend_from_slice(value.to_string().as_bytes());
    } else {
        write(value, &mut bytes);
    }
    bytes
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0xc0),
        Value::Bool(is_true) => bytes.push(if *is_true { 0xc3 } else { 0xc2 }),
        Value::Number(number) => {
            bytes.push(if number.is_u64() { 0xcf } else { 0xd3 });
            let negative = number.as_i64().unwrap_or_default().cast_unsigned();
            let number = number.as_u64().unwrap_or(negative);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        Value::String(text) => {
            bytes.push(0xdb);
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            bytes.push(0xdd);
            bytes.extend_from_slice(&(items.len() as u32).to_be_bytes());
            for item in items {
                write(item, bytes);
            }
        }
        Value::Object(map) => {
            bytes.push(0xdf);
            bytes.extend_from_slice(&(map.len() as u32).to_be_bytes());
            for (key, value) in map {
                write(&Value::String(key.clone()), bytes);
                write(value, bytes);
            }
        }
    }
}

/// Digest of a value that is the same in both encodings.
pub(crate) fn digest(value: &Value) -> u64 {
    let mix =
        |seed: u64, number: u64| (seed.rotate_left(5) ^ number).wrapping_mul(0x0100_0000_01b3);
    let text = |text: &str| text.bytes().fold(3, |seed, byte| mix(seed, byte.into()));
    match value {
        Value::Null => 1,
        Value::Bool(is_true) => 2 + u64::from(*is_true),
        Value::Number(number) => number.as_u64().map_or(4, |number| mix(5, number)),
        Value::String(string) => text(string),
        Value::Array(items) => items.iter().fold(6, |seed, item| mix(seed, digest(item))),
        Value::Object(map) => map.iter().fold(7, |seed, (key, value)| {
            mix(mix(seed, text(key)), digest(value))
        }),
    }
}
