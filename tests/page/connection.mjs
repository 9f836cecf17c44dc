// Connection states on the page: a killed server, a hidden tab, a slow client.

import assert from "node:assert/strict";
import { test } from "node:test";
import { AWAY, Screen, Server, browserWithHiddenTabs, withScreen } from "./harness.mjs";

/** Waits until a condition holds in a hidden tab, which gets no frames. */
const poll = (screen, holds) => screen.page.waitForFunction(holds, null, { polling: 50 });

test("a killed server is reported, its successor is found, and the ledger balances", () => withScreen({ allowedErrors: AWAY }, async (screen, server) => {
  await screen.untilHealth("ledger", /^0 ✓$/);
  await server.kill();
  await screen.untilState("waiting");
  assert.match(await screen.text("#connection"), /^Connection lost: /);
  assert.equal(await screen.health("ledger"), "–", "the old account is not shown as the current one");
  await screen.shot("lost");
  const before = await screen.column("last");
  await server.start();
  await screen.untilState("open");
  await screen.untilHealth("ledger", /^0 ✓$/);
  await screen.until((texts) => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].filter((cell) => !texts.includes(cell.textContent)).length > 5, before);
  await screen.until(() => document.querySelectorAll("#trades tbody tr").length > 3);
  // Again, while the reconnect is scheduled.
  await server.kill();
  await screen.untilState("waiting");
  await server.start();
  await screen.untilState("open");
  await screen.untilHealth("ledger", /^0 ✓$/);
  assert.equal(await screen.health("lost"), "0");
}));

test("the page reconnects at the time that a stopping server announces", () => withScreen({ allowedErrors: AWAY }, async (screen, server) => {
  await screen.untilHealth("ledger", /^0 ✓$/);
  await server.kill("SIGTERM");
  await screen.untilState("waiting");
  await server.start();
  await screen.untilState("open");
  await screen.untilHealth("ledger", /^0 ✓$/);
}));

test("a hidden tab reduces to one event per second, and catches up by snapshot when shown", async () => {
  const server = await Server.start();
  const { context, page, end } = await browserWithHiddenTabs();
  try {
    const screen = new Screen(page, server);
    await screen.open("?quotes=raw&tickers=raw&bars=raw&interval=1s");
    await screen.until(() => document.querySelectorAll("#trades tbody tr").length >= 50);
    await screen.untilHealth("ledger", /^0 ✓$/);
    // A second client next to the page's own, which records its events.
    await screen.ask(async () => {
      const { connect } = await import("/tickcast.js");
      const told = { modes: new Map(), snapshots: 0, trades: 0, quotes: 0, gaps: [] };
      const feed = connect(`ws://${location.host}/v1/feed`);
      const granted = ({ topic, mode, interval_ms: every }) => told.modes.set(topic, `${mode} ${every ?? ""}`);
      const [snapshot, gap] = [() => { told.snapshots += 1; }, (one) => told.gaps.push(one)];
      feed.subscribe(["quote:*"], { mode: "raw" }, { granted, snapshot, gap, event: () => { told.quotes += 1; } });
      feed.subscribe(["trade:*"], { mode: "raw" }, { granted, snapshot, gap, event: () => { told.trades += 1; } });
      window.beside = { feed, told };
    });
    await screen.until(() => window.beside.told.snapshots === 48 && window.beside.told.quotes > 48);
    const other = await context.newPage();
    await other.bringToFront();
    await poll(screen, () => document.visibilityState === "hidden");
    await poll(screen, () => [...window.beside.told.modes].filter(([topic, mode]) => topic.startsWith("quote:") && mode === "interval 1000").length === 24);
    // Once the account has no trades, only quotes arrive, at most one per second and symbol.
    await poll(screen, async () => !(await window.beside.feed.ledger()).server.some(({ topic }) => topic.startsWith("trade:")));
    const hidden = await screen.ask(async () => {
      const { told } = window.beside, { quotes, trades, snapshots } = told, begun = performance.now();
      while (performance.now() - begun < 3000) await new Promise((done) => setTimeout(done, 500));
      return { quotes: told.quotes - quotes, trades: told.trades - trades, snapshots: told.snapshots - snapshots, seconds: (performance.now() - begun) / 1000 };
    });
    assert.ok(hidden.quotes > 24 && hidden.quotes <= 24 * (hidden.seconds + 1), JSON.stringify(hidden));
    assert.deepEqual([hidden.trades, hidden.snapshots], [0, 0]);
    const before = await screen.ask(() => document.querySelector("#trades tbody td").textContent);
    await page.bringToFront();
    await screen.until(() => window.beside.told.snapshots === 96 && [...window.beside.told.modes.values()].every((mode) => mode === "raw "));
    await screen.until(async () => {
      const { unaccounted, differing, server: lines } = await window.beside.feed.ledger();
      return unaccounted === 0 && differing.length === 0 && lines.length === 48;
    });
    assert.deepEqual(await screen.ask(() => [window.beside.told.gaps, window.beside.feed.counts.unexplained]), [[], 0]);
    // The page's own client has caught up as well.
    await screen.until((time) => document.querySelector("#trades tbody td").textContent > time, before);
    await screen.untilHealth("ledger", /^0 ✓$/);
    screen.assertNoErrors();
  } finally {
    await end();
    await server.kill();
  }
});

