//! Rust client: a typed connection to a feed, and a ledger of the events that came over it.
//!
//! # Receiving
//!
//! ```no_run
//! # async fn example() -> Result<(), tickcast::client::ClientError> {
//! use tickcast::client::Client;
//! use tickcast::protocol::{Encoding, ServerMessage};
//!
//! let mut client = Client::connect("127.0.0.1:8080", Encoding::Msgpack).await?;
//! client.subscribe(&["trade:BTC-USD", "ticker:*"]).await?;
//! loop {
//!     match client.next().await? {
//!         ServerMessage::Events(events) => println!("{events:?}"),
//!         ServerMessage::Control(control) => println!("{control:?}"),
//!     }
//! }
//! # }
//! ```
//!
//! # Verifying the server
//!
//! [`Accounts`] counts the events of each topic from the wire alone and compares the result with
//! the server's ledger. An error is a guarantee that the server broke:
//!
//! ```no_run
//! use tickcast::client::{Account, AccountError, Accounts, Client, ClientError, FeedUrl};
//! use tickcast::protocol::Encoding;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let feed: FeedUrl = "ws://127.0.0.1:8080/v1/feed".parse()?;
//! let mut client = Client::connect_to(&feed, Encoding::Json).await?;
//! client.subscribe(&["quote:BTC-USD"]).await?;
//! let mut accounts = Accounts::default();
//! loop {
//!     let message = match client.next().await {
//!         Ok(message) => message,
//!         Err(ClientError::Closed { code, reason }) => {
//!             println!("closed with {code}: {reason}");
//!             break;
//!         }
//!         Err(error) => return Err(error.into()),
//!     };
//!     match accounts.take(&message) {
//!         Ok(()) => {}
//!         Err(AccountError::UnreportedLoss { topic, from, to }) => println!("{topic}: lost {from} to {to}"),
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! let lost = |account: &Account| account.lost;
//! println!("{:?} events lost", accounts.get("quote:BTC-USD").map(lost));
//! # Ok(())
//! # }
//! ```
//!
//! # TLS
//!
//! ```no_run
//! use tickcast::client::{Client, ClientTls, FeedUrl, Fingerprint, Trust};
//! use tickcast::protocol::Encoding;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let feed: FeedUrl = "wss://feed.example.com:8443".parse()?;
//! let mut client = Client::connect_to(&feed, Encoding::Json).await?;
//!
//! // A certificate that no authority has signed, as of `tickcast serve --self-signed`.
//! let fingerprint: Fingerprint = "5F2C…".parse()?;
//! let tls = ClientTls::new(&Trust::Fingerprint(fingerprint))?;
//! let mut client = Client::connect_with(&feed, &tls, Encoding::Json).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Resuming
//!
//! [`Positions`] keeps the last sequence number of each topic; `examples/subscribe.rs` reconnects
//! with it.

mod account;
mod accounts;
#[cfg(feature = "echo")]
mod echo;
mod held;
mod positions;
mod url;

use std::io;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

pub use crate::codec::{
    DecodeError, EventRef, decode_server_message, encode_request, visit_events,
};
pub use account::{Account, AccountError};
pub use accounts::Accounts;
#[cfg(feature = "echo")]
pub use echo::echo;
pub use positions::Positions;
pub use url::{FeedUrl, FeedUrlError};

use crate::tls::MaybeTls;
pub use crate::tls::{ClientTls, Fingerprint, FingerprintError, TlsError, Trust};

use crate::protocol::{Encoding, Id, Op, Request, ServerMessage, Subscribe};

/// Reason why a connection failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No TCP connection to the server.
    #[error("cannot connect to the server: {0}")]
    Connect(#[from] io::Error),
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The handshake or the WebSocket itself failed.
    #[error("WebSocket error: {0}")]
    WebSocket(Box<tokio_tungstenite::tungstenite::Error>),
    /// A message does not conform to the protocol.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The server closed the connection.
    #[error("the server closed the connection with code {code}: {reason}")]
    Closed {
        /// The close frame's code; 1006 without one.
        code: u16,
        /// The close frame's text.
        reason: String,
    },
}

impl From<tokio_tungstenite::tungstenite::Error> for ClientError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

/// Name that the certificate of the server at `HOST:PORT` must have.
pub(crate) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(name.to_owned());
    name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// User agent sent in the handshake, for operators.
const AGENT: &str = concat!("tickcast-client/", env!("CARGO_PKG_VERSION"));

/// Settings of every connection.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(64 * 1024)
}

/// One connection to a feed.
#[derive(Debug)]
pub struct Client {
    stream: WebSocketStream<MaybeTls<TlsStream<TcpStream>>>,
    encoding: Encoding,
    next_id: u64,
}

