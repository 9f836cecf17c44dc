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
//! # Authentication
//!
//! A [`Token`] is presented in the handshake. When the server announces its end, [`Client::next`]
//! reads it again, from its file or by its hook, and renews it without a new connection:
//!
//! ```no_run
//! use tickcast::client::{Client, ClientError, ConnectOptions, FeedUrl, Token, TokenError};
//! use tickcast::protocol::Encoding;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let feed: FeedUrl = "wss://feed.example.com:8443".parse()?;
//! let options = ConnectOptions {
//!     token: Some(Token::file("/run/feed/token")),
//!     ..ConnectOptions::new(Encoding::Json)
//! };
//! let mut client = match Client::connect_by(&feed, &options).await {
//!     Err(ClientError::Token(TokenError::File { file, error })) => {
//!         return Err(format!("{}: {error}", file.display()).into());
//!     }
//!     Err(ClientError::Refused { status: 401, reason }) => return Err(reason.into()),
//!     connected => connected?,
//! };
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
mod error;
mod held;
mod positions;
mod renewal;
mod token;
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
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, USER_AGENT,
};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::codec::is_event_array;
pub use crate::codec::{
    DecodeError, EventRef, decode_server_message, encode_request, visit_events,
};
pub use account::{Account, AccountError};
pub use accounts::Accounts;
#[cfg(feature = "echo")]
pub use echo::echo;
pub use error::ClientError;
pub use positions::Positions;
pub(crate) use renewal::is_expiry_warning;
pub(crate) use token::Bearer;
pub use token::{Token, TokenError};
pub use url::{FeedUrl, FeedUrlError};

use renewal::Renewal;

use crate::tls::MaybeTls;
pub use crate::tls::{ClientTls, Fingerprint, FingerprintError, TlsError, Trust};

use crate::protocol::{Encoding, Id, Op, Request, ServerMessage, Subscribe};

/// Name that the certificate of the server at `HOST:PORT` must have.
pub(crate) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(name.to_owned());
    name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// User agent sent in the handshake, for operators.
const AGENT: &str = concat!("tickcast-client/", env!("CARGO_PKG_VERSION"));

/// Maximum size of the messages about a token, in bytes.
const TOKEN_MESSAGE_BYTES_MAX: usize = 2048;

/// Settings of every connection.
fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(64 * 1024)
}

/// Settings of a connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Encoding of the messages.
    pub encoding: Encoding,
    /// Trusted certificates over `wss://`; `None`: the certificate authorities of the system.
    pub tls: Option<ClientTls>,
    /// Token to present in the handshake, and to renew before it ends.
    pub token: Option<Token>,
}

impl ConnectOptions {
    /// Settings without a token, with the certificate authorities of the system.
    pub const fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            tls: None,
            token: None,
        }
    }
}

