use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};

use super::Exit;
use crate::client::Client;
use crate::load::parse_mode;
use crate::market::{Body, write_decimal};
use crate::protocol::{
    Control, DataEvent, DeliveryWish, Encoding, Op, ServerMessage, Subscribe, Subscribed,
    decode_server_message,
};
use crate::topic::TopicName;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Topics and patterns: trade:BTC-USD, ticker:*, bar:BTC-*:1m
    #[arg(long, value_name = "TOPIC", num_args = 1.., value_delimiter = ',', default_value = "ticker:*")]
    topics: Vec<String>,
    /// The feed
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    connect: String,
    /// raw, conflate, or an interval: 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1000ms, 5000ms
    #[arg(long, default_value = "raw")]
    mode: String,
    /// Print each message as one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Some(mode) = parse_mode(&arguments.mode) else {
        super::complain(&format!(
            "--mode {}: write raw, conflate, or an interval as in 100ms",
            arguments.mode
        ));
        return Ok(Exit::Usage);
    };
    let wrong = arguments
        .topics
        .iter()
        .find_map(|text| TopicName::parse(text).err());
    if let Some(error) = wrong {
        super::complain(&error.to_string());
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let wish = DeliveryWish {
        mode: Some(mode),
        interval_ms: mode.interval_ms(),
        on_slow: None,
    };
    runtime.block_on(tail(arguments, wish))
}

async fn tail(arguments: &Arguments, wish: DeliveryWish) -> Result<Exit> {
    // JSON lines are the server's own; the table is made from the cheaper encoding.
    let encoding = if arguments.json {
        Encoding::Json
    } else {
        Encoding::Msgpack
    };
    let mut client = Client::connect(&arguments.connect, encoding)
        .await
        .with_context(|| {
            format!(
                "is there a feed at {}? start one with: tickcast",
                arguments.connect
            )
        })?;
    client
        .request(Op::Subscribe(Subscribe {
            topics: arguments.topics.clone(),
            wish,
            ..Subscribe::default()
        }))
        .await?;
    let mut view = View::new(arguments.json);
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let payload = tokio::select! {
            payload = client.next_payload() => payload?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let message = decode_server_message(&payload, encoding)?;
        if let ServerMessage::Control(Control::Subscribed(answer)) = &message {
            tell_refusals(answer);
            if answer.ok.is_empty() && !answer.more {
                bail!("nothing to show");
            }
        }
        let Ok(shown) = view.show(&message, &payload, left) else {
            break;
        };
        left -= shown;
    }
    Ok(Exit::Ok)
}

/// Says on standard error what the server refused, and what a pattern doesn't match yet.
fn tell_refusals(answer: &Subscribed) {
    for refused in &answer.err {
        super::complain(&format!("{}: {}", refused.topic, refused.message));
    }
    for entry in answer
        .ok
        .iter()
        .filter(|entry| entry.matched.as_ref().is_some_and(Vec::is_empty))
    {
        super::complain(&format!("{} matches nothing yet", entry.topic));
    }
}

/// What is printed: lines, or, on a terminal, a table that is drawn over itself.
struct View {
    json: bool,
    /// Columns and lines of the terminal; `None` where there is none.
    room: Option<(usize, usize)>,
    rows: BTreeMap<String, String>,
    drawn: usize,
}

impl View {
    fn new(json: bool) -> Self {
        let size = terminal_size::terminal_size().filter(|_| std::io::stdout().is_terminal());
        let room = size.map(|(width, height)| {
            (
                usize::from(width.0),
                usize::from(height.0).saturating_sub(2),
            )
        });
        Self {
            json,
            room,
            rows: BTreeMap::new(),
            drawn: 0,
        }
    }

    /// Prints a message; returns how many events of it, at most `most`.
    fn show(&mut self, message: &ServerMessage, payload: &[u8], most: u64) -> std::io::Result<u64> {
        let mut out = std::io::stdout().lock();
        match message {
            ServerMessage::Events(events) if self.json => {
                let events: Vec<Box<serde_json::value::RawValue>> =
                    serde_json::from_slice(payload)?;
                for event in events.iter().take(most as usize) {
                    writeln!(out, "{}", event.get())?;
                }
                return Ok((events.len() as u64).min(most));
            }
            ServerMessage::Control(_) if self.json => {
                out.write_all(payload)?;
                writeln!(out)?;
                return Ok(0);
            }
            ServerMessage::Events(events) => self.rows.extend(events.iter().map(row)),
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                self.rows.extend(snapshot.events.iter().map(row));
            }
            ServerMessage::Control(Control::Gap(gap)) => {
                self.rows.insert(
                    gap.topic.clone(),
                    format!("gap of {} ({})", gap.n, gap.cause.name()),
                );
            }
            ServerMessage::Control(_) => return Ok(0),
        }
        self.draw(&mut out)?;
        let ServerMessage::Events(events) = message else {
            return Ok(0);
        };
        Ok((events.len() as u64).min(most))
    }
}

impl View {
    fn draw(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        let Some((width, height)) = self.room else {
            // No terminal: a line for each row that changed.
            for (topic, row) in std::mem::take(&mut self.rows) {
                writeln!(out, "{topic:<24} {row}")?;
            }
            return Ok(());
        };
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        let hidden = self.rows.len().saturating_sub(height);
        for (topic, row) in self.rows.iter().take(height) {
            let line: String = format!("{topic:<20} {row}").chars().take(width).collect();
            writeln!(out, "\x1b[2K{line}")?;
        }
        self.drawn = self.rows.len().min(height);
        if hidden > 0 {
            writeln!(out, "\x1b[2K… and {hidden} more")?;
            self.drawn += 1;
        }
        out.flush()
    }
}

fn row(event: &DataEvent) -> (String, String) {
    let text = |value| {
        let mut out = Vec::new();
        write_decimal(&mut out, value);
        String::from_utf8_lossy(&out).into_owned()
    };
    let row = match &event.body {
        Body::Trade(trade) => format!(
            "{:>14} x {:<12} {}",
            text(trade.px.0),
            text(trade.qty.0),
            trade.side.name()
        ),
        Body::Quote(quote) => {
            let side = |level: Option<crate::market::Level>| {
                level.map_or("-".to_owned(), |level| text(level.px.0))
            };
            format!("{:>14} / {:<14}", side(quote.bid), side(quote.ask))
        }
        Body::Ticker(ticker) => {
            let change = ticker.chg.map_or("-".to_owned(), |chg| {
                format!("{:+.2}%", chg * rust_decimal::Decimal::ONE_HUNDRED)
            });
            format!(
                "{:>14} {change:>8}  high {}  low {}  vol {}",
                text(ticker.last.0),
                text(ticker.high.0),
                text(ticker.low.0),
                text(ticker.vol.0)
            )
        }
        Body::Bar(bar) => format!(
            "o {} h {} l {} c {} vol {} n {}{}",
            text(bar.open.0),
            text(bar.high.0),
            text(bar.low.0),
            text(bar.close.0),
            text(bar.vol.0),
            bar.n,
            if bar.done { " done" } else { "" }
        ),
        Body::Status(status) => format!("{} ({})", status.state.name(), status.src.name()),
    };
    (event.topic.to_string(), row)
}
