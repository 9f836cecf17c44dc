//! The connection of `tail`: subscribes, and after a disconnect reconnects and resumes.

use std::time::Duration;

use anyhow::{Result, bail};
use rand::RngExt;
use tokio::time::sleep_until;

use super::{Arguments, note};
use crate::cli::token::Refusal;
use crate::client::{Client, ClientError, ConnectOptions, Positions, Token, is_expiry_warning};
use crate::clock::Clock;
use crate::codec::{decode_server_message, encode_request};
use crate::market::UnixNanos;
use crate::printable::printable;
use crate::protocol::{
    Bye, Code, Control, DeliveryWish, Encoding, Id, Op, Request, ServerMessage, SnapshotWish,
    Subscribe, Subscribed,
};

/// Longest wait before the second attempt to reconnect; it doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A subscription that outlives its connections.
pub(super) struct Feed<'a> {
    arguments: &'a Arguments,
    options: ConnectOptions,
    wish: DeliveryWish,
    clock: Clock,
    client: Option<Client>,
    positions: Positions,
    /// Latest `bye`, which determines whether to reconnect.
    bye: Option<Bye>,
    /// Attempts since the last message.
    attempts: u32,
    /// Time of the next attempt, while disconnected.
    retry_at: Option<UnixNanos>,
    /// Maximum request size accepted by the server, in bytes.
    request_bytes_max: usize,
    last_message: UnixNanos,
}

/// Id of the only request of `tail` itself: the first one of a client.
const SUBSCRIBE_ID: Id = Id::Number(1);
/// State in `welcome` of a client that must authenticate.
const AUTH_REQUIRED: &str = "required";

/// True for close codes after which reconnecting cannot succeed (protocol, *Errors and close
/// codes*).
fn is_final(code: u16) -> bool {
    matches!(code, 4400..=4404 | 1002 | 1007 | 1009)
}

impl<'a> Feed<'a> {
    /// Connects and subscribes; a failed first attempt is an error.
    pub(super) async fn connect(
        arguments: &'a Arguments,
        encoding: Encoding,
        wish: DeliveryWish,
    ) -> Result<Self> {
        let clock = Clock::start();
        let tls = arguments.connect.is_tls().then(|| arguments.trust.read());
        let mut feed = Self {
            arguments,
            options: ConnectOptions {
                tls: tls.transpose()?,
                token: arguments.token.token(),
                encoding,
            },
            wish,
            clock,
            client: None,
            positions: Positions::default(),
            bye: None,
            attempts: 0,
            retry_at: None,
            request_bytes_max: usize::MAX,
            last_message: clock.now(),
        };
        let opened = feed.open().await;
        opened.map_err(|error| feed.connect_error(error))?;
        Ok(feed)
    }

    /// Connection state, as text.
    pub(super) fn state(&self) -> String {
        match self.retry_at {
            None => "connected".to_owned(),
            Some(at) => format!(
                "reconnecting in {:.0} s",
                at.since(self.clock.now()).as_secs_f64()
            ),
        }
    }

    /// Time since the last message.
    pub(super) fn silence(&self) -> Duration {
        self.clock.now().since(self.last_message)
    }

    fn connect_error(&self, error: ClientError) -> anyhow::Error {
        let Arguments { connect, token, .. } = self.arguments;
        crate::cli::connect_error(connect.host(), error, token)
    }

    /// True if the next connection may present another token.
    fn token_renews(&self) -> bool {
        self.options.token.as_ref().is_some_and(Token::renews)
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let mut client = Client::connect_by(&self.arguments.connect, &self.options).await?;
        let subscribe = |from| {
            Op::Subscribe(Subscribe {
                topics: self.arguments.topics.iter().map(Into::into).collect(),
                wish: self.wish,
                snapshot: self.arguments.no_snapshot.then_some(SnapshotWish::No),
                from,
                ..Subscribe::default()
            })
        };
        let mut op = subscribe(self.positions.resume_from());
        let id = Some(SUBSCRIBE_ID);
        let request = Request { id, op };
        if encode_request(&request, self.options.encoding).len() > self.request_bytes_max {
            note("too many topics to resume in one request; subscribing without resume");
            self.positions = Positions::default();
            op = subscribe(None);
        } else {
            op = request.op;
        }
        client.request(op).await?;
        self.client = Some(client);
        (self.bye, self.retry_at) = (None, None);
        Ok(())
    }