/// One connection to a feed.
#[derive(Debug)]
pub struct Client {
    stream: WebSocketStream<MaybeTls<TlsStream<TcpStream>>>,
    encoding: Encoding,
    next_id: u64,
    renewal: Option<Renewal>,
    /// A request waits in the buffer of the stream.
    is_unflushed: bool,
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
        Self::connect_by(url, &ConnectOptions::new(encoding)).await
    }

    /// Connects to a URL; over `wss://` the server's certificate must be trusted by `trust`.
    pub async fn connect_with(
        url: &FeedUrl,
        trust: &ClientTls,
        encoding: Encoding,
    ) -> Result<Self, ClientError> {
        let options = ConnectOptions {
            tls: Some(trust.clone()),
            ..ConnectOptions::new(encoding)
        };
        Self::connect_by(url, &options).await
    }

    /// Connects to a URL by these settings. With a token that renews, the runtime needs its timer.
    pub async fn connect_by(url: &FeedUrl, options: &ConnectOptions) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(url.host()).await?;
        Self::open(stream, url, options).await
    }

    /// Finishes all handshakes for `url` over a socket that is connected already.
    pub(crate) async fn open(
        stream: TcpStream,
        url: &FeedUrl,
        options: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        stream.set_nodelay(true)?;
        let stream = if url.is_tls() {
            let system = || ClientTls::new(&Trust::System);
            let trust = options.tls.clone().map_or_else(system, Ok)?;
            let connector = TlsConnector::from(trust.config());
            let name = server_name(url.host())?;
            MaybeTls::Tls(Box::new(connector.connect(name, stream).await?))
        } else {
            MaybeTls::Plain(stream)
        };
        Self::handshake(stream, &url.to_string(), options).await
    }

    /// Finishes the handshake over a socket that is connected already.
    pub async fn over(stream: TcpStream, encoding: Encoding) -> Result<Self, ClientError> {
        let host = stream.peer_addr()?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{host}/v1/feed");
        let options = ConnectOptions::new(encoding);
        Self::handshake(MaybeTls::Plain(stream), &url, &options).await
    }

    /// Finishes the handshake for `url` over a stream that is connected already.
    async fn handshake(
        stream: MaybeTls<TlsStream<TcpStream>>,
        url: &str,
        options: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        let mut request = url.into_client_request()?;
        let headers = request.headers_mut();
        let subprotocol = HeaderValue::from_static(options.encoding.subprotocol());
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let renewal = match &options.token {
            None => None,
            Some(token) => {
                let bearer = token.read()?;
                headers.insert(AUTHORIZATION, bearer.header());
                Some(Renewal::new(token.clone(), bearer))
            }
        };
        let (stream, _) =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config())).await?;
        Ok(Self {
            stream,
            encoding: options.encoding,
            next_id: 1,
            renewal,
            is_unflushed: false,
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
        let (id, message) = self.encode(op);
        self.send_message(message).await?;
        Ok(id)
    }

    /// Presents a token in the session: as the first request, or instead of one that ends.
    pub async fn authenticate(&mut self, token: &Token) -> Result<Id, ClientError> {
        let token = token.read()?.text().to_owned();
        self.request(Op::Auth { token }).await
    }

    /// Message of a request, and its id.
    fn encode(&mut self, op: Op) -> (Id, Message) {
        let id = Id::Number(self.next_id);
        self.next_id += 1;
        let request = Request {
            id: Some(id.clone()),
            op,
        };
        let payload = encode_request(&request, self.encoding);
        (id, self.message(payload))
    }

    /// Sends a payload as it is, in a frame of the connection's encoding.
    pub async fn send_raw(&mut self, payload: Vec<u8>) -> Result<(), ClientError> {
        let message = self.message(payload);
        self.send_message(message).await
    }

    fn message(&self, payload: Vec<u8>) -> Message {
        if self.encoding.is_text() {
            Message::text(String::from_utf8_lossy(&payload).into_owned())
        } else {
            Message::binary(payload)
        }
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

    /// The next message's payload. Cancel-safe.
    pub async fn next_payload(&mut self) -> Result<Vec<u8>, ClientError> {
        loop {
            let closed = match self.receive().await? {
                Some(Message::Binary(bytes)) => {
                    self.watch_token(&bytes);
                    return Ok(bytes.to_vec());
                }
                Some(Message::Text(text)) => {
                    self.watch_token(text.as_bytes());
                    return Ok(text.as_bytes().to_vec());
                }
                Some(Message::Close(Some(frame))) => (frame.code.into(), frame.reason.to_string()),
                Some(Message::Close(None)) => (1005, "no status code received".to_owned()),
                Some(_) => continue,
                None => (1006, "no close frame received".to_owned()),
            };
            let (code, reason) = closed;
            return Err(ClientError::Closed { code, reason });
        }
    }

    /// The next WebSocket message. Meanwhile a token that ends is renewed.
    async fn receive(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if self.is_unflushed {
                self.stream.flush().await?;
                self.is_unflushed = false;
            }
            let Some(renewal) = self.renewal.as_mut().filter(|renewal| renewal.is_due()) else {
                return Ok(self.stream.next().await.transpose()?);
            };
            let token = tokio::select! {
                received = self.stream.next() => return Ok(received.transpose()?),
                token = renewal.next_token() => token,
            };
            let op = Op::Auth {
                token: token.text().to_owned(),
            };
            let (id, message) = self.encode(op);
            self.stream.feed(message).await?;
            if let Some(renewal) = &mut self.renewal {
                renewal.sent(token, id);
            }
            self.is_unflushed = true;
        }
    }

    /// Looks for messages about the token of this connection.
    fn watch_token(&mut self, payload: &[u8]) {
        let Some(renewal) = &mut self.renewal else {
            return;
        };
        if payload.len() > TOKEN_MESSAGE_BYTES_MAX || is_event_array(payload, self.encoding) {
            return;
        }
        if let Ok(ServerMessage::Control(control)) = decode_server_message(payload, self.encoding) {
            renewal.take(&control);
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
