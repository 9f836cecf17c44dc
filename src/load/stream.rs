//! Socket of a connection of the load tester, with or without TLS.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

/// Ciphertext read at once: about one record.
const CHUNK: usize = 16 * 1024;

/// TLS settings of a test.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub config: Arc<ClientConfig>,
    /// Name that the server's certificate must have.
    pub name: ServerName<'static>,
}

/// Non-blocking socket; its TLS handshake begins with the first write.
#[derive(Debug)]
pub(super) enum LoadStream {
    Plain(TcpStream),
    Tls(Box<TlsSocket>),
}

/// Socket with a TLS session.
#[derive(Debug)]
pub(super) struct TlsSocket {
    socket: TcpStream,
    session: ClientConnection,
    /// Received ciphertext that is not decrypted yet.
    undecrypted: Vec<u8>,
}

impl LoadStream {
    pub(super) fn new(socket: TcpStream, tls: Option<&TlsSettings>) -> io::Result<Self> {
        let Some(tls) = tls else {
            return Ok(Self::Plain(socket));
        };
        let session = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        Ok(Self::Tls(Box::new(TlsSocket {
            socket,
            session: session.map_err(io::Error::other)?,
            undecrypted: Vec::new(),
        })))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        };
        registry.register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Writes some bytes; with TLS, they may be sent later by [`Self::flush`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => {
                stream.flush()?;
                let taken = stream.session.writer().write(bytes)?;
                if taken == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                match stream.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    _ => Ok(taken),
                }
            }
        }
    }

    /// Sends what was written before.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Reads as much as fits and is there; less than that only if there is no more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl TlsSocket {
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let mut received = self.undecrypted.len();
        chunk[..received].copy_from_slice(&self.undecrypted);
        self.undecrypted = Vec::new();
        let (mut decrypted, mut filled) = (0, 0);
        loop {
            match self.session.reader().read(&mut buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(filled),
                Ok(0) => {
                    self.undecrypted = chunk[decrypted..received].to_vec();
                    return Ok(filled);
                }
                Ok(read) => {
                    filled += read;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if decrypted == received {
                match self.socket.read(&mut chunk) {
                    Ok(0) => return Ok(filled),
                    Ok(read) => (decrypted, received) = (0, read),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled > 0 => {
                        return Ok(filled);
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut rest = &chunk[decrypted..received];
            self.session.read_tls(&mut rest)?;
            decrypted = received - rest.len();
            let processed = self.session.process_new_packets();
            // Messages of the handshake, or an alert; the rest is sent once the socket is writable.
            match self.flush() {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}
