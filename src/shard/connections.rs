//! Connections of a shard, those with data due, and the pool of write buffers.

use std::ops::{Index, IndexMut, Range};

use slab::Slab;

use super::connection::{Connection, ConnectionKey, Generation};
use crate::outbox::FrameBuffer;

/// Memory of idle buffers kept for the next connection that writes. One is used at a time, and a
/// few more by connections whose socket is full.
const POOL_BYTES_MAX: usize = 256 * 1024;
/// Smallest buffer that is kept: one that grew for a single small message is not.
const POOLED_BUFFER_BYTES_MIN: usize = 2 * 1024;

/// Connections of a shard by key.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    generation: u32,
    /// Connections whose sockets are due in this turn.
    dirty: Vec<ConnectionKey>,
    pool: BufferPool,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    pub(super) fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.slab.get(key.0 as usize)
    }

    pub(super) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.slab.get_mut(key.0 as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnectionKey, &Connection)> {
        let entries = self.slab.iter();
        entries.map(|(key, connection)| (ConnectionKey(key as u32), connection))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slab.iter_mut().map(|(_, connection)| connection)
    }

    /// Range of the keys of all connections; there may be keys without a connection among them.
    pub(super) fn all_keys(&self) -> Range<u32> {
        0..self.slab.capacity() as u32
    }

    pub(super) fn keys(&self) -> Vec<ConnectionKey> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Adds the connection that `make` returns for its generation.
    pub(super) fn insert(&mut self, make: impl FnOnce(Generation) -> Connection) -> ConnectionKey {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slab.vacant_entry();
        let key = ConnectionKey(entry.key() as u32);
        entry.insert(make(Generation(self.generation)));
        key
    }

    pub(super) fn remove(&mut self, key: ConnectionKey) -> Connection {
        self.slab.remove(key.0 as usize)
    }

    /// Marks a connection whose socket is due in this turn.
    pub(super) fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.slab.get_mut(key.0 as usize)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    pub(super) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the marked connections; each may have been flushed in the meantime.
    pub(super) fn take_dirty(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.dirty)
    }

    /// Returns the list for reuse; false if connections were marked in the meantime.
    pub(super) fn put_back(&mut self, mut emptied: Vec<ConnectionKey>) -> bool {
        emptied.clear();
        let is_done = self.dirty.is_empty();
        if is_done {
            self.dirty = emptied;
        }
        is_done
    }

    /// Lends a buffer to a connection that has something to write.
    pub(super) fn lend_buffer(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let connection = self.slab.get_mut(key.0 as usize)?;
        self.pool.lend(&mut connection.outbox.frames);
        Some(connection)
    }

    /// Returns the buffer of a connection that has nothing more to write to the pool.
    pub(super) fn keep_buffer(&mut self, key: ConnectionKey) {
        let frames = &mut self.slab[key.0 as usize].outbox.frames;
        self.pool.keep(frames.reclaim());
    }

    /// Returns the buffer of a connection that waits to the pool, unless it is mostly full.
    pub(super) fn keep_unused_buffer(&mut self, key: ConnectionKey) {
        let frames = &mut self.slab[key.0 as usize].outbox.frames;
        if let Some(buffer) = frames.reclaim_unused() {
            self.pool.keep(buffer);
        }
    }
}

impl Index<ConnectionKey> for Connections {
    type Output = Connection;

    fn index(&self, key: ConnectionKey) -> &Connection {
        &self.slab[key.0 as usize]
    }
}

impl IndexMut<ConnectionKey> for Connections {
    fn index_mut(&mut self, key: ConnectionKey) -> &mut Connection {
        &mut self.slab[key.0 as usize]
    }
}

/// Pool of write buffers; the most recently used one is lent first, so that few are in the cache.
#[derive(Debug, Default)]
struct BufferPool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl BufferPool {
    fn lend(&mut self, frames: &mut FrameBuffer) {
        if frames.needs_buffer()
            && let Some(buffer) = self.buffers.pop()
        {
            self.bytes -= buffer.capacity();
            frames.lend(buffer);
        }
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        let room = POOL_BYTES_MAX.saturating_sub(self.bytes);
        if (POOLED_BUFFER_BYTES_MIN..=room).contains(&buffer.capacity()) {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}
