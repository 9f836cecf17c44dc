// Content of the screen: prices, the watchlist, the selected symbol.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { config, scratch, withScreen } from "./harness.mjs";

test("prices appear, change, flash and are marked as simulated", () => withScreen({}, async (screen) => {
  await screen.until(() => document.getElementById("watch-count").textContent === "24 symbols");
  const before = await screen.column("last");
  assert.ok(before.length >= 20 && before.every((text) => /\d/.test(text)), String(before));
  for (const column of ["change", "bid", "ask", "spread", "volume"]) {
    await screen.until((name) => [...document.querySelectorAll(`.lines .line:not([hidden]) .${name}`)].every((cell) => /\d/.test(cell.textContent)), column);
  }
  await screen.until((texts) => {
    const now = [...document.querySelectorAll(".lines .line:not([hidden]) .last")].map((cell) => cell.textContent);
    return now.filter((text) => !texts.includes(text)).length >= 5;
  }, before);
  await screen.until(() => document.querySelector('.last[data-flash="up"]') || document.querySelector('.last[data-flash="down"]'));
  await screen.until(() => [...document.querySelectorAll(".lines .line:not([hidden]) .mark")].every((mark) => mark.textContent === "SIM"));
  await screen.until(() => !document.getElementById("kind").hidden);
  assert.deepEqual([await screen.text("#kind"), await screen.text("#symbol-kind")], ["Simulated prices", "Simulated"]);
  assert.equal(await screen.ask(() => document.getElementById("watermark").textContent), "Simulated prices");
  // Each row has a sparkline of its last hour.
  await screen.until(() => [...document.querySelectorAll(".lines .line:not([hidden]) canvas")].every((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value) => value > 0);
  }));
}));

test("symbols are added, removed, sorted and filtered, and kept in the browser and the URL", () => withScreen({ query: "?symbols=BTC-USD,EUR-USD,AAPL" }, async (screen) => {
  const { page } = screen;
  await screen.untilSymbols(["AAPL", "BTC-USD", "EUR-USD"]);
  await page.locator("#add").fill("tsla");
  await page.locator("#add").press("Enter");
  await screen.untilSymbols(["AAPL", "BTC-USD", "EUR-USD", "TSLA"]);
  await screen.until(() => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].every((cell) => /\d/.test(cell.textContent)));
  await page.locator("#add").fill("NO-SUCH");
  await page.locator("#add").press("Enter");
  await screen.until(() => document.getElementById("watch-note").textContent === "Unknown symbol NO-SUCH.");
  await page.locator("#add").fill("TSLA");
  await page.locator("#add").press("Enter");
  await screen.until(() => document.getElementById("watch-note").textContent.startsWith("TSLA is already in the list"));

  // By price, highest first; again: lowest first.
  await page.locator(".head .last button").click();
  await screen.untilSymbols(["BTC-USD", "TSLA", "AAPL", "EUR-USD"]);
  assert.equal(await page.locator(".head .last").getAttribute("aria-sort"), "descending");
  await page.locator(".head .last button").click();
  await screen.untilSymbols(["EUR-USD", "AAPL", "TSLA", "BTC-USD"]);

  await page.locator("#filter").fill("usd");
  await screen.untilSymbols(["EUR-USD", "BTC-USD"]);
  assert.equal(await screen.text("#watch-count"), "2 of 4");
  await page.locator("#filter").fill("apple");
  await screen.untilSymbols(["AAPL"]);
  await page.locator("#filter").press("Escape");
  await screen.untilSymbols(["EUR-USD", "AAPL", "TSLA", "BTC-USD"]);

  await page.locator(".line[data-symbol='AAPL']").click();
  await screen.until(() => document.getElementById("symbol").textContent === "AAPL");
  await page.locator("#grid").press("Delete");
  await screen.untilSymbols(["EUR-USD", "TSLA", "BTC-USD"]);
  await screen.until(() => document.getElementById("symbol").textContent === "TSLA");
  assert.match(page.url(), /symbols=BTC-USD,EUR-USD,TSLA&symbol=TSLA/);
  // Removed symbols are unsubscribed: three rows are nine topics, and the selected one adds trades and bars.
  await screen.untilHealth("ledger", /0 ✓/);

  // The URL has the list, for sharing; the browser stores it once it is no longer the list of a link.
  await page.getByRole("button", { name: "Save as my watchlist" }).click();
  await screen.until(() => document.getElementById("watch-list").hidden);
  await page.goto(screen.server.url);
  await screen.untilSymbols(["EUR-USD", "TSLA", "BTC-USD"]);
  await screen.until(() => document.getElementById("symbol").textContent === "TSLA");
}));

