/** The trading screen: its components and the render loop. All market data comes through `tickcast.js`. */

import { connect } from "../tickcast.js";
import { DeliveryPanel, choice } from "./delivery.js";
import { InstrumentPanel } from "./instrument_panel.js";
import { byId, element, kind, write } from "./format.js";
import { Health } from "./health.js";
import { Market } from "./market.js";
import { Note, show } from "./notes.js";
import { INTERVALS, keepList, load, ownList, save } from "./prefs.js";
import { PausableSocket } from "./socket.js";
import { askForToken, token } from "./token.js";
import { Watchlist } from "./watchlist.js";

const REFRESH_EVERY_MS = 500;
const MODE_TITLES = { raw: "raw", conflate: "conflated", "100ms": "100 ms" };

const prefs = load();
const encoding = new URL(location.href).searchParams.get("encoding") === "json" ? "json" : "msgpack";
// The feed is served next to the page, also under a proxy's path prefix.
const feed = connect(new URL("../v1/feed", import.meta.url).href.replace(/^http/, "ws"), { encoding, token, WebSocket: PausableSocket });
askForToken(feed);
const note = new Note(byId("watch-note"));
const market = new Market(feed, prefs.symbols, prefs.modes, (text) => note.say(text));
const instrument = new InstrumentPanel(feed, market, prefs);
const watchlist = new Watchlist(market, prefs, { chose: choose, changed, removed, filter: filterBy });
const health = new Health(feed, market, () => MODE_TITLES[prefs.modes.quotes]);
/** @type {DeliveryPanel} */
const deliveries = new DeliveryPanel(feed, prefs, [
  { name: "Quotes", key: "quotes", subscription: () => market.quotes },
  { name: "Tickers", key: "tickers", subscription: () => market.tickers },
  { name: "Bars", key: "bars", subscription: () => instrument.bars?.subscription },
  { name: "Trades", key: null, fixed: "Raw; trades are never merged", subscription: () => instrument.tape },
  { name: "Status", key: null, fixed: "Conflated", subscription: () => market.statuses },
  { name: "Everything", key: null, fixed: "Raw, during the slow-consumer simulation", subscription: () => deliveries.everything },
], changed);
const markInterval = choice(byId("intervals"), INTERVALS, (interval) => interval, prefs.interval, interval);

/** @param {string} symbol */
function choose(symbol) {
  if (instrument.symbol === symbol) return;
  prefs.symbol = symbol;
  instrument.choose(symbol);
  changed();
}

/** @param {typeof INTERVALS[number]} chosen */
function interval(chosen) {
  prefs.interval = chosen;
  markInterval(chosen);
  if (instrument.symbol) instrument.choose(instrument.symbol);
  changed();
}

function changed() {
  prefs.symbols = market.wanted;
  save(prefs);
}

// --- The list ---

/** @param {string[] | null} symbols null: all there are */
function want(symbols) {
  market.want(symbols);
  if (prefs.symbol && !market.rows.has(prefs.symbol)) instrument.symbol = "";
  changed();
}

/** @param {string} symbol @param {string[] | null} before the list of before */
function removed(symbol, before) {
  const isOfAll = before === null ? " New symbols of the server are no longer added." : "";
  note.say(`${symbol} removed.${isOfAll}`, [{ title: "Undo", does: () => want(before) }]);
}

function showAll() {
  const before = market.wanted;
  want(null);
  note.say("Showing all symbols of the server.", [{ title: "Undo", does: () => want(before) }]);
}
byId("all").addEventListener("click", showAll);

let notedList = "";

/** Shows persistent notes on the watchlist: it comes from a link, or contains unknown symbols. */
function noteList() {
  const key = `${market.version} ${prefs.isShared}`;
  if (key === notedList) return;
  notedList = key;
  byId("all").hidden = market.wanted === null || market.rows.size === 0;
  const texts = [], actions = [];
  const { missing } = market;
  if (market.isListed && missing.length > 0) {
    const names = missing.slice(0, 5).join(", ") + (missing.length > 5 ? ` and ${missing.length - 5} more` : "");
    texts.push(`Unknown symbols: ${names}.`);
    for (const symbol of missing.slice(0, 2)) {
      const near = market.nearest(symbol);
      if (near === null || market.rows.has(near)) continue;
      const mended = [...new Set((market.wanted ?? []).map((one) => (one === symbol ? near : one)))];
      actions.push({ title: `Replace ${symbol} with ${near}`, does: () => want(mended) });
    }
    if (market.rows.size > 0) actions.push({ title: "Remove unknown symbols", does: () => want((market.wanted ?? []).filter((symbol) => !missing.includes(symbol))) });
    else actions.push({ title: "All symbols", does: showAll });
  }
  if (prefs.isShared) {
    texts.push("This watchlist comes from a link.");
    if (market.rows.size > 0) actions.push({ title: "Save as my watchlist", does: () => { keepList(prefs); noteList(); } });
    actions.push({ title: "Restore my watchlist", does: () => { prefs.isShared = false; want(ownList()); } });
  }
  show(byId("watch-list"), texts.join(" "), actions);
}

