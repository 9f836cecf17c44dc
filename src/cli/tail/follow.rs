//! The connection of `tail`: subscribes, and after a disconnect reconnects and resumes.

use std::time::Duration;

use anyhow::{Result, bail};
use rand::RngExt;
use tokio::time::sleep_until;

use super::{Arguments, note};
use crate::client::{Client, ClientError, ClientTls, Positions};
use crate::clock::Clock;
use crate::codec::{decode_server_message, encode_request};
use crate::market::UnixNanos;
use crate::printable::printable;
use crate::protocol::{
    Bye, Control, DeliveryWish, Encoding, Id, Op, Request, ServerMessage, SnapshotWish, Subscribe,
    Subscribed,
};

/// Longest wait before the second attempt to reconnect; it doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A subscription that outlives its connections.
pub(super) struct Feed<'a> {
    arguments: &'a Arguments,
    tls: Option<ClientTls>,
    encoding: Encoding,
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
            tls: tls.transpose()?,
            encoding,
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
        feed.open()
            .await
            .map_err(|error| crate::cli::connect_error(arguments.connect.host(), error))?;
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

    async fn open(&mut self) -> Result<(), ClientError> {
        let url = &self.arguments.connect;
        let mut client = match &self.tls {
            Some(tls) => Client::connect_with(url, tls, self.encoding).await?,
            None => Client::connect_to(url, self.encoding).await?,
        };
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
        let id = Some(Id::Number(1));
        let request = Request { id, op };
        if encode_request(&request, self.encoding).len() > self.request_bytes_max {
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
                let message = decode_server_message(&payload, self.encoding)?;
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
                let why = crate::cli::connect_error(self.arguments.connect.host(), error);
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
            }
            ServerMessage::Control(Control::Subscribed(answer)) => {
                note_refusals(answer);
                if answer.ok.is_empty() && !answer.more {
                    bail!("the server rejected all topics");
                }
            }
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
        let why = printable(&why);
        if !reconnects || self.arguments.no_reconnect {
            bail!("disconnected: {why}");
        }
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
