//! One connection of a load test: from the handshake to the ledger at its end.

mod messages;
mod renewal;

use std::io;

use tokio_tungstenite::tungstenite::protocol::frame::coding::{
    Control as ControlOpcode, Data, OpCode,
};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

use super::handshake::{self, HandshakeError};
use super::plan::{Assignment, Dialect, Role};
use super::probe::Probe;
use super::recorder::{Recorder, TestSettings};
use super::scan::{Found, FrameError, Scanner, Want};
use super::stream::LoadStream;
use crate::client::Bearer;
use crate::codec::{DecodeError, encode_request};
use crate::market::UnixNanos;
use crate::protocol::{Encoding, Id, LedgerEntry, Op, Request, ResumeFrom};
use renewal::TokenState;

/// Maximum length of a handshake response in bytes.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// Reason why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("socket error: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
}

/// Stage of a connection.
#[derive(Debug)]
enum Phase {
    Connecting,
    /// Connected; the handshake is held back.
    Silent,
    /// Handshake response received so far.
    Handshaking(Vec<u8>),
    /// Subscribed; number of responses still expected.
    Joining(usize),
    Open,
    /// Ledger requested; entries received so far.
    Closing(Vec<LedgerEntry>),
    Over,
}

/// Result of handling a connection's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The connection continues.
    On,
    /// All subscriptions are confirmed.
    Joined,
    /// The ledger has been received.
    Ledger,
    /// Closed by the server with this code.
    Closed(u16),
}

/// Connection of the load tester.
#[derive(Debug)]
pub(super) struct LoadConnection {
    pub assignment: Assignment,
    pub stream: LoadStream,
    phase: Phase,
    scanner: Scanner,
    out: Vec<u8>,
    key: String,
    probe: Option<Box<Probe>>,
    /// Events in data arrays since the connection began.
    delivered: u64,
    /// Resume position of the previous connection.
    from: Option<ResumeFrom>,
    /// The handshake is held back until it is released.
    is_silent: bool,
    epoch: String,
    close_code: u16,
    renewal: TokenState,
}

