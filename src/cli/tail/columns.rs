//! Columns of an event, for rows of a table and for CSV.

use rust_decimal::Decimal;

use crate::market::{Body, Level, write_decimal};
use crate::protocol::DataEvent;

/// Decimal in its wire form.
pub(super) fn decimal(value: Decimal) -> String {
    let mut out = Vec::new();
    write_decimal(&mut out, value);
    String::from_utf8_lossy(&out).into_owned()
}

/// Header of a channel's columns in the table.
pub(super) fn header(channel: &str) -> &'static str {
    match channel {
        "trade" => "         price   quantity     side",
        "quote" => "           bid   ask",
        "ticker" => "          last   change  high, low, volume",
        "bar" => "open, high, low, close, volume, trades",
        "status" => "state (source)",
        _ => "",
    }
}

/// Values of an event for the table, and their direction: `Some(true)` for a rise, `Some(false)`
/// for a fall.
pub(super) fn row(event: &DataEvent) -> (String, Option<bool>) {
    match &event.body {
        Body::Trade(trade) => {
            let side = trade.side.name();
            let rises = match side {
                "buy" => Some(true),
                "sell" => Some(false),
                _ => None,
            };
            let (px, qty) = (decimal(trade.px.0), decimal(trade.qty.0));
            (format!("{px:>14} x {qty:<12} {side}"), rises)
        }
        Body::Quote(quote) => {
            let side =
                |level: Option<Level>| level.map_or("-".to_owned(), |level| decimal(level.px.0));
            (
                format!("{:>14} / {:<14}", side(quote.bid), side(quote.ask)),
                None,
            )
        }
        Body::Ticker(ticker) => {
            let change = ticker.chg.map_or("-".to_owned(), |chg| {
                format!("{:+.2}%", chg * Decimal::ONE_HUNDRED)
            });
            let rises = ticker
                .chg
                .filter(|chg| !chg.is_zero())
                .map(|chg| chg.is_sign_positive());
            let [last, high, low] = [ticker.last, ticker.high, ticker.low].map(|px| decimal(px.0));
            let vol = decimal(ticker.vol.0);
            (
                format!("{last:>14} {change:>8}  high {high}  low {low}  vol {vol}"),
                rises,
            )
        }
        Body::Bar(bar) => {
            let [o, h, l, c] = [bar.open, bar.high, bar.low, bar.close].map(|px| decimal(px.0));
            let done = if bar.done { " done" } else { "" };
            let vol = decimal(bar.vol.0);
            (
                format!("o {o} h {h} l {l} c {c} vol {vol} n {}{done}", bar.n),
                Some(bar.close.0 > bar.open.0).filter(|_| bar.close.0 != bar.open.0),
            )
        }
        Body::Status(status) => (
            format!("{} ({})", status.state.name(), status.src.name()),
            None,
        ),
    }
}

/// Names of the CSV columns: the wire keys of all channels.
pub(super) const CSV: [&str; 31] = [
    "ch", "sym", "iv", "seq", "ts", "tx", "px", "qty", "side", "id", "bid", "bidq", "ask", "askq",
    "last", "open", "high", "low", "vol", "vwap", "n", "chg", "start", "o", "h", "l", "c", "done",
    "state", "src", "since",
];

/// Value of each CSV column; empty if the channel does not have it.
pub(super) fn csv(event: &DataEvent) -> [String; CSV.len()] {
    let mut row: [String; CSV.len()] = std::array::from_fn(|_| String::new());
    let mut set = |name: &str, value: String| {
        if let Some(at) = CSV.iter().position(|column| *column == name) {
            row[at] = value;
        }
    };
    let topic = event.topic.to_string();
    let mut parts = topic.splitn(3, ':');
    for name in ["ch", "sym", "iv"] {
        set(name, parts.next().unwrap_or_default().to_owned());
    }
    set("seq", event.seq.to_string());
    set("ts", event.body.ts().0.to_string());
    set("tx", event.tx.0.to_string());
    match &event.body {
        Body::Trade(trade) => {
            set("px", decimal(trade.px.0));
            set("qty", decimal(trade.qty.0));
            set("side", trade.side.name().to_owned());
            set("id", trade.id.text());
        }
        Body::Quote(quote) => {
            for (px, qty, level) in [("bid", "bidq", quote.bid), ("ask", "askq", quote.ask)] {
                if let Some(level) = level {
                    set(px, decimal(level.px.0));
                    set(qty, level.qty.map(|qty| decimal(qty.0)).unwrap_or_default());
                }
            }
        }
        Body::Ticker(ticker) => {
            set("last", decimal(ticker.last.0));
            set("open", decimal(ticker.open.0));
            set("high", decimal(ticker.high.0));
            set("low", decimal(ticker.low.0));
            set("vol", decimal(ticker.vol.0));
            set("vwap", decimal(ticker.vwap));
            set("n", ticker.n.to_string());
            set("chg", ticker.chg.map(decimal).unwrap_or_default());
        }
        Body::Bar(bar) => {
            set("start", bar.start.0.to_string());
            set("o", decimal(bar.open.0));
            set("h", decimal(bar.high.0));
            set("l", decimal(bar.low.0));
            set("c", decimal(bar.close.0));
            set("vol", decimal(bar.vol.0));
            set("n", bar.n.to_string());
            set("done", bar.done.to_string());
        }
        Body::Status(status) => {
            set("state", status.state.name().to_owned());
            set("src", status.src.name().to_owned());
            set("since", status.since.0.to_string());
        }
    }
    row
}
