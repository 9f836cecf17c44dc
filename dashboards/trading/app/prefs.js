/** What this browser keeps: the watchlist, the chosen symbol, modes and looks. The address has the part that one would share. */

export const INTERVALS = /** @type {const} */ (["1s", "1m", "5m", "1h", "1d"]);
export const MODES = /** @type {const} */ (["raw", "conflate", "100ms"]);

/** @typedef {typeof INTERVALS[number]} Interval */
/** @typedef {typeof MODES[number]} ModeName */
/**
 * @typedef {object} Prefs
 * @property {string[] | null} symbols the watchlist; null: all there are
 * @property {boolean} isShared the watchlist came by a link and differs from this browser's own
 * @property {string | null} symbol the chosen one
 * @property {Interval} interval of the chart
 * @property {{quotes: ModeName, tickers: ModeName, bars: ModeName}} modes
 * @property {{column: string, descending: boolean}} sort
 * @property {"dark" | "light" | null} theme null: the system's
 */

const KEY = "tickcast";
/** Wider than the server's own rule, which decides: what the server doesn't have is told on the page. */
const SYMBOL = /^[^\s:*,\p{C}]{1,64}$/u;

/** @template {string} T @param {readonly T[]} known @param {unknown} value @param {T} otherwise @returns {T} */
const oneOf = (known, value, otherwise) => known.find((one) => one === value) ?? otherwise;

/** @param {unknown} value @returns {string[] | null} */
const symbolsOf = (value) => (Array.isArray(value) ? [...new Set(value.filter((one) => typeof one === "string" && SYMBOL.test(one)))] : null);

/** What this browser keeps now. @returns {any} */
function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    return {}; // Forbidden or broken: begin afresh.
  }
}

/** What was last loaded or kept, by name and as JSON: only what differs from it was changed here and is kept. @type {Map<string, string>} */
const before = new Map();

/** The fields that are kept. @param {Prefs} prefs */
const fields = ({ symbols, symbol, interval, modes, sort, theme }) => Object.entries({ symbols, symbol, interval, modes, sort, theme });

/** What was kept, with the address before it; what makes no sense is left out. @returns {Prefs} */
export function load() {
  const own = kept();
  const address = new URL(location.href).searchParams;
  const mine = symbolsOf(own.symbols)?.slice() ?? null;
  const list = mine?.length === 0 ? null : mine;
  const symbol = symbolsOf([address.get("symbol") ?? own.symbol])?.[0] ?? null;
  const linked = symbolsOf(address.get("symbols")?.split(","));
  // A link to one symbol shows my list where that has it, else all there are.
  const symbols = linked?.length ? linked : address.has("symbol") && list !== null && symbol !== null && !list.includes(symbol) ? null : list;
  const prefs = {
    symbols,
    isShared: JSON.stringify(symbols) !== JSON.stringify(list),
    symbol,
    interval: oneOf(INTERVALS, address.get("interval") ?? own.interval, "1m"),
    modes: {
      quotes: oneOf(MODES, address.get("quotes") ?? own.modes?.quotes, "100ms"),
      tickers: oneOf(MODES, address.get("tickers") ?? own.modes?.tickers, "100ms"),
      bars: oneOf(MODES, address.get("bars") ?? own.modes?.bars, "conflate"),
    },
    sort: { column: typeof own.sort?.column === "string" ? own.sort.column : "symbol", descending: own.sort?.descending === true },
    theme: own.theme === "dark" || own.theme === "light" ? own.theme : null,
  };
  for (const [name, value] of fields(prefs)) before.set(name, JSON.stringify(value));
  return prefs;
}

/** This browser's own list; null: all there are. @returns {string[] | null} */
export function ownList() {
  const list = symbolsOf(kept().symbols);
  return list?.length ? list : null;
}

/** Keeps what was changed on this page, and writes the address. A list that came by a link, and what is chosen from it, is a view of the link
 * and not this browser's own until the user keeps it. @param {Prefs} prefs */
export function save(prefs) {
  const own = kept();
  for (const [name, value] of fields(prefs)) {
    if (prefs.isShared && (name === "symbols" || name === "symbol")) continue;
    const text = JSON.stringify(value);
    if (before.get(name) !== text) own[name] = value;
    before.set(name, text);
  }
  try {
    localStorage.setItem(KEY, JSON.stringify(own));
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

/** Takes the list that is shown for this browser's own. @param {Prefs} prefs */
export function keepList(prefs) {
  prefs.isShared = false;
  for (const name of ["symbols", "symbol"]) before.delete(name);
  save(prefs);
}
