//! TLS of a connection: one non-blocking socket, and the records on it.

use std::io::{self, Read, Write};

use rustls::ServerConnection;

use crate::limits::TLS_UNSENT_BYTES_MAX;

/// Reads from the socket per call without any plaintext, such as of key updates.
const FRUITLESS_READS_MAX: usize = 4;

/// Socket whose TLS handshake is finished.
#[derive(Debug)]
pub struct TlsStream<S> {
    pub(super) socket: S,
    session: ServerConnection,
}

impl<S: Read + Write> TlsStream<S> {
    /// Ciphertext is bounded: while it waits the socket counts as full, and events stay in the
    /// outbox.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, Connection};

    use crate::tls::{
        Certificate, ClientCertificates, ClientTls, MinVersion, SelfSigned, TlsFiles, Trust,
        server_config,
    };

    /// Socket in memory, with a bound on what it accepts.
    #[derive(Debug, Default)]
    struct Pipe {
        received: VecDeque<u8>,
        sent: Vec<u8>,
        room: usize,
    }

    impl Read for Pipe {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.received.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.received.read(buffer)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= taken;
            self.sent.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn copy(from: &mut Connection, to: &mut Connection) {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).expect("memory accepts all");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            to.read_tls(&mut rest).expect("a record fits");
            to.process_new_packets().expect("a valid record");
        }
    }

    /// A server's stream after the handshake, and its client.
    fn connected(min_version: MinVersion) -> (TlsStream<Pipe>, ClientConnection) {
        let files = TlsFiles {
            certificate: Certificate::SelfSigned(SelfSigned::new().expect("a certificate")),
            client_ca: None,
            client_certificates: ClientCertificates::Off,
            min_version,
        };
        let config = server_config(&files).expect("a valid certificate").config;
        let tls = ClientTls::new(&Trust::Any).expect("no files");
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(tls.config(), name).expect("valid settings");
        let server = ServerConnection::new(Arc::clone(&config)).expect("valid settings");
        let (mut client, mut server) = (Connection::from(client), Connection::from(server));
        while client.is_handshaking() || server.is_handshaking() {
            copy(&mut client, &mut server);
            copy(&mut server, &mut client);
        }
        let (Connection::Client(client), Connection::Server(server)) = (client, server) else {
            unreachable!("the sides keep their roles")
        };
        (TlsStream::new(Pipe::default(), server), client)
    }

    /// Plaintext of everything that the server has sent.
    fn received(stream: &mut TlsStream<Pipe>, client: &mut ClientConnection) -> Vec<u8> {
        let wire = std::mem::take(&mut stream.socket.sent);
        let (mut rest, mut text) = (&wire[..], Vec::new());
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a record fits");
            client.process_new_packets().expect("a valid record");
            let mut some = [0; 16 * 1024];
            while let Ok(read @ 1..) = client.reader().read(&mut some) {
                text.extend_from_slice(&some[..read]);
            }
        }
        text
    }

    #[test]
    fn a_full_socket_bounds_the_ciphertext_and_gets_it_later() {
        let (mut stream, mut client) = connected(MinVersion::Tls12);
        let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let mut taken = 0;
        let full = loop {
            match stream.write(&bytes[taken..]) {
                Ok(some) => taken += some,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!((1..=TLS_UNSENT_BYTES_MAX).contains(&taken), "{taken}");
        assert!(!stream.is_flushed());
        // Byte by byte, without another write.
        let mut text = Vec::new();
        while stream.flush().is_err() {
            stream.socket.room = 1000;
        }
        assert!(stream.is_flushed());
        text.extend(received(&mut stream, &mut client));
        assert_eq!(text, bytes[..taken]);
        stream.socket.room = usize::MAX;
        while taken < bytes.len() {
            taken += stream.write(&bytes[taken..]).expect("there is room");
        }
        text.extend(received(&mut stream, &mut client));
        assert!(text == bytes, "every byte arrives once, in order");
    }

    #[test]
    fn a_read_returns_all_plaintext_before_it_would_block() {
        let (mut stream, mut client) = connected(MinVersion::Tls12);
        client
            .writer()
            .write_all(&[7; 10_000])
            .expect("room for it");
        while client.wants_write() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).expect("memory accepts all");
            stream.socket.received.extend(wire);
        }
        let (mut all, mut some) = (0, [0; 100]);
        let empty = loop {
            match stream.read(&mut some) {
                Ok(read) => all += read,
                // A turn's share of records that are incomplete.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        assert_eq!((all, empty.kind()), (10_000, io::ErrorKind::WouldBlock));
        assert!(stream.socket.received.is_empty());
    }

    #[test]
    fn a_key_update_is_answered_and_reads_without_plaintext_are_bounded() {
        let (mut stream, mut client) = connected(MinVersion::Tls13);
        stream.socket.room = usize::MAX;
        client.refresh_traffic_keys().expect("TLS 1.3");
        client.writer().write_all(b"after").expect("room for it");
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory accepts all");
        }
        stream.socket.received.extend(wire);
        let mut some = [0; 100];
        assert_eq!(stream.read(&mut some).expect("data"), 5);
        stream.write(b"answer").expect("there is room");
        assert_eq!(received(&mut stream, &mut client), b"answer");
        // Empty records: any number of them, and the shard is not held.
        let mut wire = Vec::new();
        for _ in 0..2000 {
            client.writer().write_all(b"").expect("room for it");
            client.refresh_traffic_keys().expect("TLS 1.3");
            client.write_tls(&mut wire).expect("memory accepts all");
        }
        stream.socket.received.extend(wire);
        let ended = stream.read(&mut some).expect_err("no plaintext");
        assert!(
            matches!(
                ended.kind(),
                io::ErrorKind::Interrupted | io::ErrorKind::InvalidData
            ),
            "{ended}"
        );
        assert!(
            !stream.socket.received.is_empty(),
            "the rest is left unread"
        );
    }

    #[test]
    fn the_end_of_the_stream_is_announced() {
        let (mut stream, mut client) = connected(MinVersion::Tls12);
        stream.socket.room = usize::MAX;
        stream.write(b"last").expect("there is room");
        stream.notify_close();
        assert_eq!(received(&mut stream, &mut client), b"last");
        assert_eq!(
            client.reader().read(&mut [0; 8]).ok(),
            Some(0),
            "close_notify"
        );
    }

    #[test]
    fn invalid_records_end_the_stream() {
        let (mut stream, _client) = connected(MinVersion::Tls12);
        stream.socket.room = usize::MAX;
        stream.socket.received.extend([23, 3, 3, 0, 32]);
        stream.socket.received.extend([0; 32]);
        let broken = stream
            .read(&mut [0; 8])
            .expect_err("not a record of the client");
        assert_eq!(broken.kind(), io::ErrorKind::InvalidData);
        assert!(!stream.socket.sent.is_empty(), "the client gets an alert");
    }
}
