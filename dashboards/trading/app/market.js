/** The market as the watchlist needs it: one row a symbol; tickers and quotes are subscribed for the rows that are looked at. */

import { change } from "./format.js";

/** @typedef {import("../tickcast.js").MarketEvent} MarketEvent */
/** @typedef {import("../tickcast.js").Feed} Feed */
/** @typedef {import("../tickcast.js").Instrument} Instrument */
/** @typedef {import("../tickcast.js").Delivery} Delivery */
/** @typedef {import("../tickcast.js").Snapshot} Snapshot */
/** @typedef {import("./prefs.js").ModeName} ModeName */

const SPARK_MINUTES = 60;
const MINUTE_NS = 60e9;
/** One answer of `/v1/snapshot` has room for 2,000 events. */
const SPARKS_AT_ONCE = 32;
/** Symbols of one request for the values of rows out of view; its address has to stay short. */
const VALUES_AT_ONCE = 100;
/** Values of rows out of view are at most so old while the list is sorted by them. */
const VALUES_EVERY_MS = 2000;
/** Topics that the rest of the page needs: trades and bars of the chosen symbol, and of the one before while it changes. */
const TOPICS_APART = 8;
/** Lists up to this length are subscribed whole, longer ones as far as they are in view. */
const WHOLE_UP_TO = 64;
/** Rows that are subscribed beyond those in view, above and below. */
const AHEAD = 10;
/** The rows to subscribe are chosen anew once scrolling has paused for so long. */
const SETTLE_MS = 150;
/** Instruments are asked for again: while there are none, while symbols of the list are missing, and where no pattern announces new ones. */
const RELIST_MS = { empty: 1000, missing: 10_000, unannounced: 30_000 };

/** One line of the watchlist. */
export class Row {
  /** @param {string} symbol */
  constructor(symbol) {
    this.symbol = symbol;
    /** @type {Instrument | null} */
    this.instrument = null;
    /** @type {MarketEvent | null} */
    this.ticker = null;
    /** @type {MarketEvent | null} */
    this.quote = null;
    /** @type {MarketEvent | null} */
    this.status = null;
    /** Whether its ticker is subscribed and has arrived; otherwise its values are those of the last time it was looked at. */
    this.isHeld = false;
    /** The closes of the last hour's minutes, the present one last; null before they were asked for. @type {number[] | null} */
    this.spark = null;
    this.minute = 0;
    this.sparkAsked = false;
    /** Grows with each change, so that a view sees that it is behind. */
    this.version = 0;
    /** The last move: 1, −1, and when (ms). */
    this.move = 0;
    this.movedAt = -Infinity;
  }

  /** Neither stale, nor halted, nor closed. */
  get isLive() {
    return this.status === null || this.status.state === "live";
  }

  /** @returns {string | undefined} */
  get src() {
    return this.status?.src ?? this.instrument?.src;
  }

  /** Since the session's first price, as a fraction. @returns {number} */
  get change() {
    return change(this.ticker?.last, this.ticker?.open);
  }

  /** The change of the last hour, as a fraction. @returns {number} */
  get hour() {
    return this.spark?.length ? change(this.ticker?.last, this.spark[0]) : NaN;
  }

  /** @returns {number} */
  get spread() {
    const { quote } = this;
    return quote?.bid && quote.ask ? Number(quote.ask) - Number(quote.bid) : NaN;
  }

  /** @returns {number} of decimals of a price */
  get scale() {
    return this.instrument?.price_scale ?? 2;
  }
}

/** @param {ModeName} mode @returns {Delivery} */
export const delivery = (mode) => (mode === "100ms" ? { mode: "interval", intervalMs: 100 } : { mode });

/** @param {string} topic */
const symbolOf = (topic) => topic.split(":")[1];

