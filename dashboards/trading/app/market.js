/** What the watchlist knows of each symbol, kept by three subscriptions: tickers, quotes and statuses. */

/** @typedef {import("../tickcast.js").MarketEvent} MarketEvent */
/** @typedef {import("../tickcast.js").Feed} Feed */
/** @typedef {import("../tickcast.js").Instrument} Instrument */
/** @typedef {import("../tickcast.js").Delivery} Delivery */
/** @typedef {import("./prefs.js").ModeName} ModeName */

const SPARK_MINUTES = 60;
const MINUTE_NS = 60e9;
/** One answer of `/v1/snapshot` has room for 2,000 events. */
const SPARKS_AT_ONCE = 32;
/** Topics that the rest of the page needs: trades and bars of the chosen symbol, and of the one before while it changes. */
const TOPICS_APART = 8;
const CHANNELS = /** @type {const} */ (["ticker", "quote", "status"]);

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

export class Market {
  /** @param {Feed} feed @param {string[] | null} symbols null: all there are @param {{quotes: ModeName, tickers: ModeName}} modes */
  constructor(feed, symbols, modes) {
    this.feed = feed;
    /** @type {string[] | null} */
    this.wanted = symbols;
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    /** @type {Map<string, Instrument>} */
    this.instruments = new Map();
    /** Grows when lines come or go. */
    this.version = 0;
    /** What the watchlist's head says, where something was refused or cut. */
    this.note = "";
    /** @type {Set<Row>} */
    this.sparkless = new Set();
    this.isSparkBusy = false;
    const hears = { refused: (/** @type {{topic: string, code: number, message: string}} */ refusal) => this.#refused(refusal) };
    const names = symbols === null ? null : symbols.slice();
    this.tickers = feed.subscribe(this.#names("ticker", names), delivery(modes.tickers), { ...hears,
      event: (event) => this.#ticker(event), snapshot: ({ events }) => events.forEach((event) => this.#ticker(event)) });
    this.quotes = feed.subscribe(this.#names("quote", names), delivery(modes.quotes), { ...hears,
      event: (event) => this.#quote(event), snapshot: ({ events }) => events.forEach((event) => this.#quote(event)) });
    this.statuses = feed.subscribe(this.#names("status", names), { mode: "conflate" }, { ...hears,
      event: (event) => this.#status(event), snapshot: ({ events }) => events.forEach((event) => this.#status(event)) });
    for (const symbol of symbols ?? []) this.#row(symbol);
    feed.on("welcome", () => this.#list());
  }

  /** @param {typeof CHANNELS[number]} channel @param {string[] | null} symbols */
  #names(channel, symbols) {
    return symbols === null ? [`${channel}:*`] : symbols.map((symbol) => `${channel}:${symbol}`);
  }

  get #subscriptions() {
    return { ticker: this.tickers, quote: this.quotes, status: this.statuses };
  }

  /** How many symbols fit beside the rest. */
  get symbolsMax() {
    return Math.floor(((this.feed.welcome?.limits.topics ?? Infinity) - TOPICS_APART) / CHANNELS.length);
  }

  /** Asks what there is; where all of it is more than a connection may hold, takes the first of it. */
  async #list() {
    const instruments = await this.feed.instruments().catch(() => []);
    if (instruments.length === 0) return;
    this.instruments = new Map(instruments.map((instrument) => [instrument.symbol, instrument]));
    for (const row of this.rows.values()) this.#describe(row);
    if (this.wanted === null && instruments.length > this.symbolsMax) {
      const most = this.symbolsMax;
      this.#choose(instruments.slice(0, most).map(({ symbol }) => symbol));
      this.#say(`The first ${most} of ${instruments.length} symbols: a connection holds ${this.feed.welcome.limits.topics} topics here, and a line takes three.`);
    }
    // What has no price yet has a line nevertheless.
    if (this.wanted === null) for (const { symbol } of instruments) this.#row(symbol);
    this.version += 1;
  }

  /** From patterns to names. @param {string[]} symbols */
  #choose(symbols) {
    this.wanted = symbols;
    for (const channel of CHANNELS) {
      const subscription = this.#subscriptions[channel];
      subscription.add(this.#names(channel, symbols));
      subscription.remove([`${channel}:*`]);
    }
    const kept = new Set(symbols);
    for (const symbol of this.rows.keys()) if (!kept.has(symbol)) this.rows.delete(symbol);
    for (const symbol of symbols) this.#row(symbol);
  }

  /** @param {string} symbol @returns {string} what is wrong with it; empty: it is there now */
  add(symbol) {
    if (this.rows.has(symbol)) return `${symbol} is in the list already.`;
    const known = this.instruments.get(symbol) ?? [...this.instruments.values()].find((one) => one.symbol.toLowerCase() === symbol.toLowerCase());
    if (!known) return `There is no ${symbol} here.`;
    if (known.symbol !== symbol) return this.add(known.symbol);
    if (this.rows.size >= this.symbolsMax) return `${this.symbolsMax} symbols is what a connection may hold here; remove one first.`;
    if (this.wanted === null) return "";
    this.wanted = [...this.wanted, symbol];
    this.#row(symbol);
    for (const channel of CHANNELS) this.#subscriptions[channel].add([`${channel}:${symbol}`]);
    this.version += 1;
    return "";
  }

  /** @param {string} symbol */
  remove(symbol) {
    if (!this.rows.has(symbol)) return;
    if (this.wanted === null) this.#choose([...this.rows.keys()]);
    this.wanted = (this.wanted ?? []).filter((one) => one !== symbol);
    for (const channel of CHANNELS) this.#subscriptions[channel].remove([`${channel}:${symbol}`]);
    this.rows.delete(symbol);
    this.version += 1;
  }

  /** @param {string} symbol @returns {Row} */
  #row(symbol) {
    const known = this.rows.get(symbol);
    if (known) return known;
    const row = new Row(symbol);
    this.#describe(row);
    this.rows.set(symbol, row);
    this.version += 1;
    return row;
  }

  /** @param {Row} row */
  #describe(row) {
    row.instrument = this.instruments.get(row.symbol) ?? row.instrument;
    row.version += 1;
  }

