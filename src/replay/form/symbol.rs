use super::super::ReplayConfig;
use super::error::FormError;
use crate::market::Symbol;

/// The symbol that the config gives, or the file's name.
pub(super) fn symbol_of(name: &str, config: &ReplayConfig) -> Result<Symbol, FormError> {
    if let Some(symbol) = &config.symbol {
        return Ok(symbol.clone());
    }
    let text = binance_symbol(name).ok_or(FormError::NoSymbol)?;
    Symbol::from_venue(&text).map_err(FormError::Symbol)
}

/// `SYMBOL-type-date…`: what stands before a last `_` in front of it is no part, but for a future's
/// own suffix.
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
