/**
 * The tickcast client: one connection to a feed, kept open, with every event accounted for.
 *
 *     import { connect } from "http://127.0.0.1:8080/tickcast.js";
 *     const feed = connect("ws://127.0.0.1:8080/v1/feed");
 *     feed.subscribe(["quote:*"], { mode: "interval", intervalMs: 100 }, { event: (quote) => console.log(quote.sym, quote.bid, quote.ask) });
 *
 * An ES module for browsers and, with a `WebSocket` passed in, for Node 20. Its only dependency is the MessagePack decoder beside it.
 *
 * Prices and quantities are decimal strings, exact. Times (`ts`, `tx`, `start`, …) are nanoseconds since the Unix epoch, as numbers: off by up
 * to 128 ns, whole seconds exact. docs/protocol.md defines the fields.
 *
 * @module tickcast
 */

import { Decoder, Encoder } from "./vendor/msgpack.js";

/** @typedef {"raw" | "conflate" | "interval"} Mode Every event · the newest as soon as the socket takes it · the newest, once an interval. */
/** @typedef {"conflate" | "gap" | "disconnect"} OnSlow The server's action when this client is a slow consumer. */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State `waiting`: for the next attempt; `closed`: for good. */

/**
 * An event of any channel; `ch` determines its fields.
 * @typedef {object} MarketEvent
 * @property {"trade" | "quote" | "ticker" | "bar" | "status" | "book"} ch channel
 * @property {string} sym symbol
 * @property {number} seq its number in its topic and epoch
 * @property {number} ts time at the source, ns
 * @property {number} tx time at which the bus published it, ns
 * @property {string} [px] trade: price
 * @property {string} [qty] trade: quantity
 * @property {"buy" | "sell" | "none"} [side] trade: the aggressor
 * @property {string} [id] trade: the source's own number
 * @property {string | null} [bid] quote: best bid; null where there is none
 * @property {string | null} [bidq] quote: quantity at the best bid; absent where the source gives no sizes
 * @property {string | null} [ask] quote: best ask
 * @property {string | null} [askq] quote: quantity at the best ask; absent where the source gives no sizes
 * @property {string} [last] ticker: last price
 * @property {string} [open] ticker: first price of the session
 * @property {string} [high] ticker: highest of the session
 * @property {string} [low] ticker: lowest of the session
 * @property {string} [vol] ticker and bar: volume
 * @property {string} [vwap] ticker: volume-weighted average price
 * @property {number} [n] ticker and bar: trades
 * @property {string} [chg] ticker: last / open − 1
 * @property {string} [iv] bar: interval
 * @property {number} [start] bar: its begin, ns
 * @property {string} [o] bar: open
 * @property {string} [h] bar: high
 * @property {string} [l] bar: low
 * @property {string} [c] bar: close
 * @property {boolean} [done] bar: this is its last event
 * @property {number} [depth] book: levels a side
 * @property {"live" | "stale" | "halted" | "closed"} [state] status
 * @property {"sim" | "replay" | "live" | "push"} [src] status: what kind of source
 * @property {number} [since] status: since when, ns
 */

/** @typedef {{topic: string, epoch: string, seq: number, events: MarketEvent[]}} Snapshot The topic's state at `seq`. */

/**
 * A hole in a topic, declared by the server (`slow`, `bus`, `expired`, `source`) or found here (`unexplained`: the server broke its word; the
 * client then asks for a snapshot by itself).
 * @typedef {object} Gap
 * @property {string} topic topic
 * @property {number} from first missing
 * @property {number} to last missing
 * @property {number} n how many
 * @property {"slow" | "bus" | "expired" | "source" | "unexplained"} cause why
 */

/** @typedef {{topic: string, code: number, message: string}} Refusal A topic or pattern that was rejected or is no longer subscribed. */

/**
 * The settings in force for one topic.
 * @typedef {object} Grant
 * @property {string} topic topic
 * @property {string} epoch its epoch
 * @property {Mode} mode mode
 * @property {number} [interval_ms] with mode `interval`
 * @property {OnSlow} on_slow what happens when this client can't keep up
 * @property {number} seq the topic's newest event at that moment
 * @property {boolean} [recovered] after a reconnect: what was missed follows
 * @property {Grant[]} [matched] of a pattern: its topics
 */

/**
 * Requested delivery.
 * @typedef {object} Delivery
 * @property {Mode} [mode] default `raw`
 * @property {10 | 25 | 50 | 100 | 250 | 500 | 1000 | 5000} [intervalMs] with mode `interval`
 * @property {OnSlow} [onSlow] default: the channel's own
 */

/** @typedef {Delivery & {snapshot?: boolean | number}} Wish `snapshot`: true (default), false, or how many trades or bars. */

/**
 * Callbacks of a subscription, all optional.
 * @typedef {object} Handlers
 * @property {(event: MarketEvent) => void} [event] each event, in order within its topic
 * @property {(snapshot: Snapshot) => void} [snapshot] the state to begin with; again after a new epoch, a `resync`, a hidden tab
 * @property {(gap: Gap) => void} [gap] events that won't come
 * @property {(grant: Grant) => void} [granted] a topic is held, or its settings changed
 * @property {(refusal: Refusal) => void} [refused] a topic or pattern was refused, or is held no longer
 */

/** @typedef {{symbol: string, channels: string[], price_scale: number, qty_scale: number, src: string, description?: string}} Instrument */

/**
 * One line of an account: head − start = delivered + merged + lost.
 * @typedef {{topic: string, epoch: string, start: number, head: number, delivered: number, merged: number, lost: number}} AccountLine
 */

/**
 * Both accounts at one instant.
 * @typedef {object} Ledger
 * @property {(AccountLine & {pending: number})[]} server what the server counted
 * @property {AccountLine[]} own what this client counted from the wire alone
 * @property {number} unaccounted Σ |head − start − delivered − merged − lost| of the server's lines; 0 by its promise
 * @property {string[]} differing topics in which the two accounts differ; empty by the server's promise
 */

