// Throwing handlers, in Node with the package `ws`: `node handlers.mjs host:port`. Fails by an assertion.

import assert from "node:assert/strict";
import WebSocket from "../.deps/node_modules/ws/wrapper.mjs";
import { connect } from "../../dashboards/trading/tickcast.js";

const reported = [];
process.on("uncaughtException", (error) => {
  if (!/^on purpose/.test(error.message)) {
    console.error(error);
    process.exit(1);
  }
  reported.push(error.message);
});

const feed = connect(`ws://${process.argv[2]}/v1/feed`, { WebSocket, encoding: process.argv[3] ?? "msgpack" });
const gaps = [], heartbeats = [];
const seen = { throwing: 0, beside: 0 };
const isThrown = (seq) => seq % 3 === 0;
const throwing = feed.subscribe(["trade:*", "quote:*"], {}, {
  event: ({ seq }) => {
    seen.throwing += 1;
    if (isThrown(seq)) throw new Error("on purpose: event");
  },
  snapshot: () => { throw new Error("on purpose: snapshot"); },
  granted: () => { throw new Error("on purpose: granted"); },
  gap: (gap) => gaps.push(gap),
});
// Another subscription to the same topics still gets everything, and so do connection handlers.
feed.subscribe(["trade:*"], {}, { event: () => { seen.beside += 1; }, gap: (gap) => gaps.push(gap) });
for (const name of ["state", "welcome", "heartbeat"]) feed.on(name, () => { throw new Error(`on purpose: ${name}`); });
feed.on("heartbeat", (beat) => heartbeats.push(beat));

const until = async (what, holds) => {
  const deadline = performance.now() + 30_000;
  while (!await holds()) {
    assert.ok(performance.now() < deadline, `${what}: ${JSON.stringify({ seen, heartbeats: heartbeats.length, counts: feed.counts, reported: reported.length })}`);
    await new Promise((done) => setTimeout(done, 20));
  }
};
await until("events keep coming", () => seen.throwing > 2000 && heartbeats.length >= 1);

const { unaccounted, differing } = await feed.ledger();
assert.deepEqual({ unaccounted, differing, gaps }, { unaccounted: 0, differing: [], gaps: [] });
assert.deepEqual([feed.counts.unexplained, feed.counts.lost, feed.counts.merged], [0, 0, 0], "no unexplained loss is reported");
assert.ok(heartbeats.every(({ agrees }) => agrees), "each heartbeat agrees");
assert.equal(throwing.counts.delivered, seen.throwing, "every event reaches the handler");
assert.ok(seen.beside > 0);
for (const name of ["event", "snapshot", "granted", "welcome", "heartbeat"]) {
  assert.ok(reported.includes(`on purpose: ${name}`), `the error of a ${name} handler is reported`);
}

// A subscription that a handler closes in the middle of a frame gets no further events; the account of the frame is complete.
let after = 0;
const closing = feed.subscribe(["quote:*"], {}, { event: () => { after += 1; closing.close(); } });
await until("the subscription closes itself", () => after > 0);
await feed.ledger();
assert.equal(after, 1);
await until("the ledger agrees", async () => (await feed.ledger()).differing.length === 0);

feed.close();
await until("the feed closes", () => feed.state === "closed");
console.log("well");
