//! Test harness: a feed on its own port, and clients that keep accounts.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tickcast::app::App;
use tickcast::client::{Accounts, Client, ClientError};
use tickcast::clock::Clock;
use tickcast::config::Config;
use tickcast::market::UnixNanos;
use tickcast::protocol::{
    Control, DataEvent, DeliveryWish, Encoding, Mode, OnSlow, Op, ServerMessage, Subscribe,
    Subscribed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Maximum time for any step on a shared machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Stopwatch for tests.
pub(crate) struct Stopwatch(Clock, UnixNanos);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let clock = Clock::start();
        Self(clock, clock.now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.now().since(self.1)
    }
}

/// A running server.
pub(crate) struct Feed {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
}

/// Market of `instruments` with a number of events per second over all of them, and other sections
/// of the config.
pub(crate) fn market(instruments: usize, rate: usize, rest: &str) -> String {
    let each = rate as f64 / instruments as f64;
    let list: Vec<String> = (1..=instruments)
        .map(|n| format!("{{symbol: S{n}, start: 100, rate: {each}/s, stale_after: 1h}}"))
        .collect();
    format!(
        "sources: [{{name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [{}]}}]\n{rest}\n",
        list.join(", ")
    )
}

impl Feed {
    pub(crate) async fn start(config: &str) -> Result<Self> {
        let text = if config.contains("admin: {") {
            config.replace("admin: {", "admin: {listen: 127.0.0.1:0, ")
        } else {
            format!("admin: {{listen: 127.0.0.1:0}}\n{config}")
        };
        let text = format!("listen: 127.0.0.1:0\n{text}");
        let config = Config::parse(&text, "test").with_context(|| text.clone())?;
        let app = App::start(&config).await?;
        Ok(Self {
            address: app.address(),
            app,
        })
    }

    pub(crate) async fn market(instruments: usize, rate: usize) -> Result<Self> {
        Self::start(&market(instruments, rate, "")).await
    }

    pub(crate) async fn client(&self, encoding: Encoding) -> Result<Tracked> {
        Tracked::welcome(Client::connect(self.address, encoding).await?).await
    }

    /// Client with a small receive buffer, so it falls behind immediately if it does not read.
    pub(crate) async fn small_client(&self, encoding: Encoding) -> Result<Tracked> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let stream = socket.connect(self.address).await?;
        Tracked::welcome(Client::over(stream, encoding).await?).await
    }

    /// Sends an HTTP request as text; returns the whole response.
    pub(crate) async fn http(&self, request: &str) -> Result<String> {
        exchange(self.address, request.as_bytes()).await
    }

    /// Body of a GET response.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let response = self
            .http(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ))
            .await?;
        let (head, body) = response
            .split_once("\r\n\r\n")
            .context("the HTTP response has no body")?;
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            return unchunked(body);
        }
        Ok(body.to_owned())
    }

    /// Value of a metric, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8_lossy(&self.app.metrics().render()).into_owned();
        let of_name =
            |line: &&str| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']);
        let value = |line: &str| {
            line.rsplit(' ')
                .next()
                .and_then(|value| value.parse::<f64>().ok())
        };
        text.lines().filter(of_name).filter_map(value).sum()
    }

    /// Value of a counter by its only label: `counted("handshakes_rejected", "host")`.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.app.metrics().render()).into_owned();
        let (start, label) = (
            format!("tickcast_{name}_total{{"),
            format!("\"{label}\"}} "),
        );
        let of_label = |line: &str| {
            line.strip_prefix(&start)?
                .split_once(&label)?
                .1
                .parse()
                .ok()
        };
        text.lines().find_map(of_label).unwrap_or(0)
    }

    /// Waits until a condition on the server holds.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            while !holds(self) {
                looks.tick().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .with_context(|| format!("timeout waiting for {what}"))
    }
}

/// Decodes a chunked body.
pub(crate) fn unchunked(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").context("missing chunk length")?;
        let length = usize::from_str_radix(length, 16)?;
        if length == 0 {
            return Ok(body);
        }
        let chunk = after
            .get(..length)
            .context("incomplete or non-UTF-8 chunk")?;
        body.push_str(chunk);
        rest = after[length..]
            .strip_prefix("\r\n")
            .context("missing end of chunk")?;
    }
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut response = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut response)).await?;
    // A reset after the response is an end too.
    if response.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Client that keeps its own accounts.
pub(crate) struct Tracked {
    pub(crate) client: Client,
    pub(crate) accounts: Accounts,
    pub(crate) welcome: tickcast::protocol::Welcome,
}