const BUSY = ["--sim-instruments", "100", "--sim-rate", "10000"];

test("throttled reading shows lag, conflation and recovery, and the ledger balances", () => withScreen({ serverArguments: BUSY }, async (screen, server) => {
  const { page } = screen;
  await screen.untilHealth("ledger", /^0 ✓$/);
  await page.keyboard.press("s");
  await screen.untilHealth("lag", /^(warn|degraded)/);
  await screen.untilHealth("lag", /^degraded/);
  await screen.untilHealth("merged", /^[1-9]/);
  await screen.shot("slow");
  await page.keyboard.press("s");
  await screen.untilHealth("lag", /^ok$/);
  const log = await screen.text("#event_log");
  for (const what of ["throttling on", "lag warn", "lag degraded", "throttling off", "lag ok"]) assert.ok(log.includes(what), log);
  await screen.untilHealth("ledger", /^0 ✓$/);
  const [line] = await screen.ask(() => [...document.querySelectorAll("#subscriptions tr")].filter((row) => row.cells[0].textContent === "Everything").map((row) => [...row.cells].map((cell) => cell.textContent)));
  assert.ok(Number(line[4].replaceAll(",", "")) > 0, `merged, by this client's own count: ${line}`);
  assert.equal(screen.server, server);
}));

test("changing delivery in mid-stream keeps the account", () => withScreen({ query: "?quotes=raw" }, async (screen) => {
  const { page } = screen;
  await page.keyboard.press("d");
  const quotes = () => screen.ask(() => [...document.querySelectorAll("#subscriptions tr")].find((row) => row.cells[0].textContent === "Quotes"))
    && screen.ask(() => [...[...document.querySelectorAll("#subscriptions tr")].find((row) => row.cells[0].textContent === "Quotes").cells].slice(2).map((cell) => Number(cell.textContent.replaceAll(",", ""))));
  const until = (holds) => screen.until(holds);
  await until(() => Number([...document.querySelectorAll("#subscriptions tr")].find((row) => row.cells[0].textContent === "Quotes").cells[3].textContent.replaceAll(",", "")) > 100);
  assert.deepEqual((await quotes()).slice(2), [0, 0], "raw mode merges nothing");
  await page.getByRole("radiogroup", { name: "Delivery mode of Quotes" }).getByRole("radio", { name: "100 ms" }).click();
  await until(() => Number([...document.querySelectorAll("#subscriptions tr")].find((row) => row.cells[0].textContent === "Quotes").cells[4].textContent.replaceAll(",", "")) > 20);
  assert.match(page.url(), /quotes=|symbol=/);
  await page.getByRole("radiogroup", { name: "Delivery mode of Quotes" }).getByRole("radio", { name: "Raw" }).click();
  await screen.untilHealth("mode", /^raw$/);
  await screen.untilHealth("ledger", /^0 ✓$/);
  assert.equal((await quotes())[3], 0, "the change loses no event");
}));