export class Market {
  /** @param {Feed} feed @param {string[] | null} symbols null: all there are @param {{quotes: ModeName, tickers: ModeName}} modes
   * @param {(text: string) => void} say tells the user of a refusal */
  constructor(feed, symbols, modes, say) {
    this.feed = feed;
    this.say = say;
    /** @type {string[] | null} */
    this.wanted = symbols;
    /** Symbols that are wanted and that the server doesn't have. @type {string[]} */
    this.missing = [];
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Map<string, Instrument>} */
    this.instruments = new Map();
    /** Grows when lines come or go. */
    this.version = 0;
    /** @type {Set<Row>} */
    this.sparkless = new Set();
    this.isSparkBusy = false;
    /** When values were last asked for, ms; by channel. */
    this.askedAt = { ticker: -Infinity, quote: -Infinity };
    /** What is in view, and since when, ms. */
    this.view = { key: "", since: 0 };
    /** The symbols whose tickers and quotes are subscribed. @type {Set<string>} */
    this.held = new Set();
    /** Whether the rows were made anew since then. */
    this.isDerived = true;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.relisting = undefined;
    const refused = (/** @type {{topic: string, code: number, message: string}} */ refusal) => this.#refused(refusal);
    const hears = (/** @type {(event: MarketEvent) => void} */ event) => ({
      refused, event, snapshot: (/** @type {Snapshot} */ snapshot) => this.#snapshot(snapshot, event),
    });
    this.tickers = feed.subscribe([], delivery(modes.tickers), hears((event) => this.#ticker(event)));
    this.quotes = feed.subscribe([], delivery(modes.quotes), hears((event) => this.#quote(event)));
    this.statuses = feed.subscribe([], { mode: "conflate" }, hears((event) => this.#status(event)));
    feed.on("welcome", () => this.#list());
  }

  /** Whether the server's instruments are known. */
  get isListed() {
    return this.instruments.size > 0;
  }

  get #topicsMax() {
    return (this.feed.welcome?.limits.topics ?? Infinity) - TOPICS_APART;
  }

  /** Statuses are rare: those of all rows are held where they take no more than half of the connection's topics. */
  get #holdsAllStatuses() {
    return this.rows.size <= this.#topicsMax / 2;
  }

  /** Asks what there is. */
  async #list() {
    clearTimeout(this.relisting);
    const instruments = await this.feed.instruments().catch(() => null);
    if (instruments === null) return; // The connection ended; the next one asks again.
    this.instruments = new Map(instruments.map((instrument) => [instrument.symbol, instrument]));
    this.#derive();
    const wait = !this.isListed ? RELIST_MS.empty : this.missing.length > 0 ? RELIST_MS.missing
      : this.wanted === null && !this.#holdsAllStatuses ? RELIST_MS.unannounced : null;
    if (wait !== null) this.#listIn(wait);
  }

  /** @param {number} ms */
  #listIn(ms) {
    clearTimeout(this.relisting);
    this.relisting = setTimeout(() => this.#list(), ms);
  }

  /** Makes the rows out of what is wanted and what there is. */
  #derive() {
    const symbols = this.wanted ?? [...this.instruments.keys()];
    this.missing = this.isListed ? symbols.filter((symbol) => !this.instruments.has(symbol)) : [];
    const kept = new Set(symbols.filter((symbol) => this.instruments.has(symbol)));
    for (const symbol of this.rows.keys()) if (!kept.has(symbol)) this.rows.delete(symbol);
    for (const symbol of kept) {
      const row = this.rows.get(symbol) ?? new Row(symbol);
      row.instrument = this.instruments.get(symbol) ?? null;
      row.version += 1;
      this.rows.set(symbol, row);
    }
    this.version += 1;
    this.isDerived = true;
    if (this.#holdsAllStatuses) this.#hold("status", this.wanted === null ? ["*"] : [...kept]);
  }

  /** Replaces the list. @param {string[] | null} symbols null: all there are */
  want(symbols) {
    this.wanted = symbols;
    this.#derive();
    if (this.missing.length > 0) this.#listIn(RELIST_MS.missing);
  }

  /** @param {string} symbol @returns {string | null} what is wrong with it; null: it is there now */
  add(symbol) {
    const known = this.instruments.get(symbol) ?? [...this.instruments.values()].find((one) => one.symbol.toLowerCase() === symbol.toLowerCase());
    if (!known) return `Unknown symbol ${symbol}.`;
    if (this.rows.has(known.symbol)) return `${known.symbol} is already in the list.`;
    if (this.wanted !== null) this.want([...this.wanted, known.symbol]);
    return null;
  }

  /** @param {string} symbol */
  remove(symbol) {
    this.want((this.wanted ?? [...this.rows.keys()]).filter((one) => one !== symbol));
  }

  /** The symbol there is whose name is nearest to one that there isn't; null where none is near. @param {string} symbol */
  nearest(symbol) {
    const wrong = symbol.toLowerCase();
    let best = null, least = Math.max(2, Math.ceil(wrong.length / 3)) + 1;
    for (const one of this.instruments.keys()) {
      const name = one.toLowerCase();
      const far = name.includes(wrong) || wrong.includes(name) ? 1 : distance(name, wrong, least);
      if (far < least) [best, least] = [one, far];
    }
    return best;
  }

  // --- What is subscribed ---

  /** Says which rows are in view, in their order; `chosen` always is. Called each frame. @param {Row[]} order @param {number} first @param {number} last
   * @param {string | null} chosen @param {number} now ms */
  look(order, first, last, chosen, now) {
    const key = `${order[first]?.symbol} ${last - first} ${chosen}`;
    if (key !== this.view.key) this.view = { key, since: now };
    if (this.rows.size === 0 || (!this.isDerived && now - this.view.since < SETTLE_MS)) return;
    const needed = this.rows.size <= WHOLE_UP_TO ? [...this.rows.values()] : order.slice(first, last);
    const chosenRow = chosen === null ? undefined : this.rows.get(chosen);
    if (chosenRow) needed.push(chosenRow);
    // Those beyond the view are subscribed as well, so that a little scrolling, or rows that change places, need nothing.
    if (!this.isDerived && needed.every(({ symbol }) => this.held.has(symbol))) return;
    const around = order.slice(Math.max(0, first - AHEAD), last + AHEAD);
    this.#holdRows([...new Set([...needed, ...around].map(({ symbol }) => symbol))]);
  }

  /** @param {string[]} wanted symbols, the most important first */
  #holdRows(wanted) {
    this.isDerived = false;
    const channels = this.#holdsAllStatuses ? /** @type {const} */ (["ticker", "quote"]) : /** @type {const} */ (["ticker", "quote", "status"]);
    const room = this.#topicsMax - (this.#holdsAllStatuses ? this.rows.size : 0);
    const symbols = wanted.slice(0, Math.max(1, Math.floor(room / channels.length)));
    this.held = new Set(symbols);
    for (const row of this.rows.values()) {
      if (!row.isHeld || this.held.has(row.symbol)) continue;
      row.isHeld = false;
      row.sparkAsked = false; // Its last hour goes on without it.
      row.version += 1;
    }
    for (const channel of channels) this.#hold(channel, symbols);
  }

  /** @param {"ticker" | "quote" | "status"} channel @param {string[]} symbols */
  #hold(channel, symbols) {
    const subscription = { ticker: this.tickers, quote: this.quotes, status: this.statuses }[channel];
    const names = symbols.map((symbol) => `${channel}:${symbol}`);
    const wanted = new Set(names);
    const gone = subscription.names.filter((name) => !wanted.has(name));
    // First what is given up, so that both never pass the limit together.
    if (gone.length > 0) subscription.remove(gone);
    subscription.add(names);
  }

  /** Brings the values of rows that are not subscribed up to date, so that they can be sorted by.
   * @param {"ticker" | "quote"} channel @param {number} now ms */
  async freshen(channel, now) {
    if (now - this.askedAt[channel] < VALUES_EVERY_MS || this.feed.state !== "open") return;
    this.askedAt[channel] = now;
    const symbols = [...this.rows.values()].filter(({ isHeld }) => !isHeld).map(({ symbol }) => symbol);
    if (symbols.length === 0) return;
    this.askedAt[channel] = Infinity;
    for (let at = 0; at < symbols.length; at += VALUES_AT_ONCE) {
      const topics = symbols.slice(at, at + VALUES_AT_ONCE).map((symbol) => `${channel}:${symbol}`);
      const { ok } = await this.feed.snapshot(topics).catch(() => ({ ok: /** @type {Snapshot[]} */ ([]) }));
      for (const event of ok.flatMap(({ events }) => events)) {
        const row = this.rows.get(event.sym);
        if (!row || row.isHeld) continue;
        row[channel] = event;
        if (channel === "ticker" && row.spark) this.#extend(row, Number(event.last), event.ts);
      }
    }
    this.askedAt[channel] = performance.now();
  }

  // --- What arrives ---

  /** @param {Snapshot} snapshot @param {(event: MarketEvent) => void} take */
  #snapshot({ topic, events }, take) {
    const row = this.rows.get(symbolOf(topic));
    if (!row && this.wanted === null && this.isListed) this.#listIn(0); // A new instrument.
    if (row && topic.startsWith("ticker:")) {
      row.isHeld = true;
      row.version += 1;
    }
    events.forEach(take);
  }