test("the chart shows historical candles and a new one", () => withScreen({ query: "?symbols=BTC-USD&interval=1s" }, async (screen, server) => {
  const inked = () => screen.until(() => {
    const style = getComputedStyle(document.documentElement);
    const inks = ["--up-fill", "--down-fill"].map((name) => style.getPropertyValue(name).trim().slice(1).match(/../g).map((hex) => parseInt(hex, 16)));
    const columns = new Set();
    for (const canvas of document.querySelectorAll("#chart canvas")) {
      const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        if (inks.some(([red, green, blue]) => data[at] === red && data[at + 1] === green && data[at + 2] === blue)) columns.add((at / 4) % width);
      }
    }
    return columns.size > 100;
  });
  await inked();
  const legend = () => screen.ask(() => document.getElementById("legend").textContent);
  const figures = (text) => /O (\S+) {2}H (\S+) {2}L (\S+) {2}C (\S+)/.exec(text)?.slice(1).join(" ").replaceAll(",", "");
  // The bar under the crosshair is one of the server's, at every position.
  const box = await screen.page.locator("#chart").boundingBox();
  const pointed = new Set();
  for (let step = 1; step < 12; step += 1) {
    await screen.page.mouse.move(box.x + box.width * step / 16, box.y + box.height / 2);
    pointed.add(figures(await legend()));
  }
  assert.ok(pointed.size > 6, [...pointed].join("; "));
  const { ok } = await server.json("/v1/snapshot?topics=bar:BTC-USD:1s&events=1000");
  const known = new Set(ok[0].events.map(({ o, h, l, c }) => `${o} ${h} ${l} ${c}`));
  assert.deepEqual([...pointed].filter((bar) => !known.has(bar)), []);
  // At the current end, several bars begin one after the other.
  await screen.page.mouse.move(0, 0);
  const opens = new Set();
  while (opens.size < 3) {
    opens.add((await legend()).split(" ")[1]);
    await screen.until((text) => document.getElementById("legend").textContent !== text, await legend());
  }
  for (const [key, interval] of [["2", "1m"], ["5", "1d"], ["3", "5m"]]) {
    await screen.page.locator("#grid").press(key);
    await screen.until((wanted) => document.querySelector('#intervals [aria-checked="true"]').textContent === wanted, interval);
    await screen.until((wanted) => document.getElementById("chart").getAttribute("aria-label").endsWith(wanted), interval);
    if (interval !== "1d") await inked();
  }
}));

test("best bid and offer, session and trades are those of the selected symbol", () => withScreen({ query: "?symbols=BTC-USD,ETH-USD&symbol=ETH-USD" }, async (screen, server) => {
  const trades = () => screen.ask(() => [...document.querySelectorAll("#trades tbody tr")].map((line) => [...line.cells].map((cell) => cell.textContent)));
  await screen.until(() => document.querySelectorAll("#trades tbody tr").length >= 50);
  const seen = await trades();
  const times = seen.map(([time]) => time);
  assert.deepEqual(times, times.toSorted().reverse(), "newest first");
  const { ok } = await server.json("/v1/snapshot?topics=trade:ETH-USD&events=1000");
  const known = new Set(ok[0].events.map(({ px, qty }) => `${px} ${qty}`));
  const strange = seen.filter(([, price, size]) => !known.has(`${price.replace(/[^\d.]/g, "")} ${size.replaceAll(",", "")}`));
  assert.deepEqual(strange, []);
  await screen.until(([first]) => document.querySelector("#trades tbody td").textContent > first, times);
  const price = (selector) => screen.ask((one) => Number(document.querySelector(one).textContent.replaceAll(",", "")), selector);
  assert.ok(await price(".side.bid strong") < await price(".side.ask strong"));
  await screen.until(() => /Spread 0\.\d\d · \d+\.\d\d bp/.test(document.querySelector(".between").textContent));
  await screen.page.locator(".line[data-symbol='BTC-USD']").click();
  await screen.until(() => document.title === "BTC-USD · tickcast" && document.getElementById("description").textContent === "Bitcoin"
    && Number(document.querySelector(".side.bid strong").textContent.replaceAll(",", "")) > 20000
    && document.querySelectorAll("#trades tbody tr").length >= 50
    && [...document.querySelectorAll("#trades tbody tr")].every((line) => line.cells[1].textContent.replace(/[^\d.]/g, "") > "20000"));
}));