/**
 * @typedef {object} Options
 * @property {"msgpack" | "json"} [encoding] default `msgpack`
 * @property {any} [WebSocket] a constructor like the browser's; needed where there is none (Node 20: of the package `ws`)
 * @property {string | (() => string | Promise<string>)} [token] key or JSON Web Token for a server with authentication. A function is called for each
 *     connection and before the token ends; "": none, for what the server shows to everybody
 * @property {boolean} [hiddenTab] whether a hidden tab falls back to one event a second and topic, and no trades; default: where there is a document
 */

/**
 * Events of the connection, by name.
 * @typedef {object} FeedEvents
 * @property {{state: State, reason: string, retryMs: number | null, code: number | null}} state the connection's state changed; `reason`: as far as
 *     it is known; `code`: of the protocol, 401 or 402 for a missing or refused token
 * @property {any} welcome the server's first message of a connection
 * @property {{level: "ok" | "warn" | "degraded", queued_bytes: number, behind_ms: number}} lag this client is late, or no longer
 * @property {{delivered: number, merged: number, lost: number, queued_bytes: number, agrees: boolean}} heartbeat the server's account of the
 *     connection; `agrees`: this client counted the same
 * @property {{name: string, state: "live" | "stale" | "reconnecting" | "ended", since: number}} source a source changed
 * @property {{code: number, name: string, message: string}} error a request failed as a whole
 */

const HIDDEN_INTERVAL_MS = 1000;
const PING_EVERY_MS = 5000;
/** The first pings of a connection come fast, so that the clock's offset is known early. */
const FIRST_PINGS = 4;
const RETRY_FIRST_MS = 1000;
const RETRY_LONGEST_MS = 30000;
/** The token is read again at this interval until it is another one. */
const RENEW_EVERY_MS = 1000;
/** Silence of so many heartbeats means that the connection is dead. */
const HEARTBEATS_MISSED = 4;
/** Codes of the protocol for a missing token, and for one that is wrong or has ended. */
const AUTH_REQUIRED = 401, AUTH_FAILED = 402;
/** @param {string} reason */
const refusal = (reason) => Object.assign(new Error(reason), { code: 4000 + AUTH_REQUIRED });
/** Final without a `bye`: the protocol's own list. */
const isFinal = (/** @type {number} */ code) => (code >= 4400 && code <= 4404) || code === 1002 || code === 1007 || code === 1009;

/** Opens a feed. It keeps itself open until `close()`.
 * @param {string} url `ws://host:port/v1/feed`
 * @param {Options} [options]
 * @returns {Feed} */
export function connect(url, options = {}) {
  return new Feed(url, options);
}

/** True if a pattern or topic covers a topic: the symbol may be `*` or end in it.
 * @param {string} name @param {string} topic */
export function covers(name, topic) {
  const star = name.indexOf("*");
  if (star < 0) return name === topic;
  const tail = name.slice(star + 1);
  return topic.startsWith(name.slice(0, star)) && topic.endsWith(tail) && topic.length >= star + tail.length
    && topic.split(":").length === name.split(":").length;
}

/** @param {MarketEvent} event */
const topicOf = (event) => (event.iv !== undefined ? `bar:${event.sym}:${event.iv}`
  : event.depth !== undefined ? `book:${event.sym}:${event.depth}` : `${event.ch}:${event.sym}`);

/** Counts of a topic as received by this client. */
class Account {
  /** @param {string} topic @param {string} epoch @param {number} start */
  constructor(topic, epoch, start) {
    this.topic = topic;
    this.epoch = epoch;
    this.start = start;
    this.head = start;
    this.delivered = 0;
    this.merged = 0;
    this.lost = 0;
    /** @type {Mode} */
    this.mode = "raw";
    /** @type {OnSlow} */
    this.onSlow = "gap";
    /** Up to this number the settings before the last change may still merge. */
    this.settlesAt = 0;
    /** Up to this number events were missed before the connection and are brought back. */
    this.missedUpTo = 0;
    /** @type {Subscription[]} who hears of it */
    this.listeners = [];
  }

  /** A new epoch ends the account and begins the next. @param {string} epoch @param {number} start */
  begin(epoch, start) {
    this.epoch = epoch;
    this.start = start;
    this.head = start;
    this.delivered = this.merged = this.lost = 0;
    this.settlesAt = this.missedUpTo = 0;
  }

  /** @returns {AccountLine} */
  line() {
    const { topic, epoch, start, head, delivered, merged, lost } = this;
    return { topic, epoch, start, head, delivered, merged, lost };
  }
}

/** Topics and patterns that were asked for together, and who hears of them. Made by {@link Feed#subscribe}. */
export class Subscription {
  /** @type {Feed} */ #feed;

  /** @param {Feed} feed @param {string[]} names @param {Wish} wish @param {Handlers} handlers */
  constructor(feed, names, wish, handlers) {
    this.#feed = feed;
    /** The topics and patterns, as they were asked for. */
    this.names = names;
    /** Requested delivery; read-only, changed by `modify`. */
    this.wish = wish;
    this.handlers = handlers;
    /** Counted over all connections. */
    this.counts = { delivered: 0, merged: 0, lost: 0 };
  }

  /** Changes how events come, in mid-stream; the account goes on.
   * @param {Delivery} delivery what isn't given stays */
  modify(delivery) {
    this.wish = { ...this.wish, ...delivery };
    this.#feed._modify(this);
  }

  /** Takes in further topics or patterns. @param {string[]} names */
  add(names) {
    const added = names.filter((name) => !this.names.includes(name));
    this.names = [...this.names, ...added];
    this.#feed._added(this, added);
  }

  /** Gives up some of its topics or patterns. @param {string[]} names */
  remove(names) {
    const removed = this.names.filter((name) => names.includes(name));
    this.names = this.names.filter((name) => !names.includes(name));
    this.#feed._removed(removed);
  }

  /** Asks for the state again. */
  resync() {
    this.#feed._resync(this);
  }

  /** Ends it. Topics that another subscription covers stay held. */
  close() {
    this.#feed._unsubscribe(this);
  }

  /** The topics held under it now. @returns {string[]} */
  get topics() {
    return this.#feed._topicsOf(this);
  }
}

