/** The health of the connection, always in view: state, rates, latency, and the ledger. */

import { byId, bytes, count, element, latency, write } from "./format.js";

/** @typedef {import("../tickcast.js").Feed} Feed */

const LEDGER_EVERY_MS = 5000;
const STATES = { connecting: "Connecting…", open: "Live", waiting: "Connection lost", closed: "Closed" };

/** The strip's fields, and what each means. */
const FIELDS = /** @type {const} */ ({
  encoding: ["Encoding", "How messages are written"],
  mode: ["Quotes", "The mode in which the watchlist's quotes come"],
  messages: ["Messages/s", "WebSocket messages a second"],
  events: ["Events/s", "Data events a second"],
  rate: ["Received", "Bytes a second"],
  p50: ["Latency p50", "From the bus to this page, over the last seconds, without the clocks' difference"],
  p99: ["p99", "One event in a hundred took longer"],
  ping: ["Ping", "The shortest of the last round trips"],
  lag: ["Lag", "Whether the server finds this client late"],
  merged: ["Merged", "Events that a newer one replaced, on this connection, by the server's account"],
  lost: ["Lost", "Events that the server declared lost, on this connection"],
  ledger: ["Ledger", "Published − delivered − merged − lost over all topics, and whether this page counted the same from the wire"],
});

export class Health {
  /** @param {Feed} feed @param {() => string} modeOf */
  constructor(feed, modeOf) {
    this.feed = feed;
    this.modeOf = modeOf;
    this.last = { at: performance.now(), messages: 0, events: 0, bytes: 0 };
    this.ledgerAt = -Infinity;
    this.isAsking = false;
    /** @type {string} */
    this.reason = "";
    const list = /** @type {HTMLElement} */ (byId("health").firstElementChild);
    this.fields = /** @type {Record<keyof typeof FIELDS, HTMLElement>} */ (Object.fromEntries(Object.entries(FIELDS).map(([id, [title, means]]) => {
      const pair = element("div"), value = element("dd", "", "–");
      pair.title = means;
      pair.dataset.field = id;
      pair.append(element("dt", "", title), value);
      list.append(pair);
      return [id, value];
    })));
    feed.on("state", ({ state, reason }) => {
      this.reason = reason;
      this.#state(state);
    });
    feed.on("heartbeat", (beat) => {
      write(this.fields.merged, count(beat.merged));
      write(this.fields.lost, count(beat.lost));
      this.#warn(this.fields.lost, beat.lost > 0);
    });
    feed.on("lag", ({ level, queued_bytes: queued }) => {
      write(this.fields.lag, level === "ok" ? "ok" : `${level}, ${bytes(queued)}`);
      this.#warn(this.fields.lag, level !== "ok");
    });
    write(this.fields.lag, "ok");
    write(this.fields.merged, "0");
    write(this.fields.lost, "0");
    this.#state(feed.state);
  }

  /** @param {import("../tickcast.js").State} state */
  #state(state) {
    // A first attempt is told at once; a further one belongs to the loss that it mends.
    const shown = state === "connecting" && this.feed.counts.connections > 0 ? "waiting" : state;
    document.body.dataset.state = shown;
    const place = byId("connection");
    place.dataset.state = shown;
    write(place, shown === "waiting" || shown === "closed" ? `${STATES[shown]}: ${this.reason || "trying again"}` : STATES[shown]);
    if (state === "open") this.ledgerAt = -Infinity;
    else write(this.fields.ledger, "–");
  }

  /** @param {HTMLElement} value @param {boolean} isBad */
  #warn(value, isBad) {
    value.classList.toggle("bad", isBad);
  }

  /** Now and then. */
  tell() {
    const { feed, fields, last } = this, now = performance.now();
    const { messages, events, bytes: received } = feed.counts;
    const seconds = (now - last.at) / 1000;
    if (seconds >= 0.9) {
      write(fields.messages, count(Math.round((messages - last.messages) / seconds)));
      write(fields.events, count(Math.round((events - last.events) / seconds)));
      write(fields.rate, `${bytes(Math.round((received - last.bytes) / seconds))}/s`);
      this.last = { at: now, messages, events, bytes: received };
    }
    write(fields.encoding, feed.encoding === "msgpack" ? "MessagePack" : "JSON");
    write(fields.mode, this.modeOf());
    const [p50, p99] = feed.latency(0.5, 0.99);
    write(fields.p50, this.#measured(p50));
    write(fields.p99, this.#measured(p99));
    write(fields.ping, latency(feed.clock.rtt));
    if (feed.state === "open" && !this.isAsking && now - this.ledgerAt > LEDGER_EVERY_MS) this.#ask(now);
  }

  /** The clocks' difference is known to half a round trip, so nothing below that is said. @param {number | null} ms */
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