  /** @param {MarketEvent} event */
  #ticker(event) {
    const row = this.rows.get(event.sym);
    if (!row) return;
    const before = Number(row.ticker?.last), now = Number(event.last);
    if (now !== before && !Number.isNaN(before)) {
      row.move = Math.sign(now - before);
      row.movedAt = performance.now();
    }
    row.ticker = event;
    row.version += 1;
    if (row.spark) this.#extend(row, now, event.ts);
  }

  /** @param {Row} row @param {number} price @param {number} ts */
  #extend(row, price, ts) {
    const spark = /** @type {number[]} */ (row.spark);
    const minute = Math.floor(ts / MINUTE_NS);
    if (minute > row.minute || spark.length === 0) spark.push(price);
    else spark[spark.length - 1] = price;
    row.minute = minute;
    if (spark.length > SPARK_MINUTES) spark.shift();
  }

  /** @param {MarketEvent} event */
  #quote(event) {
    const row = this.rows.get(event.sym);
    if (!row) return;
    row.quote = event;
    row.version += 1;
  }

  /** @param {MarketEvent} event */
  #status(event) {
    const row = this.rows.get(event.sym);
    if (!row) return;
    row.status = event;
    row.version += 1;
  }

  /** A line came into view, or is sorted by its last hour, so that hour is wanted. @param {Row} row */
  wantSpark(row) {
    if (row.sparkAsked) return;
    row.sparkAsked = true;
    this.sparkless.add(row);
    if (!this.isSparkBusy) this.#fetchSparks();
  }

  async #fetchSparks() {
    this.isSparkBusy = true;
    // Lines that come into view together are asked for together.
    await new Promise((done) => requestAnimationFrame(done));
    while (this.sparkless.size > 0) {
      const rows = [...this.sparkless].slice(0, SPARKS_AT_ONCE);
      for (const row of rows) this.sparkless.delete(row);
      const answer = await this.feed.snapshot(rows.map(({ symbol }) => `bar:${symbol}:1m`), SPARK_MINUTES).catch(() => null);
      const bySymbol = new Map((answer?.ok ?? []).map(({ topic, events }) => [symbolOf(topic), events]));
      for (const row of rows) {
        row.sparkAsked = answer !== null;
        if (answer === null) continue;
        const bars = bySymbol.get(row.symbol) ?? [];
        row.spark = bars.map(({ c }) => Number(c));
        row.minute = Math.floor(/** @type {number} */ (bars.at(-1)?.start ?? 0) / MINUTE_NS);
        if (row.ticker) this.#extend(row, Number(row.ticker.last), row.ticker.ts);
        row.version += 1;
      }
      // While the server is away asking on and on helps nobody.
      if (answer === null) await new Promise((done) => setTimeout(done, 1000));
    }
    this.isSparkBusy = false;
  }

  /** @param {{topic: string, code: number, message: string}} refusal */
  #refused({ topic, code, message }) {
    // The instrument is gone, or was never there: the list of instruments says so.
    if (code === 412) this.#listIn(0);
    else this.say(`${symbolOf(topic)}: no ${topic.split(":")[0]} data (${message}).`);
  }
}

/** How many letters have to be inserted, removed or replaced; not exact from `bound` on. @param {string} a @param {string} b @param {number} bound */
function distance(a, b, bound) {
  if (Math.abs(a.length - b.length) >= bound) return bound;
  let above = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let row = 1; row <= a.length; row += 1) {
    const line = [row];
    for (let at = 1; at <= b.length; at += 1) {
      line.push(Math.min(above[at] + 1, line[at - 1] + 1, above[at - 1] + Number(a[row - 1] !== b[at - 1])));
    }
    above = line;
  }
  return above[b.length];
}