/** The bars of one symbol and interval, kept current: the past by a snapshot, the present by the stream. Made by {@link Feed#bars}. */
export class Bars {
  /** @param {Feed} feed @param {string} symbol @param {string} interval @param {Delivery & {history?: number}} options
   * @param {(change: {bars: MarketEvent[], bar: MarketEvent | null}) => void} changed */
  constructor(feed, symbol, interval, options, changed) {
    const { history = 500, ...delivery } = options;
    /** In the order of their begins. @type {MarketEvent[]} */
    this.list = [];
    this.changed = changed;
    /** Number of bars kept. */
    this.kept = 4 * history;
    let epoch = "";
    this.subscription = feed.subscribe([`bar:${symbol}:${interval}`], { ...delivery, snapshot: history }, {
      event: (bar) => this.#take(bar),
      snapshot: (snapshot) => {
        if (snapshot.epoch !== epoch) this.list = [];
        epoch = snapshot.epoch;
        for (const bar of snapshot.events) this.#put(bar);
        this.changed({ bars: this.list, bar: null });
      },
      // What is missing in the middle comes with a new snapshot.
      gap: (gap) => { if (gap.n > 0 && gap.cause !== "expired") this.subscription.resync(); },
    });
  }

  /** @param {MarketEvent} bar */
  #take(bar) {
    const isNext = this.#put(bar);
    this.changed({ bars: this.list, bar: isNext ? bar : null });
  }

  /** @param {MarketEvent} bar @returns {boolean} whether it is the newest one */
  #put(bar) {
    const { list } = this;
    const start = /** @type {number} */ (bar.start);
    let place = list.length;
    while (place > 0 && /** @type {number} */ (list[place - 1].start) > start) place -= 1;
    if (place > 0 && list[place - 1].start === start) {
      if (list[place - 1].seq <= bar.seq) list[place - 1] = bar;
      return place === list.length;
    }
    list.splice(place, 0, bar);
    if (list.length > this.kept) list.splice(0, list.length - this.kept);
    return place + 1 >= list.length;
  }

  /** Ends it. */
  close() {
    this.subscription.close();
  }
}

/** How late events came, in buckets of 1/8 octave from 1 µs, over the last five to ten seconds. */
class Latencies {
  constructor() {
    this.now = new Uint32Array(256);
    this.before = new Uint32Array(256);
    this.turnedAt = 0;
    /** The longest of the present second and of the one before, and which second that is. */
    this.worst = { now: -Infinity, before: -Infinity, second: 0 };
  }

  /** @param {number} at the present, ms @returns {number | null} ms, the longest of the last one to two seconds */
  longest(at) {
    this.#turn(at);
    const longest = Math.max(this.worst.now, this.worst.before);
    return longest === -Infinity ? null : longest;
  }

  /** @param {number} at the present, ms */
  #turn(at) {
    const second = Math.floor(at / 1000), { worst } = this;
    if (second === worst.second) return;
    this.worst = { now: -Infinity, before: second === worst.second + 1 ? worst.now : -Infinity, second };
  }

  /** @param {number} ms @param {number} at the present, ms */
  add(ms, at) {
    this.#turn(at);
    if (ms > this.worst.now) this.worst.now = ms;
    if (at - this.turnedAt > 5000) {
      [this.now, this.before] = [this.before, this.now];
      this.now.fill(0);
      this.turnedAt = at;
    }
    const bucket = ms <= 0.001 ? 0 : Math.min(255, Math.floor(8 * Math.log2(ms * 1000)));
    this.now[bucket] += 1;
  }

  /** Forgets everything. */
  clear() {
    this.now.fill(0);
    this.before.fill(0);
    this.worst = { now: -Infinity, before: -Infinity, second: 0 };
  }

  /** @param {number[]} shares @param {number} at the present, ms
   * @returns {(number | null)[]} ms, the upper end of its bucket; null where nothing was measured */
  quantiles(shares, at) {
    if (at - this.turnedAt > 10000) this.clear();
    let total = 0;
    for (let bucket = 0; bucket < 256; bucket += 1) total += this.now[bucket] + this.before[bucket];
    return shares.map((share) => {
      if (total === 0) return null;
      let left = share * total;
      for (let bucket = 0; bucket < 256; bucket += 1) {
        left -= this.now[bucket] + this.before[bucket];
        if (left <= 0) return 2 ** ((bucket + 1) / 8) / 1000;
      }
      return null;
    });
  }
}

/** The server's clock against this one, from pings: the answer that took the least time tells it best. */
class ServerClock {
  constructor() {
    /** @type {{offset: number, rtt: number}[]} */
    this.samples = [];
    /** What to add to this clock, ms. */
    this.offset = 0;
    /** The shortest round trip of the last pings, ms; null before the first. @type {number | null} */
    this.rtt = null;
  }

  /** @param {number} sent @param {number} server @param {number} received all ms */
  take(sent, server, received) {
    this.samples.push({ offset: server - (sent + received) / 2, rtt: received - sent });
    if (this.samples.length > 8) this.samples.shift();
    const best = this.samples.reduce((a, b) => (b.rtt < a.rtt ? b : a));
    this.offset = best.offset;
    this.rtt = best.rtt;
  }
}

/** This machine's clock, ms with fractions. */
const clockMs = () => performance.timeOrigin + performance.now();

/** Reports an exception of a handler as the platform reports any other: `window.onerror` in a page, `uncaughtException` in Node.
 * @param {unknown} error */
function report(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else queueMicrotask(() => { throw error; });
}

