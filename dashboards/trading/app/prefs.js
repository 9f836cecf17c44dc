/** What this browser keeps: the watchlist, the chosen symbol, modes and looks. The address has the part that one would share. */

export const INTERVALS = /** @type {const} */ (["1s", "1m", "5m", "1h", "1d"]);
export const MODES = /** @type {const} */ (["raw", "conflate", "100ms"]);

/** @typedef {typeof INTERVALS[number]} Interval */
/** @typedef {typeof MODES[number]} ModeName */
/**
 * @typedef {object} Prefs
 * @property {string[] | null} symbols the watchlist; null: all there are
 * @property {string | null} symbol the chosen one
 * @property {Interval} interval of the chart
 * @property {{quotes: ModeName, tickers: ModeName, bars: ModeName}} modes
 * @property {{column: string, descending: boolean}} sort
 * @property {"dark" | "light" | null} theme null: the system's
 */

const KEY = "tickcast";
const SYMBOL = /^[A-Za-z0-9._/-]{1,32}$/;

/** @template {string} T @param {readonly T[]} known @param {unknown} value @param {T} otherwise @returns {T} */
const oneOf = (known, value, otherwise) => known.find((one) => one === value) ?? otherwise;

/** @param {unknown} value @returns {string[] | null} */
const symbolsOf = (value) => (Array.isArray(value) ? [...new Set(value.filter((one) => typeof one === "string" && SYMBOL.test(one)))] : null);

/** What was kept, with the address before it; what makes no sense is left out. @returns {Prefs} */
export function load() {
  /** @type {any} */
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    // Forbidden or broken: begin afresh.
  }
  const address = new URL(location.href).searchParams;
  const symbols = symbolsOf(address.get("symbols")?.split(",")) ?? (address.has("symbol") ? null : symbolsOf(kept.symbols));
  const symbol = symbolsOf([address.get("symbol") ?? kept.symbol])?.[0] ?? null;
  return {
    symbols: symbols?.length === 0 ? null : symbols,
    symbol,
    interval: oneOf(INTERVALS, address.get("interval") ?? kept.interval, "1m"),
    modes: {
      quotes: oneOf(MODES, address.get("quotes") ?? kept.modes?.quotes, "100ms"),
      tickers: oneOf(MODES, address.get("tickers") ?? kept.modes?.tickers, "100ms"),
      bars: oneOf(MODES, address.get("bars") ?? kept.modes?.bars, "conflate"),
    },
    sort: { column: typeof kept.sort?.column === "string" ? kept.sort.column : "symbol", descending: kept.sort?.descending === true },
    theme: kept.theme === "dark" || kept.theme === "light" ? kept.theme : null,
  };
}

/** @param {Prefs} prefs */
export function save(prefs) {
  try {
    localStorage.setItem(KEY, JSON.stringify(prefs));
  } catch {
    // Forbidden: the address still has it.
  }
  const address = new URL(location.href);
  const set = (/** @type {string} */ name, /** @type {string | null} */ value) =>
    value === null ? address.searchParams.delete(name) : address.searchParams.set(name, value);
  set("symbols", prefs.symbols?.join(",") ?? null);
  set("symbol", prefs.symbol);
  set("interval", prefs.interval);
  history.replaceState(null, "", address.href.replaceAll("%2C", ",").replaceAll("%2F", "/"));
}