pub(crate) fn subscribe(topics: &[&str]) -> Subscribe {
    Subscribe {
        topics: topics.iter().map(|topic| (*topic).into()).collect(),
        ..Subscribe::default()
    }
}

pub(crate) fn wish(mode: Mode, on_slow: Option<OnSlow>) -> DeliveryWish {
    DeliveryWish {
        mode: Some(mode),
        interval_ms: mode.interval_ms(),
        on_slow,
    }
}

impl Tracked {
    pub(crate) async fn welcome(mut client: Client) -> Result<Self> {
        match deadline(client.next()).await?? {
            ServerMessage::Control(Control::Welcome(welcome)) => Ok(Self {
                client,
                accounts: Accounts::default(),
                welcome,
            }),
            other => bail!("expected welcome as the first message, received {other:?}"),
        }
    }

    /// Next message, after it has been added to the accounts.
    pub(crate) async fn next(&mut self) -> Result<ServerMessage> {
        let message = deadline(self.client.next()).await??;
        self.accounts.take(&message)?;
        Ok(message)
    }

    /// Next message for which `wanted` returns a value.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&ServerMessage) -> Option<T>,
    ) -> Result<T> {
        let waiting = async {
            loop {
                let message = self.next().await?;
                if let Some(found) = wanted(&message) {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .with_context(|| format!("timeout waiting for {what}"))?
    }

    /// Next control message for which `wanted` returns a value.
    pub(crate) async fn control<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Control) -> Option<T>,
    ) -> Result<T> {
        self.until(what, |message| match message {
            ServerMessage::Control(control) => wanted(control),
            ServerMessage::Events(_) => None,
        })
        .await
    }

    pub(crate) async fn ask(&mut self, op: Op) -> Result<()> {
        self.client.request(op).await?;
        Ok(())
    }

    /// Subscribes and waits for the response.
    pub(crate) async fn subscribe(&mut self, request: Subscribe) -> Result<Subscribed> {
        self.ask(Op::Subscribe(request)).await?;
        self.subscribed().await
    }

    /// Complete response, from all of its parts.
    pub(crate) async fn subscribed(&mut self) -> Result<Subscribed> {
        let (mut ok, mut err) = (Vec::new(), Vec::new());
        loop {
            let mut part = self
                .control("subscribed", |control| match control {
                    Control::Subscribed(subscribed) => Some(subscribed.clone()),
                    _ => None,
                })
                .await?;
            ok.append(&mut part.ok);
            err.append(&mut part.err);
            if !part.more {
                return Ok(Subscribed { ok, err, ..part });
            }
        }
    }

    /// Reads this number of events and all messages between them.
    pub(crate) async fn events(&mut self, count: usize) -> Result<Vec<DataEvent>> {
        let mut events = Vec::new();
        let begun = Stopwatch::start();
        while events.len() < count {
            // Heartbeats alone do not count as progress.
            let waited = begun.elapsed();
            anyhow::ensure!(waited < DEADLINE * 4, "{} of {count} events", events.len());
            if let ServerMessage::Events(more) = self.next().await? {
                events.extend(more);
            }
        }
        Ok(events)
    }

    /// Requests the ledger, which the accounts compare with their own.
    pub(crate) async fn ledger(&mut self) -> Result<Vec<tickcast::protocol::LedgerEntry>> {
        self.ask(Op::Ledger).await?;
        self.control("ledger", |control| match control {
            Control::Ledger(ledger) => Some(ledger.topics.clone()),
            _ => None,
        })
        .await
    }

    /// Code and message of the next error.
    pub(crate) async fn error(&mut self) -> Result<(u16, String)> {
        self.control("error", |control| match control {
            Control::Error(error) => Some((error.code, error.message.clone())),
            _ => None,
        })
        .await
    }

    /// Reads until the server closes; returns the `bye` before it and the close code.
    pub(crate) async fn closed(&mut self) -> Result<(Option<tickcast::protocol::Bye>, u16)> {
        // Heartbeats of a connection that is not closed do not extend the deadline.
        let closing = async {
            let mut bye = None;
            loop {
                match self.client.next().await {
                    Ok(ServerMessage::Control(Control::Bye(last))) => bye = Some(last),
                    Ok(message) => self.accounts.take(&message)?,
                    Err(ClientError::Closed { code, .. }) => return Ok((bye, code)),
                    Err(error) => return Err(error.into()),
                }
            }
        };
        tokio::time::timeout(DEADLINE, closing)
            .await
            .context("timeout waiting for the close")?
    }
}

pub(crate) async fn deadline<T>(future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, future)
        .await
        .context("no message received in time")
}
