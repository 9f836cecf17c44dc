/** Connection health, always visible: state, rates, latency and the ledger. */

import { byId, bytes, count, duration, element, latency, write } from "./format.js";
import { shown } from "./state.js";

/** @typedef {import("../tickcast.js").Feed} Feed */

const LEDGER_EVERY_MS = 5000;

/** Fields of the status bar with their titles and tooltips. */
const FIELDS = /** @type {const} */ ({
  encoding: ["Encoding", "Wire encoding of messages"],
  mode: ["Quotes", "Delivery mode of the watchlist's quotes"],
  messages: ["Messages/s", "WebSocket messages per second"],
  events: ["Events/s", "Data events per second"],
  rate: ["Received", "Bytes per second"],
  p50: ["Latency p50", "Latency from publication to this page over the last seconds, corrected for clock offset"],
  p99: ["p99", "99th percentile of the latency"],
  ping: ["Ping", "Shortest recent round-trip time"],
  lag: ["Lag", "Lag level reported by the server"],
  merged: ["Merged", "Events conflated on this connection, as counted by the server"],
  lost: ["Lost", "Events reported lost in gaps on this connection"],
  ledger: ["Ledger", "Unaccounted events over all topics (published − delivered − merged − lost), verified against the counts of this page"],
});

export class Health {
  /** @param {Feed} feed @param {import("./market.js").Market} market @param {() => string} modeOf */
  constructor(feed, market, modeOf) {
    this.feed = feed;
    this.market = market;
    this.modeOf = modeOf;
    this.last = { at: performance.now(), messages: 0, events: 0, bytes: 0 };
    this.ledgerAt = -Infinity;
    this.isAsking = false;
    /** Reason of the disconnect, and time of the next attempt, ms. */
    this.reason = "";
    this.retryAt = 0;
    this.heardAt = 0;
    /** Lag reported by the server, ms. */
    this.behindMs = 0;
    /** States of the reported sources, by name. @type {Map<string, string>} */
    this.sources = new Map();
    /** True while incoming data is current. */
    this.isCurrent = false;
    const list = /** @type {HTMLElement} */ (byId("health").firstElementChild);
    this.fields = /** @type {Record<keyof typeof FIELDS, HTMLElement>} */ (Object.fromEntries(Object.entries(FIELDS).map(([id, [title, means]]) => {
      const pair = element("div"), value = element("dd", "", "–");
      pair.title = means;
      pair.dataset.field = id;
      pair.append(element("dt", "", title), value);
      list.append(pair);
      return [id, value];
    })));
    feed.on("state", ({ state, reason, retryMs }) => {
      if (state === "waiting" || state === "closed") this.reason = reason;
      if (state === "waiting") this.retryAt = performance.now() + (retryMs ?? 0);
      this.#turn(state);
    });
    byId("retry").addEventListener("click", ({ target }) => { if (target instanceof HTMLButtonElement) feed.retry(); });
    feed.on("source", ({ name, state }) => this.sources.set(name, state));
    feed.on("heartbeat", (beat) => {
      write(this.fields.merged, count(beat.merged));
      write(this.fields.lost, count(beat.lost));
      this.#warn(this.fields.lost, beat.lost > 0);
    });
    feed.on("lag", ({ level, queued_bytes: queued, behind_ms: behind }) => {
      this.behindMs = level === "ok" ? 0 : behind;
      write(this.fields.lag, level === "ok" ? "ok" : `${level}, ${bytes(queued)}`);
      this.#warn(this.fields.lag, level !== "ok");
    });
    this.#turn(feed.state);
  }

  /** Handles the start or end of a connection; figures of an earlier connection are cleared. @param {import("../tickcast.js").State} state */
  #turn(state) {
    document.body.dataset.state = state === "connecting" && this.feed.counts.connections > 0 ? "waiting" : state;
    if (state === "open") {
      this.ledgerAt = -Infinity;
      this.sources.clear();
      this.last = { at: performance.now(), ...this.feed.counts };
      write(this.fields.lag, "ok");
      write(this.fields.merged, "0");
      write(this.fields.lost, "0");
    } else {
      for (const id of /** @type {const} */ (["messages", "events", "rate", "p50", "p99", "ping", "lag", "merged", "lost", "ledger"])) {
        write(this.fields[id], "–");
        this.#warn(this.fields[id], false);
      }
    }
    this.#state();
  }

  /** Shows the state of the data and the next reconnect attempt. */
  #state() {
    const { state, text, isCurrent } = shown(this.feed, this.market, this);
    this.isCurrent = isCurrent;
    document.body.dataset.prices = isCurrent ? "current" : "late";
    const place = byId("connection"), retry = byId("retry");
    place.dataset.state = state;
    write(place, text);
    retry.hidden = state !== "waiting";
    if (state !== "waiting") return;
    const left = this.retryAt - performance.now(), silent = this.feed.silentMs;
    const next = this.feed.state === "waiting" && left > 0 ? `Reconnecting in ${duration(left)}` : "Reconnecting now";
    write(/** @type {Element} */ (retry.firstElementChild), `${next}${silent === null ? "" : `, last update ${duration(silent)} ago`}`);
  }

  /** @param {HTMLElement} value @param {boolean} isBad */
  #warn(value, isBad) {
    value.classList.toggle("bad", isBad);
  }

  /** Updates the fields; called periodically. */
  refresh() {
    const { feed, fields, last } = this, now = performance.now();
    this.#state();
    write(fields.encoding, feed.encoding === "msgpack" ? "MessagePack" : "JSON");
    write(fields.mode, this.modeOf());
    if (feed.state !== "open") return;
    const { messages, events, bytes: received } = feed.counts;
    const seconds = (now - last.at) / 1000;
    if (seconds >= 0.9) {
      write(fields.messages, count(Math.round((messages - last.messages) / seconds)));
      write(fields.events, count(Math.round((events - last.events) / seconds)));
      write(fields.rate, `${bytes(Math.round((received - last.bytes) / seconds))}/s`);
      this.last = { at: now, messages, events, bytes: received };
    }
    const [p50, p99] = feed.latency(0.5, 0.99);
    write(fields.p50, this.#measured(p50));
    write(fields.p99, this.#measured(p99));
    write(fields.ping, latency(feed.clock.rtt));
    if (!this.isAsking && now - this.ledgerAt > LEDGER_EVERY_MS) this.#ask(now);
  }

  /** Clock offset is known to half a round trip, so smaller latencies are shown as an upper bound. @param {number | null} ms */
  #measured(ms) {
    const error = (this.feed.clock.rtt ?? 0) / 2;
    return ms !== null && ms < error ? `< ${latency(error)}` : latency(ms);
  }

  /** @param {number} now */
  async #ask(now) {
    this.isAsking = true;
    this.ledgerAt = now;
    try {
      const { unaccounted, differing } = await this.feed.ledger();
      const isRight = unaccounted === 0 && differing.length === 0;
      write(this.fields.ledger, isRight ? "0 ✓" : `${unaccounted}, ${differing.length} differ`);
      this.#warn(this.fields.ledger, !isRight);
    } catch {
      // The connection ended meanwhile; the next one is asked again.
    }
    this.isAsking = false;
  }
}
