//! The market's own words: instruments, trades, quotes, tickers, bars. Pure values without I/O.
//!
//! Prices and quantities are exact decimals that keep the scale their source gave ([`Price`], [`Qty`]); times are
//! nanoseconds since the Unix epoch, UTC ([`UnixNanos`]).

mod bar;
mod decimal;
mod instrument;
mod quote;
mod rules;
mod status;
mod symbol;
mod ticker;
mod time;
mod trade;

pub use bar::{Bar, Interval};
pub use decimal::{DecimalError, Price, Qty, parse_decimal, write_decimal};
pub use instrument::{Instrument, SourceKind};
pub use quote::{Level, Quote};
pub use rules::{PriceFault, PriceRules, VALUE_MAX};
pub use status::{Status, TradingState};
pub use symbol::{Symbol, SymbolError, excerpt, is_printable};
pub use ticker::Ticker;
pub use time::{TimeError, TimeUnit, UnixNanos};
pub use trade::{Aggressor, Trade, TradeId};

/// Content of an event, by channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A print.
    Trade(Trade),
    /// The best bid and offer.
    Quote(Quote),
    /// The session's summary.
    Ticker(Ticker),
    /// A bar of the topic's interval.
    Bar(Bar),
    /// Trading state of the symbol.
    Status(Status),
}

impl Body {
    /// The event's time at its source.
    pub const fn ts(&self) -> UnixNanos {
        match self {
            Self::Trade(trade) => trade.ts,
            Self::Quote(quote) => quote.ts,
            Self::Ticker(ticker) => ticker.ts,
            Self::Bar(bar) => bar.ts,
            Self::Status(status) => status.ts,
        }
    }
}