test("everything works by keyboard", () => withScreen({ query: "?symbols=AAPL,BTC-USD,EUR-USD" }, async (screen) => {
  const { page } = screen;
  const chosen = (symbol) => screen.until((wanted) => document.getElementById("symbol").textContent === wanted, symbol);
  const grid = page.locator("#grid");
  await grid.focus();
  await chosen("AAPL");
  for (const [key, symbol] of [["ArrowDown", "BTC-USD"], ["End", "EUR-USD"], ["ArrowUp", "BTC-USD"], ["Home", "AAPL"]]) {
    await grid.press(key);
    await chosen(symbol);
    assert.equal(await screen.ask(() => document.getElementById(document.getElementById("grid").getAttribute("aria-activedescendant")).dataset.symbol), symbol);
  }
  await page.keyboard.press("/");
  assert.equal(await screen.ask(() => document.activeElement.id), "filter");
  await page.keyboard.type("ta?s");
  assert.equal(await page.locator("#filter").inputValue(), "ta?s", "keys are text input in a field");
  await page.keyboard.press("Escape");
  await page.keyboard.press("a");
  assert.equal(await screen.ask(() => document.activeElement.id), "add");
  await grid.focus();
  await page.keyboard.press("t");
  await screen.until(() => document.documentElement.dataset.theme === "light");
  await page.keyboard.press("d");
  await page.locator("#delivery").waitFor();
  await page.keyboard.press("?");
  await page.locator("#help").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#help").waitFor({ state: "hidden" });
  await page.keyboard.press("d");
  await page.locator("#delivery").waitFor({ state: "hidden" });
}));

const UNPRICED = `
sources:
  - {name: market, kind: sim, instruments: [{symbol: BUSY, start: "100", rate: 50/s}]}
  - {name: desk, kind: push, open: true, instruments: [{symbol: LATER, description: No price yet}]}
`;

test("a symbol without a price has a row and can be selected", () => withScreen({ serverArguments: config(UNPRICED), query: "?symbol=LATER" }, async (screen) => {
  await screen.untilSymbols(["BUSY", "LATER"]);
  await screen.until(() => document.getElementById("symbol").textContent === "LATER" && document.getElementById("description").textContent === "No price yet");
  assert.match((await screen.column("last"))[1], /^\D*$/);
  assert.match(screen.page.url(), /symbol=LATER/);
}));

const QUIET = `
sources:
  - {name: busy, kind: sim, stale_after: 1m, instruments: [{symbol: BUSY, start: "100", rate: 50/s}]}
  - {name: quiet, kind: sim, stale_after: 400ms, instruments: [{symbol: QUIET, start: "100", rate: 1/s}]}
`;

test("staleness is marked on the row and the selected symbol, and cleared when live again", () => withScreen({ serverArguments: config(QUIET), query: "?symbol=QUIET" }, async (screen) => {
  for (const [isStale, state] of [[true, "stale"], [false, ""], [true, "stale"]]) {
    await screen.until(([wanted, text]) => {
      const line = document.querySelector('.line[data-symbol="QUIET"]');
      return line?.classList.contains("stale") === wanted && line.querySelector(".state").textContent === text
        && document.getElementById("symbol-kind").textContent === (wanted ? "Simulated · stale" : "Simulated");
    }, [isStale, state]);
  }
  assert.equal(await screen.ask(() => document.querySelector('.line[data-symbol="BUSY"]').classList.contains("stale")), false);
}));

/** Binance dump of trades, one every 50 ms. */
function tape() {
  const file = scratch("BTCUSDT-trades-2024-08-08.csv");
  const line = (_, at) => `${at},${(60000 + at % 7).toFixed(2)},0.01,600.00,${1723075200000 + 50 * at},${at % 2 === 0},true`;
  writeFileSync(file, Array.from({ length: 5000 }, line).join("\n"));
  return ["--replay", file, "--replay-loop"];
}

test("replayed prices are marked as replayed", () => withScreen({ serverArguments: tape() }, async (screen) => {
  await screen.untilSymbols(["BTCUSDT"]);
  await screen.until(() => document.querySelector(".line:not([hidden]) .mark").textContent === "REPLAY");
  await screen.until(() => document.getElementById("kind").textContent === "Replayed prices" && document.getElementById("watermark").textContent === "Replayed prices");
}));
