//! Socket of a connection of the load tester, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

use super::plan::{Assignment, Role};

/// Ciphertext read at once: about one record.
const CHUNK: usize = 16 * 1024;
/// Receive buffer of connections that read slowly or not at all.
const SMALL_RECEIVE_BUFFER: usize = 4096;

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

/// Begins to connect; each group of connections has its own loopback address, because ports run
/// out.
pub(super) fn connect(
    address: SocketAddr,
    assignment: &Assignment,
    sources: usize,
) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    if matches!(assignment.role, Role::Slow | Role::Stalled) {
        socket.set_recv_buffer_size(SMALL_RECEIVE_BUFFER)?;
    }
    if let (IpAddr::V4(ip), true) = (address.ip(), sources > 1)
        && ip.is_loopback()
    {
        let source = IpAddr::from([127, 0, 0, 2 + (assignment.number % sources) as u8]);
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        // The poll reports the end of the connect.
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        connected => connected?,
    }
    Ok(TcpStream::from_std(socket.into()))
}
