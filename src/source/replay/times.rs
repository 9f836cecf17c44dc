//! Times as recordings have them.

use super::account::{RowFault, Skip, shown};
use crate::market::UnixNanos;

/// A time: ISO, or a number since 1970 whose unit its size tells (from 10^17 on ns, 10^14 µs, 10^11 ms, else seconds, which
/// may have decimals).
pub(super) fn read(text: &str) -> Result<UnixNanos, RowFault> {
    let time = match (text.parse::<u64>(), text.split_once('.')) {
        (Ok(number), _) => UnixNanos::of_any_unit(number),
        (Err(_), Some((whole, fraction))) => UnixNanos::of_seconds(whole, fraction),
        (Err(_), None) => None,
    };
    time.or_else(|| UnixNanos::parse_utc(text).ok())
        .ok_or_else(|| RowFault::new(Skip::Time, format!("\"{}\" is no time", shown(text))))
}
