//! TLS of a connection: one non-blocking socket, and the records on it.

use std::io::{self, Read, Write};

use rustls::ServerConnection;

/// Ciphertext that waits in memory while the socket accepts none. Then the socket counts as full,
/// so that events stay in the outbox.
pub const TLS_UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Reads from the socket per call without any plaintext, such as of key updates.
const FRUITLESS_READS_MAX: usize = 4;

/// Socket whose TLS handshake is finished.
#[derive(Debug)]
pub struct TlsStream<S> {
    pub(super) socket: S,
    session: ServerConnection,
}

impl<S: Read + Write> TlsStream<S> {
    pub(super) fn new(socket: S, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(TLS_UNSENT_BYTES_MAX));
        Self { socket, session }
    }

    /// Encrypts and writes some bytes. `WouldBlock` while earlier bytes are unsent; bytes that were
    /// taken may be unsent as well, until [`Self::flush`] succeeds.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.session.writer().write(bytes)?;
        match self.flush() {
            Ok(()) => Ok(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(taken),
            Err(error) => Err(error),
        }
    }

    /// Writes the ciphertext that waits; `WouldBlock` if the socket does not accept all of it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_some) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some plaintext, from memory first. Only `WouldBlock` means that both the memory and
    /// the socket are empty.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for _ in 0..FRUITLESS_READS_MAX {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // An end without the peer's notice.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.session.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            let processed = self.session.process_new_packets();
            // An alert about an invalid record, or the answer to a key update.
            let _sent_with_the_next_write = self.flush();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        // There may be more; other connections are served first.
        Err(io::ErrorKind::Interrupted.into())
    }

    /// True if the socket has accepted all ciphertext.
    pub(super) fn is_flushed(&self) -> bool {
        !self.session.wants_write()
    }

    /// Announces the end of the stream, as far as the socket accepts it.
    pub(super) fn notify_close(&mut self) {
        self.session.send_close_notify();
        let _unsent = self.flush();
    }
}