  /** @param {MarketEvent} event @returns {Row | null} null: just removed */
  #rowOf(event) {
    return this.rows.get(event.sym) ?? (this.wanted === null ? this.#row(event.sym) : null);
  }

  /** @param {MarketEvent} event */
  #ticker(event) {
    const row = this.#rowOf(event);
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
    const row = this.#rowOf(event);
    if (!row) return;
    row.quote = event;
    row.version += 1;
  }

  /** @param {MarketEvent} event */
  #status(event) {
    const row = this.#rowOf(event);
    if (!row) return;
    row.status = event;
    row.version += 1;
  }

  /** A line came into view, so its last hour is wanted. @param {Row} row */
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
      const answer = await this.feed.snapshot(rows.map(({ symbol }) => `bar:${symbol}:1m`), SPARK_MINUTES).catch(() => ({ ok: [] }));
      const bySymbol = new Map(answer.ok.map(({ topic, events }) => [topic.split(":")[1], events]));
      for (const row of rows) {
        const bars = bySymbol.get(row.symbol) ?? [];
        row.spark = bars.map(({ c }) => Number(c));
        row.minute = Math.floor(/** @type {number} */ (bars.at(-1)?.start ?? 0) / MINUTE_NS);
        if (row.ticker) this.#extend(row, Number(row.ticker.last), row.ticker.ts);
        row.version += 1;
      }
    }
    this.isSparkBusy = false;
  }

  /** @param {{topic: string, code: number, message: string}} refusal */
  #refused({ topic, code, message }) {
    this.#say(`${topic}: ${message} (${code})`);
    const symbol = topic.split(":")[1];
    if (code === 412 && this.wanted?.includes(symbol)) this.remove(symbol);
  }

  /** @param {string} note */
  #say(note) {
    this.note = note;
    this.version += 1;
  }
}
