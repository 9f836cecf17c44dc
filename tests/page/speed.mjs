// Speed of the page: size, first prices, frames under load, memory. Machines are shared and noisy, so the daily check fails
// only if a time is missed by a factor of two, or the frame rate by a factor of four (a browser shares two cores with its server); all figures are printed.

import assert from "node:assert/strict";
import { test } from "node:test";
import { config, isFull, withScreen } from "./harness.mjs";

const SYMBOLS = 500;
const EVENTS_PER_S = 20_000;
const SECONDS = isFull ? 600 : 12;
const SLACK = isFull ? 1 : 2;
const FRAMES_PER_S = isFull ? 50 : 12.5;

const LARGE = `
limits: {topics: 2048}
sources:
  - name: sim
    kind: sim
    seed: 7
    history: 2h
    stale_after: 1h
    instruments:
${Array.from({ length: SYMBOLS }, (_, at) => `      - {symbol: S${String(at).padStart(3, "0")}, start: "${100 + at}", rate: ${EVENTS_PER_S / SYMBOLS}/s}`).join("\n")}
`;

/** Asserts that a figure reaches its bound, and measures once more if not: other programs can slow a shared machine for a whole run. */
async function assertReached(context, isReached, measure) {
  let figure = await measure();
  if (!isReached(figure)) {
    context.diagnostic(`measured again, because of ${figure}`);
    figure = await measure();
  }
  assert.ok(isReached(figure), `${figure}`);
}

test("the first prices appear soon, and the page is small", (context) => assertReached(context, (ms) => ms <= 500 * SLACK, async () => {
  const times = [];
  for (let round = 0; round < 5; round += 1) {
    await withScreen({}, async (screen) => {
      times.push(await screen.ask(() => performance.getEntriesByName("first prices")[0].startTime));
      await screen.until(() => document.getElementById("legend").textContent !== "");
      const { size, packed } = await screen.ask(() => {
        const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource").filter(({ name }) => !name.includes("/v1/"))];
        return { size: files.reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0), packed: files.every(({ encodedBodySize, decodedBodySize }) => decodedBodySize < 1500 || encodedBodySize < decodedBodySize) };
      });
      assert.ok(size > 50 * 1024 && size <= 350 * 1024, `${size} bytes`);
      assert.ok(packed, "every larger file is compressed");
      if (round === 0) context.diagnostic(`page ${(size / 1024).toFixed(0)} KiB compressed`);
    });
  }
  times.sort((a, b) => a - b);
  context.diagnostic(`first prices ${times.map((ms) => ms.toFixed(0)).join(", ")} ms after navigation`);
  return times[2];
}));

for (const mode of ["100ms", "raw"]) {
  test(`${SYMBOLS} symbols at ${EVENTS_PER_S} events/s, ${mode}: the frame rate holds and memory does not grow`, (context) => assertReached(context, (rate) => rate >= FRAMES_PER_S, async () => {
    let frameRate = 0;
    await withScreen({ serverArguments: config(LARGE), query: `?quotes=${mode}&tickers=${mode}` }, async (screen) => {
      await screen.until((symbols) => document.getElementById("watch-count").textContent === `${symbols} symbols`, SYMBOLS);
      await screen.untilHealth("ledger", /^0 ✓$/);
      const session = await screen.page.context().newCDPSession(screen.page);
      const heap = async () => {
        await session.send("HeapProfiler.collectGarbage");
        return screen.ask(() => performance.memory.usedJSHeapSize / 1e6);
      };
      const rounds = Math.max(4, SECONDS / 20), heaps = [], rates = [], events = [];
      for (let round = 0; round < rounds; round += 1) {
        rates.push(await screen.ask((ms) => new Promise((done) => {
          let frames = 0;
          const begun = performance.now();
          const frame = (now) => (now - begun >= ms ? done(frames / (now - begun) * 1000) : requestAnimationFrame(frame, frames += 1));
          requestAnimationFrame(frame);
        }), SECONDS / rounds * 1000));
        events.push(Number((await screen.health("events")).replaceAll(",", "")));
        heaps.push(await heap());
      }
      const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
      context.diagnostic(`${mode}: ${median(rates).toFixed(1)} frames/s (${Math.min(...rates).toFixed(1)} at worst), ${median(events)} events/s reach the page, heap ${heaps.slice(0, 3).concat(heaps.slice(-3)).map((one) => one.toFixed(1)).join(", ")} MB in ${SECONDS} s`);
      // Memory filled by the first rounds (bars, rows, pools) remains; nothing is added.
      assert.ok(median(heaps.slice(-3)) < median(heaps.slice(0, 3)) * 1.25 + 1, `${heaps}`);
      await screen.untilHealth("ledger", /^0 ✓$/);
      frameRate = median(rates);
    });
    return frameRate;
  }));
}
