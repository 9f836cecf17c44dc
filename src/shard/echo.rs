//! Echo of a connection's messages, for test suites of the WebSocket protocol. It shares accept,
//! upgrade, read, flush and close with the feed.

use super::Shard;
use super::connection::ConnectionKey;
use super::reader::Incoming;
use crate::outbox::Opcode;
use crate::protocol::Encoding;

/// First byte of an unfragmented close frame.
const CLOSE: u8 = 0x88;

impl Shard {
    /// Moves complete messages of an echo connection from `found` to its frame buffer: after the
    /// pongs of `replies`, and before its close frame.
    pub(super) fn echo(
        &mut self,
        key: ConnectionKey,
        mut found: Vec<Incoming>,
        replies: &mut Vec<u8>,
    ) -> Vec<Incoming> {
        let connection = &mut self.connections[key];
        if !connection.peer.is_echo || connection.closing.is_some() {
            return found;
        }
        let close = replies.split_off(close_at(replies));
        let frames = &mut connection.outbox.frames;
        frames.frames(replies);
        *replies = close;
        found.retain(|incoming| match incoming {
            Incoming::Request(payload, encoding) => {
                let opcode = match encoding {
                    Encoding::Json => Opcode::Text,
                    Encoding::Msgpack => Opcode::Binary,
                };
                frames.frame(opcode, payload);
                false
            }
            _ => true,
        });
        self.connections.mark_dirty(key);
        found
    }
}

/// Offset of the close frame in a sequence of control frames of a server.
fn close_at(frames: &[u8]) -> usize {
    let mut at = 0;
    while let [first, len, ..] = frames[at..] {
        if first == CLOSE {
            break;
        }
        at += 2 + usize::from(len);
    }
    at
}
