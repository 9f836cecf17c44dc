// The browser client in Node, with a given `WebSocket`: `node client.mjs host:port`. Fails by an assertion.

import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket from "../.deps/node_modules/ws/wrapper.mjs";
import { connect } from "../../dashboards/trading/tickcast.js";

let socket;
class Kept extends WebSocket {
  constructor(...parameters) {
    super(...parameters);
    socket = this;
  }
}

const seqs = new Map();
const seen = { events: 0, snapshots: 0, holes: [], gaps: [], recovered: 0, refused: [] };
const place = (topic, seq) => seqs.set(topic, seq);
const feed = connect(`ws://${process.argv[2]}/v1/feed`, { WebSocket: Kept, encoding: process.argv[3] ?? "msgpack" });
const until = async (holds) => {
  while (!holds()) await once(socket, "message");
};

const trades = feed.subscribe(["trade:*"], {}, {
  event: ({ sym, seq }) => {
    if (seq !== seqs.get(sym) + 1) seen.holes.push(`${sym}: ${seq} after ${seqs.get(sym)}`);
    place(sym, seq);
    seen.events += 1;
  },
  snapshot: ({ topic, seq }) => {
    place(topic.split(":")[1], seq);
    seen.snapshots += 1;
  },
  gap: (gap) => seen.gaps.push(gap),
  granted: ({ recovered }) => { seen.recovered += Number(recovered === true); },
  refused: (refusal) => seen.refused.push(refusal),
});
const quotes = feed.subscribe(["quote:*"], { mode: "interval", intervalMs: 10 });
await until(() => seen.events > 200);
const topics = trades.topics.length;
assert.ok(topics > 0 && seen.snapshots === topics, "each topic begins with a snapshot");

// Disconnected, and again before the response to the first requests: afterwards no event is missing or repeated.
for (const cut of [() => {}, () => once(socket, "message")]) {
  socket.terminate();
  await new Promise((done) => { const end = feed.on("state", ({ state }) => { if (state === "connecting") { end(); setImmediate(done); } }); });
  await cut();
}
socket.terminate();
await new Promise((done) => { const end = feed.on("welcome", () => { end(); setImmediate(done); }); });
const before = seen.events;
await until(() => seen.events > before + 200);
assert.deepEqual([seen.holes, seen.gaps, seen.refused], [[], [], []]);
assert.ok(seen.recovered >= topics && seen.snapshots === topics, "missed events were delivered, and no topic began anew");

// A change in mid-stream keeps the account, and both sides count the same.
quotes.modify({ mode: "conflate" });
quotes.modify({ mode: "raw" });
for (let round = 0; round < 5; round += 1) {
  const { unaccounted, differing, server } = await feed.ledger();
  assert.deepEqual([unaccounted, differing, server.length], [0, [], 2 * topics]);
}
assert.equal(feed.counts.unexplained, 0);
trades.close();
await feed.ledger();
assert.equal((await feed.ledger()).server.length, topics);
feed.close();
console.log("well");
