//! `tickcast tail`: a subscription in the terminal, which reconnects and resumes.

mod columns;
mod follow;
mod lines;
mod table;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};

use super::Exit;
use super::token::TokenArguments;
use super::trust::TrustArguments;
use crate::client::FeedUrl;
use crate::load::parse_mode;
use crate::protocol::{DeliveryWish, Encoding, ServerMessage};
use crate::topic::TopicName;
use follow::Feed;
use lines::{Csv, Json, Text};
use table::Table;

#[derive(Debug, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are independent of each other"
)]
pub(super) struct Arguments {
    /// Topics and patterns, such as trade:BTC-USD, ticker:* or bar:BTC-*:1m
    #[arg(long, value_name = "TOPIC", num_args = 1.., value_delimiter = ',', default_value = "ticker:*")]
    topics: Vec<String>,
    /// Feed address: HOST:PORT, or a URL as printed by the server
    #[arg(
        long,
        value_name = "HOST:PORT|URL",
        default_value = "127.0.0.1:8080",
        env = "TICKCAST_CONNECT"
    )]
    connect: FeedUrl,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
    /// Delivery mode: raw, conflate, or an interval of 10ms, 25ms, 50ms, 100ms, 250ms, 500ms,
    /// 1000ms or 5000ms
    #[arg(long, default_value = "raw")]
    mode: String,
    /// Output format; table is redrawn on a terminal, and printed as lines otherwise
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// Shorthand for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print data events only, no control messages (csv never prints any)
    #[arg(long)]
    events: bool,
    /// Start with the next event, without a snapshot
    #[arg(long)]
    no_snapshot: bool,
    /// Stop after this many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Exit with code 1 when the connection is lost, instead of reconnecting
    #[arg(long)]
    no_reconnect: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One row per topic with its newest values
    Table,
    /// One JSON object per line, as the server sent it
    Json,
    /// Comma-separated values with a header, events only
    Csv,
}

/// Output of received messages.
trait View {
    /// Prints a message, with at most `most` of its events. Returns the number of printed events.
    fn show(&mut self, message: &ServerMessage, payload: &[u8], most: u64) -> std::io::Result<u64>;

    /// Prints periodic output, without a message.
    fn refresh(&mut self, _feed: &Feed) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let Some(mode) = parse_mode(&arguments.mode) else {
        super::print_error(&format!(
            "--mode {}: expected raw, conflate, or an interval such as 100ms",
            arguments.mode
        ));
        return Ok(Exit::Usage);
    };
    let wrong = arguments
        .topics
        .iter()
        .find_map(|text| TopicName::parse(text).err());
    if let Some(error) = wrong {
        super::print_error(&error.to_string());
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let wish = DeliveryWish {
        mode: Some(mode),
        interval_ms: mode.interval_ms(),
        on_slow: None,
    };
    runtime.block_on(tail(arguments, wish))
}

async fn tail(arguments: &Arguments, wish: DeliveryWish) -> Result<Exit> {
    let format = if arguments.json {
        Format::Json
    } else {
        arguments.format
    };
    // JSON lines are printed as received; other views use the cheaper encoding.
    let encoding = match format {
        Format::Json => Encoding::Json,
        Format::Table | Format::Csv => Encoding::Msgpack,
    };
    let mut feed = Feed::connect(arguments, encoding, wish).await?;
    let mut view = view(format, arguments.events);
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut refresh = tokio::time::interval(table::REDRAW);
    while left > 0 {
        tokio::select! {
            received = feed.next() => {
                let Some((message, payload)) = received? else { continue };
                left -= view.show(&message, &payload, left).context(CANT_PRINT)?;
            }
            _ = refresh.tick() => view.refresh(&feed).context(CANT_PRINT)?,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    view.refresh(&feed).context(CANT_PRINT)?;
    Ok(Exit::Ok)
}

const CANT_PRINT: &str = "cannot write to standard output";

fn view(format: Format, events_only: bool) -> Box<dyn View> {
    let is_screen = std::io::stdout().is_terminal() && super::is_smart_terminal();
    match format {
        Format::Json => Box::new(Json { events_only }),
        Format::Csv => Box::new(Csv::default()),
        Format::Table if is_screen => Box::new(Table::new()),
        Format::Table => Box::new(Text::new(events_only)),
    }
}

/// Prints a change of the connection on standard error.
fn note(text: &str) {
    // Without standard error there is nowhere to report to.
    let _gone = writeln!(std::io::stderr(), "tickcast: {text}");
}
