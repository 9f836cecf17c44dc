//! The kernel's limit: one thread, epoll, each event's frame made once, and all that is due for a
//! socket in one `write`.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context as TaskContext, Wake, Waker};

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use tickcast::log::{Catalog, LogItem};
use tickcast::protocol::Encoding;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::generator::Generator;
use crate::talk;

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// Wakes the poll when the bus has published.
struct Wakeup(OwnedFd);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        // Its counter can't be full.
        let _woken = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[derive(PartialEq)]
enum Stage {
    Handshaking,
    Open,
    Gone,
}

struct Connection {
    stream: TcpStream,
    stage: Stage,
    input: Vec<u8>,
    out: Vec<u8>,
    is_dirty: bool,
    is_blocked: bool,
}

struct Server {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    subscribers: Vec<Vec<u32>>,
    dirty: Vec<u32>,
    catalog: Arc<Catalog>,
}

pub(crate) fn serve(generator: Generator, listener: TcpListener) -> Result<()> {
    std::thread::Builder::new()
        .name("server".to_owned())
        .spawn(move || run(generator, &listener))?
        .join()
        .unwrap_or(Ok(()))
}

fn run(mut generator: Generator, listener: &TcpListener) -> Result<()> {
    let wakeup = Arc::new(Wakeup(eventfd(0, EventfdFlags::NONBLOCK)?));
    let waker = Waker::from(Arc::clone(&wakeup));
    let log = Arc::clone(&generator.log);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    listener.set_nonblocking(true)?;
    epoll::add(
        &epoll,
        listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    epoll::add(
        &epoll,
        &wakeup.0,
        epoll::EventData::new_u64(WAKE),
        epoll::EventFlags::IN,
    )?;
    let mut server = Server {
        epoll,
        connections: Vec::new(),
        subscribers: Vec::new(),
        dirty: Vec::new(),
        catalog: Arc::clone(&generator.catalog),
    };
    let mut events = Vec::with_capacity(1024);
    loop {
        let mut published = std::pin::pin!(log.reader(0).notified());
        let is_published = published
            .as_mut()
            .poll(&mut TaskContext::from_waker(&waker))
            .is_ready();
        let timeout = rustix::event::Timespec::default();
        events.clear();
        let waited = epoll::wait(
            &server.epoll,
            spare_capacity(&mut events),
            is_published.then_some(&timeout),
        );
        match waited {
            // A tracer was attached.
            Err(Errno::INTR) => events.clear(),
            waited => _ = waited?,
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept(listener)?,
                WAKE => _ = rustix::io::read(&wakeup.0, &mut [0; 8]),
                at => server.on_ready(at as usize, event.flags),
            }
        }
        server.publish(&mut generator);
        server.flush();
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let data = epoll::EventData::new_u64(self.connections.len() as u64);
            epoll::add(
                &self.epoll,
                &stream,
                data,
                epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET,
            )?;
            self.connections.push(Connection {
                stream,
                stage: Stage::Handshaking,
                input: Vec::new(),
                out: Vec::new(),
                is_dirty: false,
                is_blocked: false,
            });
        }
    }

    fn mark(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(at as u32);
        }
    }

    fn on_ready(&mut self, at: usize, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) && self.connections[at].is_blocked {
            self.connections[at].is_blocked = false;
            self.mark(at);
        }
        if !flags.contains(epoll::EventFlags::IN) {
            return;
        }
        let mut buffer = [0; 16 * 1024];
        let connection = &mut self.connections[at];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => connection.stage = Stage::Gone,
                Ok(read) => {
                    connection.input.extend_from_slice(&buffer[..read]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => connection.stage = Stage::Gone,
            }
            break;
        }
        if connection.stage == Stage::Gone {
            // Closed by being forgotten about: its slot stays, as this server lives for one round.
            // The shutdown would be one more event.
            let _removed = epoll::delete(&self.epoll, &connection.stream);
            let _closed = connection.stream.shutdown(std::net::Shutdown::Both);
            (connection.out, connection.input) = (Vec::new(), Vec::new());
            return;
        }
        self.take_input(at);
    }

    fn take_input(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.stage == Stage::Handshaking {
            let text = String::from_utf8_lossy(&connection.input).into_owned();
            let Some((head, _)) = text.split_once("\r\n\r\n") else {
                return;
            };
            let key = head
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
                .unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            );
            connection.input.clear();
            connection.stage = Stage::Open;
            connection.out.extend_from_slice(answer.as_bytes());
            put_frame(&mut connection.out, &talk::welcome());
        }
        while let Some(payload) = take_frame(&mut self.connections[at].input) {
            let Some((topics, answer)) = talk::subscribe(&payload, &self.catalog) else {
                continue;
            };
            put_frame(&mut self.connections[at].out, &answer);
            for topic in topics {
                if self.subscribers.len() <= topic {
                    self.subscribers.resize_with(topic + 1, Vec::new);
                }
                self.subscribers[topic].push(at as u32);
            }
        }
        self.mark(at);
    }

    fn publish(&mut self, generator: &mut Generator) {
        let mut frame = Vec::new();
        // What comes while this is copied has its turn after the next flush.
        let head = generator.log.head();
        while let Some(batch) = generator.next_before(head) {
            let encoded = batch.encode(Encoding::Msgpack).0;
            self.catalog = Arc::clone(&batch.catalog);
            for (at, item) in batch.items.iter().enumerate() {
                let LogItem::Event(event) = item else {
                    continue;
                };
                let Some(subscribers) = self.subscribers.get(event.topic.index()) else {
                    continue;
                };
                frame.clear();
                put_frame(&mut frame, &[&[0x91], encoded.item(at)].concat());
                for subscriber in subscribers {
                    let connection = &mut self.connections[*subscriber as usize];
                    if connection.stage == Stage::Open {
                        connection.out.extend_from_slice(&frame);
                    }
                    if !connection.is_dirty {
                        connection.is_dirty = true;
                        self.dirty.push(*subscriber);
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        for at in self.dirty.drain(..) {
            let connection = &mut self.connections[at as usize];
            connection.is_dirty = false;
            if connection.is_blocked || connection.out.is_empty() {
                continue;
            }
            match connection.stream.write(&connection.out) {
                Ok(taken) if taken == connection.out.len() => connection.out.clear(),
                Ok(taken) => {
                    connection.out.drain(..taken);
                    connection.is_blocked = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => connection.is_blocked = true,
                Err(_) => connection.stage = Stage::Gone,
            }
        }
    }
}

/// A binary frame as a server writes it.
fn put_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x82);
    if payload.len() < 126 {
        out.push(payload.len() as u8);
    } else {
        out.push(126);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// The payload of a client's next frame, unmasked; answers and pongs of the tester are all shorter
/// than 64 KiB.
fn take_frame(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(*input.get(1)? & 0x7f);
    let (len, head) = if len == 126 {
        (
            usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])),
            4,
        )
    } else {
        (len, 2)
    };
    if input.len() < head + 4 + len {
        return None;
    }
    let mask: Vec<u8> = input[head..head + 4].to_vec();
    let payload = input[head + 4..head + 4 + len]
        .iter()
        .enumerate()
        .map(|(at, byte)| byte ^ mask[at % 4])
        .collect();
    input.drain(..head + 4 + len);
    Some(payload)
}