/** A connection that keeps itself open, and the subscriptions on it. Made by {@link connect}. */
export class Feed {
  /** @type {any} */ #socket = null;
  /** @type {any} */ #makeSocket;
  /** @type {Map<string, Set<Function>>} */ #hearers = new Map();
  /** @type {Set<Subscription>} */ #subscriptions = new Set();
  /** @type {Map<string, Account>} */ #accounts = new Map();
  /** The places to go on from after a reconnect. @type {Map<string, {epoch: string, seq: number}>} */ #places = new Map();
  /** @type {Map<number, {request: any, part?: (answer: any) => void, done?: (answer: any) => void, failed?: (error: any) => void}>} */ #asked = new Map();
  /** @type {any[]} */ #queue = [];
  #tokens = 0;
  #refilledAt = 0;
  #nextId = 1;
  #attempt = 0;
  /** @type {any} */ #bye = null;
  /** Why the connection was lost, while attempts to open another fail. */ #lostBecause = "";
  /** @type {any} */ #retryTimer = null;
  /** @type {any} */ #queueTimer = null;
  /** @type {any} */ #beat = null;
  #heardAt = 0;
  #pings = 0;
  #encoder = new Encoder();
  #decoder = new Decoder();
  #latencies = new Latencies();
  #isHidden = false;
  #wasClosed = false;
  /** @type {Options["token"]} */ #token;
  /** Token of this connection. */ #presented = "";
  /** Token that the server refused, or that has ended. */ #refused = "";
  /** Number of attempts to connect. */ #opening = 0;
  /** @type {any} */ #renewTimer = null;
  /** @type {(() => void) | null} */ #unwatch = null;
  /** Calls of handlers, in order: made once the whole message is accounted for, so that no handler can disturb the account.
   * @type {(() => void)[]} */ #calls = [];
  /** While true, calls wait: a message is being accounted for, or earlier calls are being made. */
  #holdsCalls = false;

  /** @param {string} url @param {Options} options */
  constructor(url, options) {
    this.url = url;
    this.encoding = options.encoding ?? "msgpack";
    this.#makeSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#makeSocket) throw new Error("no WebSocket implementation: pass one as options.WebSocket (npm install ws)");
    /** @type {State} */
    this.state = "connecting";
    /** The server's first message: its limits, its epoch. @type {any} */
    this.welcome = null;
    /** @type {"ok" | "warn" | "degraded"} */
    this.lag = "ok";
    this.clock = new ServerClock();
    /** Since the start. */
    this.counts = { messages: 0, bytes: 0, events: 0, delivered: 0, merged: 0, lost: 0, unexplained: 0, connections: 0 };
    /** Of this connection. */
    this.connection = { delivered: 0, merged: 0, lost: 0 };
    /** While true, silence is not taken for a dead connection: for those who slow themselves down. */
    this.isPatient = false;
    this.#token = options.token;
    if (options.hiddenTab ?? typeof document !== "undefined") this.#watchTab();
    this.#open();
  }

  /** Hears of the connection. @template {keyof FeedEvents} K @param {K} name @param {(told: FeedEvents[K]) => void} hearer
   * @returns {() => void} ends it */
  on(name, hearer) {
    const hearers = this.#hearers.get(name) ?? new Set();
    this.#hearers.set(name, hearers.add(hearer));
    return () => void hearers.delete(hearer);
  }

  /** Subscribes, now and after each reconnect.
   * @param {string[]} names topics and patterns: `trade:BTC-USD`, `quote:*`, `bar:BTC-*:1m`
   * @param {Wish} [wish] @param {Handlers} [handlers] @returns {Subscription} */
  subscribe(names, wish = {}, handlers = {}) {
    const subscription = new Subscription(this, [...new Set(names)], wish, handlers);
    this.#subscriptions.add(subscription);
    this._added(subscription, subscription.names);
    return subscription;
  }

  /** Bars with their past, kept current.
   * @param {string} symbol @param {"1s" | "1m" | "5m" | "1h" | "1d"} interval @param {Delivery & {history?: number}} options
   * @param {(change: {bars: MarketEvent[], bar: MarketEvent | null}) => void} changed `bar`: only the newest changed, or one was added; null: look at all
   * @returns {Bars} */
  bars(symbol, interval, options, changed) {
    return new Bars(this, symbol, interval, options, changed);
  }

  /** What can be subscribed to. @param {string} [pattern] of symbols @returns {Promise<Instrument[]>} */
  instruments(pattern = "*") {
    /** @type {Instrument[]} */
    const all = [];
    return this.#ask({ op: "instruments", pattern }, (answer) => all.push(...answer.instruments)).then(() => all);
  }