impl Client {
    /// Connects to `HOST:PORT` and finishes the handshake; the first message is `welcome`.
    pub async fn connect(
        address: impl ToSocketAddrs,
        encoding: Encoding,
    ) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address).await?;
        Self::over(stream, encoding).await
    }

    /// Connects to a URL, which may have a path prefix. Over `wss://` the system's certificate
    /// authorities are trusted.
    pub async fn connect_to(url: &FeedUrl, encoding: Encoding) -> Result<Self, ClientError> {
        let trust = url.is_tls().then(|| ClientTls::new(&Trust::System));
        let stream = TcpStream::connect(url.host()).await?;
        Self::open(stream, url, trust.transpose()?.as_ref(), encoding).await
    }

    /// Connects to a URL; over `wss://` the server's certificate must be trusted by `trust`.
    pub async fn connect_with(
        url: &FeedUrl,
        trust: &ClientTls,
        encoding: Encoding,
    ) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(url.host()).await?;
        Self::open(stream, url, url.is_tls().then_some(trust), encoding).await
    }

    /// Finishes all handshakes for `url` over a socket that is connected already; with TLS if
    /// there is a `trust`.
    pub(crate) async fn open(
        stream: TcpStream,
        url: &FeedUrl,
        trust: Option<&ClientTls>,
        encoding: Encoding,
    ) -> Result<Self, ClientError> {
        stream.set_nodelay(true)?;
        let stream = match trust {
            None => MaybeTls::Plain(stream),
            Some(trust) => {
                let connector = TlsConnector::from(trust.config());
                let name = server_name(url.host())?;
                MaybeTls::Tls(Box::new(connector.connect(name, stream).await?))
            }
        };
        Self::handshake(stream, &url.to_string(), encoding).await
    }

    /// Finishes the handshake over a socket that is connected already.
    pub async fn over(stream: TcpStream, encoding: Encoding) -> Result<Self, ClientError> {
        let host = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{host}/v1/feed");
        Self::handshake(MaybeTls::Plain(stream), &url, encoding).await
    }

    /// Finishes the handshake for `url` over a stream that is connected already.
    async fn handshake(
        stream: MaybeTls<TlsStream<TcpStream>>,
        url: &str,
        encoding: Encoding,
    ) -> Result<Self, ClientError> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(encoding.subprotocol()),
        );
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let (stream, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await?;
        Ok(Self {
            stream,
            encoding,
            next_id: 1,
        })
    }

    /// The connection's encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self.stream.get_ref() {
            MaybeTls::Plain(stream) => stream,
            MaybeTls::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Sends a request with the next id, which is returned.
    pub async fn request(&mut self, op: Op) -> Result<Id, ClientError> {
        let id = Id::Number(self.next_id);
        self.next_id += 1;
        let payload = encode_request(
            &Request {
                id: Some(id.clone()),
                op,
            },
            self.encoding,
        );
        self.send_raw(payload).await?;
        Ok(id)
    }

    /// Sends a payload as it is, in a frame of the connection's encoding.
    pub async fn send_raw(&mut self, payload: Vec<u8>) -> Result<(), ClientError> {
        let message = if self.encoding.is_text() {
            Message::text(String::from_utf8_lossy(&payload).into_owned())
        } else {
            Message::binary(payload)
        };
        self.send_message(message).await
    }

    /// Sends any WebSocket message.
    pub async fn send_message(&mut self, message: Message) -> Result<(), ClientError> {
        Ok(self.stream.send(message).await?)
    }

    /// Subscribes with the defaults of each channel.
    pub async fn subscribe(&mut self, topics: &[&str]) -> Result<Id, ClientError> {
        let topics = topics.iter().map(|topic| (*topic).into()).collect();
        self.request(Op::Subscribe(Subscribe {
            topics,
            ..Subscribe::default()
        }))
        .await
    }

    /// The next message's payload.
    pub async fn next_payload(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            match self.stream.next().await.transpose()? {
                Some(Message::Binary(bytes)) => return Ok(bytes.to_vec()),
                Some(Message::Text(text)) => return Ok(text.as_bytes().to_vec()),
                Some(Message::Close(Some(frame))) => {
                    return Err(ClientError::Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                    });
                }
                Some(Message::Close(None)) => {
                    return Err(ClientError::Closed {
                        code: 1005,
                        reason: "no status code received".to_owned(),
                    });
                }
                Some(_) => {}
                None => {
                    return Err(ClientError::Closed {
                        code: 1006,
                        reason: "no close frame received".to_owned(),
                    });
                }
            }
        }
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<ServerMessage, ClientError> {
        let payload = self.next_payload().await?;
        Ok(decode_server_message(&payload, self.encoding)?)
    }

    /// Closes from this side.
    pub async fn close(mut self) -> Result<(), ClientError> {
        Ok(self.stream.close(None).await?)
    }
}