    /// Next message with its payload; `None` if only the connection changed. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<(ServerMessage, Vec<u8>)>> {
        if let Some(at) = self.retry_at {
            sleep_until(self.clock.instant_at(at)).await;
            self.retry().await?;
            return Ok(None);
        }
        let Some(client) = &mut self.client else {
            bail!("connection lost");
        };
        match client.next_payload().await {
            Ok(payload) => {
                let message = decode_server_message(&payload, self.options.encoding)?;
                self.on_message(&message)?;
                Ok(Some((message, payload)))
            }
            Err(error) => {
                self.on_disconnect(&error)?;
                Ok(None)
            }
        }
    }

    async fn retry(&mut self) -> Result<()> {
        match self.open().await {
            Ok(()) => note("reconnected"),
            Err(error) => {
                let is_refused = Refusal::of_error(&error).is_some();
                let why = self.connect_error(error);
                if is_refused && !self.token_renews() {
                    return Err(why);
                }
                let wait = self.back_off();
                note(&format!("{why}; retrying in {:.1} s", wait.as_secs_f64()));
            }
        }
        Ok(())
    }

    fn on_message(&mut self, message: &ServerMessage) -> Result<()> {
        self.attempts = 0;
        self.last_message = self.clock.now();
        self.positions.take(message);
        match message {
            ServerMessage::Control(Control::Welcome(welcome)) => {
                self.request_bytes_max = welcome.limits.message_bytes as usize;
                if welcome.auth == AUTH_REQUIRED {
                    let remedy = self.arguments.token.remedy(Refusal::Rejected);
                    bail!("the server requires authentication{remedy}");
                }
            }
            ServerMessage::Control(Control::Subscribed(answer)) => {
                note_refusals(answer);
                if answer.ok.is_empty() && !answer.more {
                    bail!("the server rejected all topics");
                }
            }
            ServerMessage::Control(control) if is_expiry_warning(control) => {
                self.on_expiry_warning();
            }
            // The close that follows decides whether to reconnect.
            ServerMessage::Control(Control::Error(error))
                if error.code == Code::AuthFailed.number() =>
            {
                note(&printable(&error.message));
            }
            // The client repeats a renewal that was refused for now.
            ServerMessage::Control(Control::Error(error))
                if error.retry_ms.is_some() && error.id != Some(SUBSCRIBE_ID) => {}
            ServerMessage::Control(Control::Error(error)) => {
                bail!(
                    "request rejected by the server: {}",
                    printable(&error.message)
                );
            }
            ServerMessage::Control(Control::Bye(bye)) => self.bye = Some(bye.clone()),
            _ => {}
        }
        Ok(())
    }

    /// A token that cannot be renewed ends within a minute; others are renewed by the client.
    fn on_expiry_warning(&self) {
        if !self.token_renews() {
            note("the token expires within a minute; use --token-file to renew it");
        }
    }

    /// Schedules a reconnect, or fails, by `bye` or by the close code.
    fn on_disconnect(&mut self, error: &ClientError) -> Result<()> {
        self.client = None;
        let (why, reconnects, after) = match (&self.bye, error) {
            (Some(bye), _) => (
                printable(&bye.message).into_owned(),
                bye.reconnect,
                Some(Duration::from_millis(bye.after_ms)),
            ),
            (None, ClientError::Closed { code, .. }) => (error.to_string(), !is_final(*code), None),
            (None, _) => (error.to_string(), true, None),
        };
        let refusal = match &self.bye {
            Some(bye) => Refusal::of_code(bye.code),
            None => Refusal::of_error(error),
        };
        let remedy = refusal.map(|refusal| self.arguments.token.remedy(refusal));
        let why = printable(&why);
        // The file may have another token by now; if not, the handshake is refused.
        let renews = refusal.is_some() && self.token_renews();
        if !(reconnects || renews) || self.arguments.no_reconnect {
            bail!("disconnected: {why}{}", remedy.unwrap_or_default());
        }
        let after = after.filter(|_| !renews);
        let wait = match after {
            Some(slot) => {
                self.retry_at = Some(self.clock.now().plus(slot));
                slot
            }
            None => self.back_off(),
        };
        note(&format!(
            "disconnected: {why}; reconnecting in {:.1} s",
            wait.as_secs_f64()
        ));
        Ok(())
    }

    /// Schedules the next attempt: a random delay below a bound that doubles from 1 s to 30 s.
    fn back_off(&mut self) -> Duration {
        let longest = FIRST_WAIT
            .saturating_mul(1 << self.attempts.min(5))
            .min(LONGEST_WAIT);
        self.attempts += 1;
        let wait = longest.mul_f64(rand::rng().random::<f64>());
        self.retry_at = Some(self.clock.now().plus(wait));
        wait
    }
}

/// Prints rejected topics, and patterns without a match, on standard error.
fn note_refusals(answer: &Subscribed) {
    for refused in &answer.err {
        note(&format!(
            "{}: {}",
            printable(&refused.topic),
            printable(&refused.message)
        ));
    }
    for entry in &answer.ok {
        if entry.matched.as_ref().is_some_and(Vec::is_empty) {
            note(&format!(
                "{}: no topic matches yet",
                printable(&entry.topic)
            ));
        }
    }
}
