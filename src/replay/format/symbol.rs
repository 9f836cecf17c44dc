use super::super::ReplayConfig;
use super::error::FormatError;
use crate::market::Symbol;

/// Symbol of the config, or else of the file name.
pub(super) fn symbol_of(name: &str, config: &ReplayConfig) -> Result<Symbol, FormatError> {
    if let Some(symbol) = &config.symbol {
        return Ok(symbol.clone());
    }
    let text = binance_symbol(name).ok_or(FormatError::NoSymbol)?;
    Symbol::from_venue(&text).map_err(FormatError::Symbol)
}

/// Symbol of a name `SYMBOL-type-date…`. A prefix that ends with `_` is not part of it, but a
/// future's suffix after `_` is.
pub(super) fn binance_symbol(name: &str) -> Option<String> {
    let head = name
        .split('-')
        .next()
        .filter(|head| head.len() < name.len())?;
    let parts: Vec<&str> = head.split('_').collect();
    let (last, rest) = parts.split_last()?;
    let is_suffix =
        *last == "PERP" || (last.len() == 6 && last.bytes().all(|b| b.is_ascii_digit()));
    match rest.last() {
        Some(base) if is_suffix => Some(format!("{base}_{last}")),
        _ => Some((*last).to_owned()),
    }
}