// --- Controls ---

const filter = /** @type {HTMLInputElement} */ (byId("filter"));
filter.addEventListener("input", () => watchlist.filterBy(filter.value));
filter.addEventListener("keydown", (key) => {
  if (key.key === "Enter" || key.key === "ArrowDown") byId("grid").focus();
  if (key.key !== "Escape") return;
  filterBy("");
  byId("grid").focus();
});

/** @param {string} text */
function filterBy(text) {
  filter.value = text;
  watchlist.filterBy(text);
}

const add = /** @type {HTMLInputElement} */ (byId("add"));
byId("add-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const symbol = add.value.trim();
  if (symbol === "") return;
  const wrong = market.add(symbol);
  if (wrong) {
    const near = market.nearest(symbol);
    const isOffered = near !== null && !market.rows.has(near);
    note.say(wrong, isOffered ? [{ title: `Add ${near}`, does: () => { market.add(near); add.value = ""; changed(); } }] : []);
    return;
  }
  note.clear();
  add.value = "";
  changed();
});
add.addEventListener("focus", () => {
  const options = [...market.instruments.values()].filter(({ symbol }) => !market.rows.has(symbol)).slice(0, 200);
  byId("known").replaceChildren(...options.map(({ symbol, description }) => {
    const option = /** @type {HTMLOptionElement} */ (element("option", "", description ?? ""));
    option.value = symbol;
    return option;
  }));
});

const isDark = () => document.documentElement.dataset.theme !== "light";
const systemTheme = matchMedia("(prefers-color-scheme: light)");

/** @param {"dark" | "light"} theme */
function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  write(byId("theme-toggle"), isDark() ? "Light" : "Dark");
  watchlist.inks();
  instrument.chart?.inks();
}

function turnTheme() {
  prefs.theme = isDark() ? "light" : "dark";
  applyTheme(prefs.theme);
  changed();
}

byId("theme-toggle").addEventListener("click", turnTheme);
systemTheme.addEventListener("change", () => applyTheme(prefs.theme ?? (systemTheme.matches ? "light" : "dark")));
const help = /** @type {HTMLDialogElement} */ (byId("help"));
byId("help-toggle").addEventListener("click", () => help.showModal());

document.addEventListener("keydown", (key) => {
  const isTyping = key.target instanceof HTMLInputElement;
  if (isTyping || key.ctrlKey || key.metaKey || key.altKey || help.open || byId("token").hasAttribute("open")) return;
  const chosen = INTERVALS[Number(key.key) - 1];
  /** @type {Record<string, () => void>} */
  const does = {
    "/": () => filter.focus(), a: () => add.focus(), d: () => deliveries.open(byId("delivery").hidden), t: turnTheme,
    s: () => { deliveries.open(true); deliveries.slow(!deliveries.isSlow); }, "?": () => help.showModal(),
  };
  const act = chosen ? () => interval(chosen) : does[key.key.toLowerCase()];
  if (!act) return;
  key.preventDefault();
  act();
});

// --- The loop ---

/** Marks simulated and replayed prices. */
function markKinds() {
  const kinds = new Set([...market.rows.values()].map(({ src }) => kind(src)).filter((one) => one === "Simulated" || one === "Replayed"));
  const place = byId("kind");
  place.hidden = kinds.size === 0;
  write(place, `${[...kinds].join(" and ")} prices`);
}

/** Selects the last selected symbol, else the first; a requested symbol may appear after others. */
function chooseFirst() {
  if (prefs.symbol && market.rows.has(prefs.symbol)) choose(prefs.symbol);
  else if (market.isListed) {
    const first = watchlist.order[0];
    if (first) choose(first.symbol);
  }
}

let refreshedAt = -Infinity;
/** True once prices were drawn; a performance mark records the time. */
let isPriced = false;

/** @param {number} now */
function frame(now) {
  watchlist.frame(now);
  if (!isPriced && watchlist.lines.some(({ row }) => row?.ticker)) {
    isPriced = true;
    performance.mark("first prices");
  }
  if (!instrument.symbol) chooseFirst();
  instrument.isCurrent = health.isCurrent;
  instrument.frame(now);
  if (now - refreshedAt > REFRESH_EVERY_MS) {
    refreshedAt = now;
    health.refresh();
    deliveries.refresh();
    markKinds();
    noteList();
  }
  requestAnimationFrame(frame);
}

applyTheme(isDark() ? "dark" : "light");
requestAnimationFrame(frame);
