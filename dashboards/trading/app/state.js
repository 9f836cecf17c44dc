/** State of the data shown: the worst of connection state, lag and source states. */

import { duration } from "./format.js";

/** @typedef {import("../tickcast.js").Feed} Feed */
/** @typedef {import("./market.js").Market} Market */

/**
 * @typedef {object} Shown
 * @property {"connecting" | "waiting" | "closed" | "delayed" | "stale" | "live"} state the worst one
 * @property {string} text
 * @property {boolean} isCurrent whether what arrives is the present
 */

/** Prices that are older than this are not live. */
const LATE_MS = 1000;
/** A heartbeat may be late by so much. */
const HEARTBEAT_SLACK_MS = 2000;

/** How late what arrives is, ms: as measured, as the server says, or as the silence shows. @param {Feed} feed @param {number} behindMs by the server's `lag` */
function lateness(feed, behindMs) {
  // One late event of several seconds ago says nothing about the present.
  const [p99] = (feed.longestLatency ?? 0) >= LATE_MS ? feed.latency(0.99) : [0];
  const silent = feed.silentMs ?? 0;
  return Math.max(p99 ?? 0, behindMs, silent > (feed.welcome?.heartbeat_ms ?? Infinity) + HEARTBEAT_SLACK_MS ? silent : 0);
}

const TITLES = /** @type {Record<string, string>} */ ({ stale: "Stale", halted: "Halted", closed: "Market closed" });

/** Text for rows that are not live; null: all of them are live. @param {Market} market @param {Map<string, string>} sources by name */
function staleness(market, sources) {
  const rows = [...market.rows.values()];
  if (rows.length === 0) return market.isListed ? "No symbols" : "Waiting for the market";
  if (rows.every(({ ticker, quote }) => ticker === null && quote === null)) return "Waiting for prices";
  const counts = { stale: 0, halted: 0, closed: 0 };
  for (const { isLive, status } of rows) if (!isLive && status?.state !== undefined && status.state in counts) counts[/** @type {keyof typeof counts} */ (status.state)] += 1;
  const worst = /** @type {const} */ (["stale", "halted", "closed"]).find((state) => counts[state] > 0);
  if (worst === undefined) return null;
  const causes = [...sources].filter(([, state]) => state === "ended" || state === "reconnecting").map(([name, state]) => ` · ${name} ${state}`).join("");
  return `${TITLES[worst]}${counts[worst] === rows.length ? "" : ` · ${counts[worst]} of ${rows.length}`}${worst === "stale" ? causes : ""}`;
}

/** @param {Feed} feed @param {Market} market @param {{reason: string, behindMs: number, sources: Map<string, string>}} told @returns {Shown} */
export function shown(feed, market, { reason, behindMs, sources }) {
  // A first attempt is told at once; a further one belongs to the loss that it mends.
  if (feed.state === "connecting" && feed.counts.connections === 0) return { state: "connecting", text: "Connecting…", isCurrent: false };
  if (feed.state === "closed") return { state: "closed", text: `Closed: ${reason}`, isCurrent: false };
  if (feed.state !== "open") return { state: "waiting", text: `Connection lost: ${reason}`, isCurrent: false };
  const late = lateness(feed, behindMs);
  if (late >= LATE_MS) return { state: "delayed", text: `Delayed ${late < 10_000 ? `${(late / 1000).toFixed(1)} s` : duration(late)}`, isCurrent: false };
  const stale = staleness(market, sources);
  return stale === null ? { state: "live", text: "Live", isCurrent: true } : { state: "stale", text: stale, isCurrent: true };
}