impl LoadConnection {
    /// Connection that has begun to connect.
    pub(super) fn new(
        assignment: Assignment,
        stream: LoadStream,
        from: Option<ResumeFrom>,
        token: Option<Bearer>,
        is_silent: bool,
    ) -> Self {
        let probe = (assignment.role == Role::Probe).then(Box::default);
        Self {
            assignment,
            stream,
            phase: Phase::Connecting,
            scanner: Scanner::default(),
            out: Vec::new(),
            key: tokio_tungstenite::tungstenite::handshake::client::generate_key(),
            probe,
            delivered: 0,
            from,
            is_silent,
            epoch: String::new(),
            close_code: 1006,
            renewal: TokenState::new(token),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    pub(super) fn awaits_ledger(&self) -> bool {
        matches!(self.phase, Phase::Closing(_))
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Writes queued bytes until the socket is full.
    fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(taken) => _ = self.out.drain(..taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Handles a socket that may be writable.
    pub(super) fn on_writable(&mut self, settings: &TestSettings) -> Result<(), ConnectionError> {
        if matches!(self.phase, Phase::Connecting) {
            let socket = self.stream.socket();
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
            match socket.peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                connected => _ = connected?,
            }
            socket.set_nodelay(true)?;
            self.phase = Phase::Silent;
        }
        if matches!(self.phase, Phase::Silent) && !self.is_silent {
            let request = handshake::request(settings, &self.key, self.renewal.token());
            self.out.extend_from_slice(request.as_bytes());
            self.phase = Phase::Handshaking(Vec::new());
        }
        if matches!(self.phase, Phase::Silent) {
            return Ok(());
        }
        self.flush()
    }

    /// Sends the handshake if it was held back.
    pub(super) fn speak(&mut self, settings: &TestSettings) -> Result<(), ConnectionError> {
        self.is_silent = false;
        self.on_writable(settings)
    }

    /// Reads once into `buffer`; `None` if there is nothing to read.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// The server has closed its side.
    pub(super) fn end(&mut self) -> Turn {
        self.phase = Phase::Over;
        Turn::Closed(self.close_code)
    }

    /// Processes bytes received at `now`.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        now: UnixNanos,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) -> Result<Turn, ConnectionError> {
        recorder.tally.bytes += bytes.len() as u64;
        let behind;
        let mut turn = Turn::On;
        let bytes = match &mut self.phase {
            Phase::Handshaking(answer) => {
                answer.extend_from_slice(bytes);
                let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                    let is_long = answer.len() > HANDSHAKE_BYTES_MAX;
                    return if is_long {
                        Err(HandshakeError::TooLong.into())
                    } else {
                        Ok(Turn::On)
                    };
                };
                behind = answer.split_off(end + 4);
                handshake::check(answer, &self.key)?;
                recorder.tally.opened += 1;
                turn = self.begin(settings)?;
                &behind[..]
            }
            _ => bytes,
        };
        let want = match (&settings.dialect, &self.probe) {
            (Dialect::Raw(raw), _) if raw.timestamp.is_none() => Want::Messages,
            (Dialect::Raw(_), _) | (_, Some(_)) => Want::Whole,
            _ => Want::Count,
        };
        let mut scanner = std::mem::take(&mut self.scanner);
        let mut failed = None;
        let fed = scanner.feed(bytes, want, &mut |found| match self
            .on_found(found, now, settings, recorder)
        {
            Ok(Turn::On) => {}
            Ok(other) => turn = other,
            Err(error) => failed = Some(error),
        });
        self.scanner = scanner;
        if let Err(error) = fed {
            self.send_close(error.close_code());
            return Err(error.into());
        }
        failed.map_or(Ok(()), Err)?;
        self.flush()?;
        Ok(turn)
    }

    /// Continues after the handshake.
    fn begin(&mut self, settings: &TestSettings) -> Result<Turn, ConnectionError> {
        match &settings.dialect {
            // Subscribed once welcome has come.
            Dialect::Tickcast => {
                self.phase = Phase::Joining(0);
                Ok(Turn::On)
            }
            Dialect::Raw(raw) => {
                for text in &raw.send {
                    self.send(Data::Text, text.clone().into_bytes());
                }
                self.phase = Phase::Open;
                self.flush()?;
                Ok(Turn::Joined)
            }
        }
    }

    fn on_found(
        &mut self,
        found: Found<'_>,
        now: UnixNanos,
        settings: &TestSettings,
        recorder: &mut Recorder<'_>,
    ) -> Result<Turn, ConnectionError> {
        match found {
            Found::Counted(events) => {
                self.delivered += u64::from(events);
                recorder.tally.delivered += u64::from(events);
                recorder.tally.messages += 1;
            }
            Found::Message => {
                recorder.tally.delivered += 1;
                recorder.tally.messages += 1;
            }
            Found::Whole(payload) => {
                recorder.tally.messages += 1;
                return match &settings.dialect {
                    Dialect::Tickcast => self.on_message(payload, now, settings, recorder),
                    Dialect::Raw(raw) => {
                        recorder.tally.delivered += 1;
                        let totals = raw
                            .timestamp
                            .as_ref()
                            .and_then(|path| path.find(payload))
                            .filter(|_| recorder.measures);
                        if let Some(totals) = totals {
                            super::probe::record(
                                &mut recorder.latency.published,
                                totals,
                                now,
                                settings,
                                &mut recorder.tally.negative,
                            );
                        }
                        Ok(Turn::On)
                    }
                };
            }
            Found::Ping(payload) => self.send_control(ControlOpcode::Pong, payload.to_vec()),
            Found::Close(code) => {
                self.close_code = code;
                self.send_close(if code == 1005 { 1000 } else { code });
                return Ok(self.end());
            }
        }
        Ok(Turn::On)
    }

    /// Processes the accounts of the ledger, from which a reconnecting client resumes.
    pub(super) fn ledger(&mut self) -> (Vec<LedgerEntry>, Option<ResumeFrom>) {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Closing(entries) => (entries, self.from.take()),
            other => {
                self.phase = other;
                (Vec::new(), None)
            }
        }
    }

    /// Requests the ledger; events before it still count. Returns false if it could not be
    /// requested.
    pub(super) fn ask_ledger(&mut self, settings: &TestSettings) -> Result<bool, ConnectionError> {
        if !self.is_open() {
            return Ok(false);
        }
        self.phase = Phase::Closing(Vec::new());
        self.ask(Op::Ledger, 0, settings.encoding);
        self.flush()?;
        Ok(true)
    }

    /// Sends a ping as a sign of life of a connection that reads nothing.
    pub(super) fn show_life(&mut self) -> Result<(), ConnectionError> {
        self.send_control(ControlOpcode::Pong, Vec::new());
        self.flush()
    }

    /// Closes the connection; further data of the server is dropped.
    pub(super) fn close(&mut self) {
        self.send_close(1000);
        self.phase = Phase::Over;
    }

    fn send_close(&mut self, code: u16) {
        self.send_control(ControlOpcode::Close, code.to_be_bytes().to_vec());
        // A broken socket needs no close frame.
        let _broken = self.flush();
    }

    fn ask(&mut self, op: Op, id: u64, encoding: Encoding) {
        let payload = encode_request(
            &Request {
                id: Some(Id::Number(id)),
                op,
            },
            encoding,
        );
        let opcode = if encoding.is_text() {
            Data::Text
        } else {
            Data::Binary
        };
        self.send(opcode, payload);
    }

    fn send(&mut self, opcode: Data, payload: Vec<u8>) {
        self.put(Frame::message(payload, OpCode::Data(opcode), true));
    }

    fn send_control(&mut self, opcode: ControlOpcode, payload: Vec<u8>) {
        let header = FrameHeader {
            opcode: OpCode::Control(opcode),
            ..FrameHeader::default()
        };
        self.put(Frame::from_payload(header, payload.into()));
    }

    fn put(&mut self, mut frame: Frame) {
        frame.header_mut().mask = Some(rand::random());
        frame
            .format(&mut self.out)
            .expect("writing to a Vec cannot fail");
    }
}