  /** The states of topics as of now, by HTTP, without subscribing.
   * @param {string[]} topics topics and patterns @param {number} [events] at most so many trades or bars of each
   * @returns {Promise<{ok: Snapshot[], err: Refusal[]}>} */
  async snapshot(topics, events) {
    const query = `topics=${topics.map(encodeURIComponent).join(",")}${events === undefined ? "" : `&events=${events}`}`;
    // Beside the feed, so that both may lie under a proxy's path prefix.
    const address = new URL(`snapshot?${query}`, this.url.replace(/^ws/, "http"));
    const answer = await fetch(address, this.#presented ? { headers: { authorization: `Bearer ${this.#presented}` } } : {});
    if (!answer.ok) throw new Error(`${address.pathname}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Asks for the server's account, and compares it with this client's own at the same instant. @returns {Promise<Ledger>} */
  async ledger() {
    /** @type {Ledger} */
    const ledger = { server: [], own: [], unaccounted: 0, differing: [] };
    await this.#ask({ op: "ledger" }, (answer) => {
      for (const line of answer.topics) {
        const own = this.#accounts.get(line.topic)?.line();
        ledger.server.push(line);
        if (own) ledger.own.push(own);
        ledger.unaccounted += Math.abs(line.head - line.start - line.delivered - line.merged - line.lost);
        const isSame = own && own.epoch === line.epoch && own.start === line.start && own.head === line.head
          && own.delivered === line.delivered && own.merged === line.merged && own.lost === line.lost;
        if (!isSame) ledger.differing.push(line.topic);
      }
    });
    return ledger;
  }

  /** How long events took from the bus to here, ms, over the last seconds; the clocks' difference is taken out.
   * @param {...number} shares 0.5 for the median @returns {(number | null)[]} */
  latency(...shares) {
    return this.#latencies.quantiles(shares, clockMs());
  }

  /** The longest that an event of the last one to two seconds took from the bus to here, ms; null where none came. */
  get longestLatency() {
    return this.#latencies.longest(clockMs());
  }

  /** Time since anything was received, ms; null before the first message of a connection. */
  get silentMs() {
    return this.welcome === null ? null : clockMs() - this.#heardAt;
  }

  /** Tries at once, while it waits for the next attempt, or after the server has closed for good: with another token, say. */
  retry() {
    if (this.#wasClosed || (this.state !== "waiting" && this.state !== "closed")) return;
    clearTimeout(this.#retryTimer);
    this.#open();
  }

  /** Closes for good. */
  close() {
    this.#wasClosed = true;
    this.#unwatch?.();
    this.#opening += 1;
    clearTimeout(this.#retryTimer);
    if (this.#socket) this.#socket.close(1000);
    else this.#turn("closed", "closed by this client");
  }

  // --- The connection ---

  #open() {
    this.#turn("connecting", "");
    this.#bye = null;
    this.#opening += 1;
    if (this.#token === undefined) return this.#openSocket(this.url);
    const attempt = this.#opening;
    const isCurrent = () => attempt === this.#opening;
    this.#admittedUrl().then(
      (url) => { if (isCurrent()) this.#openSocket(url); },
      (error) => { if (isCurrent()) this.#ended(error.code ?? 1006, error.message); },
    );
  }

  /** @param {string} url */
  #openSocket(url) {
    const socket = new this.#makeSocket(url, [`tickcast.v1.${this.encoding}`]);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onmessage = (/** @type {any} */ message) => { if (socket === this.#socket) this.#receive(message.data); };
    socket.onerror = () => {};
    socket.onclose = (/** @type {any} */ close) => { if (socket === this.#socket) this.#ended(close.code, String(close.reason ?? "")); };
  }

  // --- The token ---

  /** The feed's address with a one-use ticket: browsers can set no header on a handshake, and proxies log the token of an address. */
  async #admittedUrl() {
    this.#presented = "";
    const token = await this.#readToken();
    if (token === "") return this.url;
    if (token === this.#refused) throw refusal("the token has ended or was refused; give another one");
    const answer = await fetch(new URL("ticket", this.url.replace(/^ws/, "http")), { method: "POST", headers: { authorization: `Bearer ${token}` } });
    // A server without authentication has no tickets.
    if (answer.status === 404) return this.url;
    if (!answer.ok) {
      const reason = (await answer.text()).trim();
      if (answer.status !== 401) throw new Error(`no ticket: ${answer.status} ${reason}`);
      this.#refused = token;
      throw refusal(reason);
    }
    this.#presented = token;
    const url = new URL(this.url);
    url.searchParams.set("ticket", (await answer.json()).ticket);
    return url.href;
  }

  async #readToken() {
    const token = typeof this.#token === "function" ? await this.#token() : this.#token;
    return token ?? "";
  }

  /** Presents another token before this connection's own one ends, as soon as there is one. */
  async #renew() {
    if (typeof this.#token !== "function") return;
    const attempt = this.#opening;
    let token = "";
    try {
      token = await this.#readToken();
    } catch (error) {
      report(error);
    }
    if (this.state !== "open" || attempt !== this.#opening) return;
    if (token === "" || token === this.#presented) {
      this.#renewTimer = setTimeout(() => this.#renew(), RENEW_EVERY_MS);
      return;
    }
    this.#presented = token;
    this.#ask({ op: "auth", token }).catch(() => {});
  }

  /** @param {number} code @param {string} reason */
  #ended(code, reason) {
    this.#socket = null;
    clearInterval(this.#beat);
    clearTimeout(this.#queueTimer);
    clearTimeout(this.#renewTimer);
    for (const [topic, { epoch, head }] of this.#accounts) this.#places.set(topic, { epoch, seq: head });
    this.#accounts.clear();
    this.#queue = [];
    const failed = [...this.#asked.values()];
    this.#asked.clear();
    for (const { failed: tell } of failed) tell?.(new Error("connection closed before the response"));
    if (this.lag !== "ok") this.#tell("lag", { level: this.lag = "ok", queued_bytes: 0, behind_ms: 0 });
    const bye = this.#bye;
    const why = this.#why(this.state === "open", bye?.message ?? reason);
    if (this.#wasClosed) return this.#turn("closed", "closed by this client");
    const reasonCode = bye?.code ?? (code >= 4400 && code < 4500 ? code - 4000 : null);
    const isUnauthenticated = reasonCode === AUTH_FAILED;
    if (isUnauthenticated) this.#refused = this.#presented;
    // The function may return another token; the same one is not presented again.
    const renews = isUnauthenticated && typeof this.#token === "function" && this.#presented !== "";
    if (!renews && (bye ? !bye.reconnect : isFinal(code))) return this.#turn("closed", why, null, reasonCode);
    const cap = Math.min(RETRY_LONGEST_MS, RETRY_FIRST_MS * 2 ** this.#attempt);
    // A slot that the server gave is this client's own; a little is added lest two who share it meet.
    const wait = renews ? 0 : bye?.after_ms !== undefined ? bye.after_ms + Math.random() * 50 : Math.random() * cap;
    this.#attempt += 1;
    this.#retryTimer = setTimeout(() => this.#open(), wait);
    this.#turn("waiting", why, Math.round(wait), reasonCode);
  }

  /** The reason of a lost connection; that of an open one holds while attempts to open another fail for no known reason.
   * @param {boolean} wasOpen @param {string} reason as far as the server or the browser says it */
  #why(wasOpen, reason) {
    if (wasOpen) return this.#lostBecause = reason || "connection lost";
    if (reason) return reason;
    return this.#lostBecause ? `${this.#lostBecause}; server unreachable` : "server unreachable";
  }

  /** @param {State} state @param {string} reason @param {number | null} [retryMs] @param {number | null} [code] */
  #turn(state, reason, retryMs = null, code = null) {
    this.state = state;
    this.#tell("state", { state, reason, retryMs, code });
  }

  /** @template {keyof FeedEvents} K @param {K} name @param {FeedEvents[K]} told */
  #tell(name, told) {
    this.#call(() => {
      for (const hearer of this.#hearers.get(name) ?? []) this.#isolated(() => hearer(told));
    });
  }

