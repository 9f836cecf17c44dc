// The browser client in Node, with a token: `node token_client.mjs host:port encoding secret`. Fails by an assertion.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import WebSocket from "../.deps/node_modules/ws/wrapper.mjs";
import { connect } from "../../dashboards/trading/tickcast.js";

const [, , address, encoding, secret] = process.argv;
const part = (value) => Buffer.from(value).toString("base64url");

/** Token that ends after so many seconds. */
function jwt(seconds) {
  const claims = { iss: "id", aud: "feed", sub: "user-1", role: "reader", exp: Date.now() / 1000 + seconds };
  const message = `${part(JSON.stringify({ alg: "HS256", typ: "JWT" }))}.${part(JSON.stringify(claims))}`;
  return `${message}.${createHmac("sha256", secret).update(message).digest("base64url")}`;
}

const open = (token) => connect(`ws://${address}/v1/feed`, { WebSocket, encoding, token });
const ends = (feed, wanted) => new Promise((done) => feed.on("state", (told) => { if (told.state === wanted) done(told); }));
const events = (feed, count) => new Promise((done, failed) => {
  let left = count;
  const end = feed.on("state", ({ state, reason }) => { if (state === "closed") { end(); failed(new Error(reason)); } });
  feed.subscribe(["quote:*", "trade:*"], {}, { event: () => { left -= 1; if (left === 0) { end(); done(undefined); } } });
});
const balanced = async (feed) => {
  const { unaccounted, differing, server } = await feed.ledger();
  assert.deepEqual([unaccounted, differing, feed.counts.lost], [0, [], 0]);
  assert.ok(server.length > 0);
};

// Renewed in the session: the function returns the old token for a while.
const tokens = [jwt(6)];
const renewed = open(async () => tokens.at(-1));
await events(renewed, 50);
setTimeout(() => tokens.push(jwt(3600)), 1500);
const begun = performance.now();
while (performance.now() - begun < 7000) await events(renewed, 20);
await balanced(renewed);
assert.equal(renewed.counts.connections, 1, "the token is renewed without a new connection");
assert.ok((await renewed.snapshot(["quote:S1"])).ok.length === 1, "HTTP requests present the token");
renewed.close();

// Ended before there was another one: connects again, and resumes.
let late = jwt(4);
const resumed = open(() => late);
const ended = ends(resumed, "waiting");
await events(resumed, 5);
resumed.on("state", ({ code }) => { if (code === 402) late = jwt(3600); });
assert.equal((await ended).code, 402);
await events(resumed, 50);
await balanced(resumed);
assert.equal(resumed.counts.connections, 2);
resumed.close();

// Without another token, with a wrong one, and with none the connection is closed for good.
const fixed = await ends(open(jwt(4)), "closed");
assert.deepEqual([fixed.code, /expired/.test(fixed.reason)], [402, true], fixed.reason);
const stuck = jwt(4);
const same = await ends(open(() => stuck), "closed");
assert.deepEqual([same.code, /give another one/.test(same.reason)], [401, true], same.reason);
const wrong = await ends(open(`${jwt(60)}A`), "closed");
assert.equal(wrong.code, 401, wrong.reason);
assert.ok(/signature/.test(wrong.reason), wrong.reason);
const none = await ends(open(""), "closed");
assert.deepEqual([none.code, none.reason], [401, "the server requires a token"]);

// Another attempt with a right one.
let now = "";
const again = open(() => now);
await ends(again, "closed");
now = jwt(600);
again.retry();
await events(again, 5);
again.close();
console.log("well");
