//! Market vocabulary: instruments, trades, quotes, tickers and bars, as pure values without I/O.
//!
//! Prices and quantities are exact decimals that keep the scale of their source ([`Price`],
//! [`Qty`]); times are nanoseconds since the Unix epoch, UTC ([`UnixNanos`]).
//!
//! # Values
//!
//! ```
//! use tickcast::market::{
//!     Aggressor, DecimalError, Level, Price, PriceFault, PriceRules, Qty, Quote, Symbol,
//!     SymbolError, TimeError, TimeUnit, Trade, TradeId, UnixNanos, parse_decimal,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let trade = Trade {
//!     ts: UnixNanos::parse_utc("2026-01-05T14:30:00Z")?,
//!     px: Price(parse_decimal("64250.10")?),
//!     qty: Qty(parse_decimal("0.5")?),
//!     side: Aggressor::Buy,
//!     id: TradeId::parse("1234").ok_or("an id has at most 64 printable characters")?,
//! };
//! assert_eq!(trade.px.to_string(), "64250.10");
//! let rules = PriceRules::default();
//! assert_eq!(rules.check_trade(&trade), Ok(()));
//!
//! let level = |px, qty| -> Result<Level, DecimalError> {
//!     Ok(Level { px: Price(parse_decimal(px)?), qty: Some(Qty(parse_decimal(qty)?)) })
//! };
//! let quote = Quote {
//!     ts: trade.ts,
//!     bid: Some(level("64251.00", "1")?),
//!     ask: Some(level("64250.50", "2")?),
//! };
//! assert_eq!(rules.check_quote(&quote), Err(PriceFault::Crossed));
//!
//! // Spellings of venues that topics cannot contain are mapped reversibly.
//! let symbol = Symbol::from_venue("BTCF0:USTF0")?;
//! assert_eq!(symbol.as_str(), "BTCF0~3AUSTF0");
//! assert!(matches!(Symbol::new("a:b"), Err(SymbolError::Character(..))));
//!
//! // The size of a number determines its unit.
//! assert_eq!(TimeUnit::of(1_767_623_400), Some(TimeUnit::Seconds));
//! assert_eq!(UnixNanos::of_any_unit(1_767_623_400), Some(trade.ts));
//! let wrong: Result<UnixNanos, TimeError> = UnixNanos::parse_utc("yesterday");
//! assert!(wrong.is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Bars
//!
//! ```
//! use tickcast::market::{Bar, Interval, Price, Qty, UnixNanos, parse_decimal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ts = UnixNanos::parse_utc("2026-01-05T14:30:07Z")?;
//! let start = ts.floor(Interval::M1.span());
//! let one = Qty(parse_decimal("1")?);
//! let mut bar = Bar::first(start, ts, Price(parse_decimal("100.0")?), one);
//! bar.add(ts, Price(parse_decimal("101.5")?), one)?;
//! assert_eq!((bar.high.to_string(), bar.n), ("101.5".to_owned(), 2));
//! # Ok(())
//! # }
//! ```
//!
//! # Contents of events
//!
//! ```
//! use tickcast::market::{Body, SourceKind, Status, Ticker, TradingState};
//!
//! fn line(body: &Body) -> String {
//!     match body {
//!         Body::Trade(trade) => format!("{} {}", trade.px, trade.qty),
//!         Body::Quote(quote) => format!("{:?} {:?}", quote.bid, quote.ask),
//!         Body::Ticker(Ticker { last, vol, .. }) => format!("{last} {vol}"),
//!         Body::Bar(bar) => format!("{} {} {} {}", bar.open, bar.high, bar.low, bar.close),
//!         Body::Status(Status { state: TradingState::Live, src: SourceKind::Live, .. }) => {
//!             "live".into()
//!         }
//!         Body::Status(status) => format!("{} ({})", status.state.name(), status.src.name()),
//!     }
//! }
//! # let _ = line;
//! ```

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

use crate::topic::Channel;

/// Content of an event, by channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A trade.
    Trade(Trade),
    /// The best bid and offer.
    Quote(Quote),
    /// Session summary.
    Ticker(Ticker),
    /// A bar of the topic's interval.
    Bar(Bar),
    /// Trading state of the symbol.
    Status(Status),
}

impl Body {
    /// True if events of the channel have this content.
    pub const fn fits(&self, channel: Channel) -> bool {
        matches!(
            (self, channel),
            (Self::Trade(_), Channel::Trade)
                | (Self::Quote(_), Channel::Quote)
                | (Self::Ticker(_), Channel::Ticker)
                | (Self::Bar(_), Channel::Bar(_))
                | (Self::Status(_), Channel::Status)
        )
    }

    /// Event time at the source.
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