  /** Calls a handler of a subscription, unless the topic is no longer the subscription's when its turn comes.
   * @param {Subscription} subscription @param {Account | null} account null: of a topic that is not held
   * @param {keyof Handlers} name @param {any} value */
  #notify(subscription, account, name, value) {
    if (!subscription.handlers[name]) return;
    this.#call(() => {
      const isWanted = this.#subscriptions.has(subscription) && (account === null || account.listeners.includes(subscription));
      if (isWanted) this.#isolated(() => /** @type {any} */ (subscription.handlers)[name]?.(value));
    });
  }

  /** Makes a call after those before it, and not before the message at hand is accounted for. @param {() => void} call */
  #call(call) {
    this.#calls.push(call);
    if (!this.#holdsCalls) this.#makeCalls();
  }

  #makeCalls() {
    this.#holdsCalls = true;
    for (let at = 0; at < this.#calls.length; at += 1) this.#calls[at]();
    this.#calls = [];
    this.#holdsCalls = false;
  }

  /** An exception in one handler concerns neither the others nor the connection. @param {() => void} call */
  #isolated(call) {
    try {
      call();
    } catch (error) {
      report(error);
    }
  }

  /** @param {any} welcome */
  #begin(welcome) {
    if (welcome.auth === "required") {
      const socket = this.#socket;
      this.#ended(4000 + AUTH_REQUIRED, "the server requires a token");
      return socket.close(1000);
    }
    this.welcome = welcome;
    this.counts.connections += 1;
    this.#lostBecause = "";
    this.connection = { delivered: 0, merged: 0, lost: 0 };
    this.#attempt = 0;
    this.#pings = 0;
    this.#tokens = 4 * welcome.limits.requests_per_s;
    this.#refilledAt = clockMs();
    this.clock.samples = [];
    this.#turn("open", "");
    this.#tell("welcome", welcome);
    this.#ping();
    for (const subscription of this.#subscriptions) this.#sendSubscribe(subscription, subscription.names, true);
    let pingedAt = clockMs();
    this.#beat = setInterval(() => {
      const now = clockMs();
      if (!this.isPatient && now - this.#heardAt > HEARTBEATS_MISSED * welcome.heartbeat_ms) return this.#giveUp("no message from the server");
      if (this.#pings < FIRST_PINGS || now - pingedAt > PING_EVERY_MS) {
        pingedAt = now;
        this.#ping();
      }
    }, 250);
  }

  /** Ends a connection that is of no more use, without waiting for the network to say so. @param {string} reason */
  #giveUp(reason) {
    const socket = this.#socket;
    this.#ended(1006, reason);
    socket.close();
  }

  #ping() {
    this.#pings += 1;
    this.#ask({ op: "ping", t: Math.round(clockMs() * 1000) }, (pong) => this.clock.take(pong.t / 1000, pong.ts / 1e6, clockMs())).catch(() => {});
  }

  /** @param {any} request @param {(answer: any) => void} [part] each part of the answer @returns {Promise<any>} its last part */
  #ask(request, part) {
    return new Promise((done, failed) => {
      if (this.state !== "open") return failed(new Error(`the feed is ${this.state}`));
      const id = this.#nextId++;
      this.#asked.set(id, { request, part, done, failed });
      this.#queue.push({ id, ...request });
      this.#sendQueued();
    });
  }

  /** Requests keep to the server's rate, so that none is refused. */
  #sendQueued() {
    const rate = this.welcome.limits.requests_per_s;
    const now = clockMs();
    this.#tokens = Math.min(4 * rate, this.#tokens + (now - this.#refilledAt) / 1000 * rate);
    this.#refilledAt = now;
    while (this.#queue.length > 0 && this.#tokens >= 1) {
      this.#tokens -= 1;
      const request = this.#queue.shift();
      this.#socket.send(this.encoding === "json" ? JSON.stringify(request) : this.#encoder.encode(request));
    }
    clearTimeout(this.#queueTimer);
    if (this.#queue.length > 0) this.#queueTimer = setTimeout(() => this.#sendQueued(), 1000 / rate);
  }

  // --- What is asked for ---

  /** How a name of a subscription is wanted now; null: not at all, while the tab is hidden. @param {Wish} wish @param {string} name
   * @returns {Delivery | null} */
  #deliveryOf(wish, name) {
    if (!this.#isHidden) return wish;
    return name.startsWith("trade:") ? null : { ...wish, mode: "interval", intervalMs: HIDDEN_INTERVAL_MS };
  }

  /** @param {Delivery} delivery */
  #fields(delivery) {
    return {
      mode: delivery.mode ?? "raw",
      ...(delivery.mode === "interval" ? { interval_ms: delivery.intervalMs } : {}),
      ...(delivery.onSlow === undefined ? {} : { on_slow: delivery.onSlow }),
    };
  }

  /** Asks for names of a subscription; those of which places are known go on from there.
   * @param {Subscription} subscription @param {string[]} wanted @param {boolean} isFirst on this connection */
  #sendSubscribe(subscription, wanted, isFirst) {
    const { wish } = subscription;
    for (const names of this.#portions(wanted)) {
      const delivery = this.#deliveryOf(wish, names[0]);
      if (!delivery) continue;
      const snapshot = isFirst ? wish.snapshot ?? true : wish.snapshot || true;
      const from = isFirst ? this.#from(names) : undefined;
      const request = { op: "subscribe", topics: names, ...this.#fields(delivery), snapshot, ...(from ? { from } : {}) };
      this.#ask(request, (answer) => this.#granted(answer, from, subscription)).catch((error) => this.#refusedAll(subscription, names, error));
    }
  }

  /** What fits into a request, trades apart, as they have a fate of their own in a hidden tab. @param {string[]} names */
  *#portions(names) {
    const room = this.welcome.limits.message_bytes / 2 - 1024;
    for (const isTrade of [true, false]) {
      /** @type {string[]} */
      let portion = [];
      let bytes = 0;
      for (const name of names.filter((one) => one.startsWith("trade:") === isTrade)) {
        if (bytes + name.length + 12 > room) {
          yield portion;
          portion = [];
          bytes = 0;
        }
        portion.push(name);
        bytes += name.length + 12;
      }
      if (portion.length > 0) yield portion;
    }
  }

  /** The places of all topics that the names cover. What no longer fits is subscribed afresh. @param {string[]} names */
  #from(names) {
    let room = this.welcome.limits.message_bytes / 2 - 1024;
    const exact = new Set(names);
    const patterns = names.filter((name) => name.includes("*"));
    /** @type {{epoch: string, seqs: Record<string, number>, epochs: Record<string, string>}} */
    const from = { epoch: this.welcome.epoch, seqs: {}, epochs: {} };
    let isEmpty = true;
    for (const [topic, { epoch, seq }] of this.#places) {
      if (!exact.has(topic) && !patterns.some((pattern) => covers(pattern, topic))) continue;
      room -= topic.length + 12 + (epoch === from.epoch ? 0 : topic.length + epoch.length + 6);
      if (room < 0) continue;
      isEmpty = false;
      from.seqs[topic] = seq;
      if (epoch !== from.epoch) from.epochs[topic] = epoch;
    }
    return isEmpty ? undefined : from;
  }

  /** @param {any} answer @param {any} from @param {Subscription} subscription */
  #granted(answer, from, subscription) {
    for (const entry of answer.ok) {
      for (const grant of entry.matched ?? [entry]) this.#grant(grant, from);
    }
    for (const refusal of answer.err) this.#notify(subscription, null, "refused", refusal);
  }

  /** @param {Grant} grant @param {any} [from] */
  #grant(grant, from) {
    let account = this.#accounts.get(grant.topic);
    if (!account) {
      const place = from?.seqs[grant.topic];
      const isSameEpoch = (from?.epochs[grant.topic] ?? from?.epoch) === grant.epoch;
      const start = grant.recovered !== undefined && isSameEpoch && place <= grant.seq ? place : grant.seq;
      // Only now: had the connection ended before the answer, the next one would go on from there.
      this.#places.delete(grant.topic);
      account = new Account(grant.topic, grant.epoch, start);
      if (grant.recovered) account.missedUpTo = grant.seq;
      this.#accounts.set(grant.topic, account);
      this.#listen(account);
    } else if (account.mode !== "raw") {
      account.settlesAt = grant.seq;
    }
    account.mode = grant.mode;
    account.onSlow = grant.on_slow;
    for (const subscription of account.listeners) this.#notify(subscription, account, "granted", grant);
  }

  /** @param {Account} account */
  #listen(account) {
    account.listeners = [...this.#subscriptions].filter(({ names }) => names.some((name) => covers(name, account.topic)));
  }

  /** @param {Subscription} subscription @param {string[]} names @param {any} error */
  #refusedAll(subscription, names, error) {
    if (error.code === undefined) return; // The connection ended; the next one asks again.
    for (const topic of names) this.#notify(subscription, null, "refused", { topic, code: error.code, message: error.message });
  }

  /** @param {Subscription} subscription @param {string[]} [names] */
  _modify(subscription, names = subscription.names) {
    if (this.state !== "open") return;
    for (const topics of this.#portions(names)) {
      const delivery = this.#deliveryOf(subscription.wish, topics[0]);
      if (!delivery) continue;
      this.#ask({ op: "modify", topics, ...this.#fields(delivery) }, (answer) => this.#granted(answer, undefined, subscription))
        .catch((error) => this.#refusedAll(subscription, topics, error));
    }
  }

  /** @param {Subscription} subscription */
  _resync(subscription) {
    if (this.state === "open") this.#sendSubscribe(subscription, subscription.names, false);
  }

  /** @param {Subscription} subscription @param {string[]} names that are new in it */
  _added(subscription, names) {
    for (const account of this.#accounts.values()) this.#listen(account);
    if (this.state === "open") this.#sendSubscribe(subscription, names, true);
  }

  /** @param {string[]} names that a subscription no longer has */
  _removed(names) {
    for (const account of this.#accounts.values()) this.#listen(account);
    const gone = new Set(names);
    const wanted = [...this.#subscriptions].flatMap((subscription) => subscription.names);
    for (const topic of this.#places.keys()) if (!wanted.some((name) => covers(name, topic))) this.#places.delete(topic);
    if (this.state !== "open") return;
    for (const subscription of this.#subscriptions) {
      // The same name, wanted by another: as that one wishes.
      const shared = subscription.names.filter((name) => gone.delete(name));
      this._modify(subscription, shared);
    }
    for (const topics of this.#portions([...gone])) this.#dismiss(topics);
  }

  /** @param {Subscription} subscription */
  _unsubscribe(subscription) {
    if (this.#subscriptions.delete(subscription)) this._removed(subscription.names);
  }

  /** @param {string[]} topics names that nobody wants any more */
  #dismiss(topics) {
    this.#ask({ op: "unsubscribe", topics }, (answer) => {
      for (const topic of answer.topics) {
        this.#accounts.delete(topic);
        this.#places.delete(topic);
      }
      for (const entry of answer.ok) for (const grant of entry.matched ?? [entry]) this.#grant(grant);
    }).catch(() => {});
  }

  /** @param {Subscription} subscription */
  _topicsOf(subscription) {
    return [...this.#accounts.values()].filter(({ listeners }) => listeners.includes(subscription)).map(({ topic }) => topic);
  }

  /** A hidden tab: one event a second and topic, and no trades; shown again: as before, beginning with snapshots. */
  #watchTab() {
    const turned = () => {
      const isHidden = document.visibilityState === "hidden";
      if (isHidden === this.#isHidden) return;
      this.#isHidden = isHidden;
      if (this.state !== "open") return;
      for (const subscription of this.#subscriptions) {
        if (!isHidden) {
          this.#latencies.clear(); // Events of a hidden tab waited for its interval.
          this.#sendSubscribe(subscription, subscription.names, false);
          continue;
        }
        this._modify(subscription);
        const trades = subscription.names.filter((name) => name.startsWith("trade:"));
        for (const topics of this.#portions(trades)) this.#dismiss(topics);
      }
    };
    document.addEventListener("visibilitychange", turned);
    this.#unwatch = () => document.removeEventListener("visibilitychange", turned);
    this.#isHidden = document.visibilityState === "hidden";
  }

  // --- What is received ---

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    const now = clockMs();
    this.#heardAt = now;
    this.counts.messages += 1;
    this.counts.bytes += typeof data === "string" ? data.length : data.byteLength;
    const message = this.#decoded(data);
    if (message === undefined) return;
    // A message that arrives while handlers run (one that stops in a debugger, say) waits for no one: its calls follow theirs.
    const isOutermost = !this.#holdsCalls;
    this.#holdsCalls = true;
    try {
      if (Array.isArray(message)) this.#events(message, now);
      else this.#control(message);
    } finally {
      if (isOutermost) this.#makeCalls();
    }
  }

  /** A message that can't be decoded ends the connection: what it said can't be accounted for.
   * @param {string | ArrayBuffer} data @returns {any} undefined: not to be decoded */
  #decoded(data) {
    try {
      return typeof data === "string" ? JSON.parse(data) : this.#decoder.decode(new Uint8Array(data));
    } catch (error) {
      this.#giveUp(`cannot decode a message of the server (${/** @type {Error} */ (error).message})`);
      return undefined;
    }
  }

  /** @param {MarketEvent[]} events @param {number} now ms */
  #events(events, now) {
    const serverNow = now + this.clock.offset;
    this.counts.events += events.length;
    for (const event of events) {
      this.#take(event, serverNow, now);
    }
  }

  /** @param {MarketEvent} event @param {number} serverNow the present by the server's clock, ms @param {number} now by this one, ms */
  #take(event, serverNow, now) {
    const account = this.#accounts.get(topicOf(event));
    if (!account || event.seq <= account.head) return; // Just dismissed.
    // What a reconnect brings back was published before it and says nothing about the connection.
    if (this.clock.rtt !== null && event.seq > account.missedUpTo) this.#latencies.add(serverNow - event.tx / 1e6, now);
    const missing = event.seq - account.head - 1;
    if (missing > 0) this.#jump(account, event, missing);
    account.head = event.seq;
    account.delivered += 1;
    this.connection.delivered += 1;
    this.counts.delivered += 1;
    for (const subscription of account.listeners) {
      subscription.counts.delivered += 1;
      this.#notify(subscription, account, "event", event);
    }
  }

  /** What lies between is merged where that was agreed. @param {Account} account @param {MarketEvent} event @param {number} missing */
  #jump(account, event, missing) {
    const mayMerge = account.mode !== "raw" || (this.lag === "degraded" && account.onSlow === "conflate") || event.seq <= account.settlesAt + 1;
    if (mayMerge) return this.#merged(account, missing);
    this.counts.unexplained += missing;
    this.#lost(account, { topic: account.topic, from: account.head + 1, to: event.seq - 1, n: missing, cause: "unexplained" });
    this.#ask({ op: "resync", topics: [account.topic] }, (answer) => answer.ok.forEach((/** @type {Grant} */ grant) => this.#grant(grant))).catch(() => {});
  }

  /** @param {Account} account @param {number} n */
  #merged(account, n) {
    account.merged += n;
    this.connection.merged += n;
    this.counts.merged += n;
    for (const { counts } of account.listeners) counts.merged += n;
  }

  /** @param {Account} account @param {Gap} gap */
  #lost(account, gap) {
    account.lost += gap.n;
    this.connection.lost += gap.n;
    this.counts.lost += gap.n;
    for (const subscription of account.listeners) {
      subscription.counts.lost += gap.n;
      this.#notify(subscription, account, "gap", gap);
    }
  }

  /** @param {any} told a control message */
  #control(told) {
    switch (told.op) {
      case "welcome": return this.#begin(told);
      case "snapshot": return this.#snapshot(told);
      case "gap": return this.#gap(told);
      case "lag":
        this.lag = told.level;
        return this.#tell("lag", told);
      case "heartbeat": {
        const own = this.connection;
        const agrees = own.delivered === told.delivered && own.merged === told.merged && own.lost === told.lost;
        return this.#tell("heartbeat", { ...told, agrees });
      }
      case "topics": return this.#topics(told);
      case "source": return this.#tell("source", told);
      case "bye":
        this.#bye = told;
        return undefined;
      case "error": return this.#error(told);
      default: return this.#answer(told);
    }
  }

  /** @param {any} answer */
  #answer(answer) {
    const asked = this.#asked.get(answer.id);
    if (!asked) return; // Of a later version of the protocol, or nobody's.
    asked.part?.(answer);
    if (answer.more) return;
    this.#asked.delete(answer.id);
    asked.done?.(answer);
  }

  /** @param {any} error */
  #error(error) {
    const asked = this.#asked.get(error.id);
    if (asked && error.code === 429) {
      setTimeout(() => {
        if (!this.#asked.has(error.id)) return;
        this.#queue.push({ id: error.id, ...asked.request });
        this.#sendQueued();
      }, error.retry_ms ?? 1000);
      return;
    }
    // The token ends in a minute.
    if (error.code === AUTH_FAILED && (error.id ?? null) === null) this.#renew();
    this.#asked.delete(error.id);
    asked?.failed?.(Object.assign(new Error(error.message), { code: error.code }));
    this.#tell("error", error);
  }

  /** @param {any} snapshot */
  #snapshot(snapshot) {
    const account = this.#accounts.get(snapshot.topic);
    if (!account) return;
    if (snapshot.epoch !== account.epoch) account.begin(snapshot.epoch, snapshot.seq);
    if (snapshot.seq > account.head) {
      this.#merged(account, snapshot.seq - account.head);
      account.head = snapshot.seq;
    }
    for (const subscription of account.listeners) this.#notify(subscription, account, "snapshot", snapshot);
  }

  /** @param {any} gap */
  #gap(gap) {
    const account = this.#accounts.get(gap.topic);
    if (!account || gap.epoch !== account.epoch) return;
    // Also of the source (`to` = `from` - 1): what lies before it is merged when it is reported.
    const before = gap.from - account.head - 1;
    if (before > 0) this.#merged(account, before);
    account.head = gap.to;
    this.#lost(account, gap);
  }

  /** @param {any} told */
  #topics(told) {
    for (const entry of told.added) for (const grant of entry.matched ?? [entry]) this.#grant(grant);
    for (const refusal of told.removed) {
      const account = this.#accounts.get(refusal.topic);
      this.#accounts.delete(refusal.topic);
      for (const subscription of account?.listeners ?? []) this.#notify(subscription, null, "refused", refusal);
    }
    for (const refusal of told.err) {
      for (const subscription of this.#subscriptions) {
        if (subscription.names.some((name) => covers(name, refusal.topic))) this.#notify(subscription, null, "refused", refusal);
      }
    }
  }
}
