// The page does not mislead: its state is the worst of all, figures are complete, lists and messages are clear.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, request } from "node:http";
import { test } from "node:test";
import { violations } from "./axe.mjs";
import { AWAY, Screen, Server, config, scratch, withBrowser, withScreen } from "./harness.mjs";
import { writeFileSync } from "node:fs";

const TOKEN = "a publisher's token";

/** Arguments for a server whose prices the test publishes. @param {string[]} instruments in YAML @param {string} [more] of the source */
const pushed = (instruments, more = "stale_after: 1h", beside = "") => config(`
sources:
${beside}
  - {name: desk, kind: push, token_sha256: ${createHash("sha256").update(TOKEN).digest("hex")}, negative_prices: true, crossed: true, ${more}, instruments: [${instruments.join(", ")}]}
`);

/** Publishes events, each of one symbol. */
async function publish(server, events) {
  const answer = await fetch(new URL("v1/publish", server.url), {
    method: "POST", headers: { "content-type": "application/x-ndjson", authorization: `Bearer ${TOKEN}` }, body: events.map((event) => JSON.stringify(event)).join("\n"),
  });
  const { refused, errors } = await answer.json();
  assert.equal(refused, 0, JSON.stringify(errors));
}

/** Opens the page of a server that has already published events. */
async function withPublished(instruments, events, { more, beside, ...options }, test) {
  const server = await Server.start(pushed(instruments, more, beside));
  try {
    await publish(server, events);
    await withBrowser(async (page) => {
      const screen = new Screen(page, server);
      await screen.open(options.query ?? "");
      await test(screen, server);
      screen.assertNoErrors(options.allowedErrors);
    }, { viewport: { width: 1440, height: 900 }, colorScheme: "dark", ...options });
  } finally {
    await server.kill();
  }
}

// --- The state ---

const untilConnection = (screen, state, text) => screen.until(([wanted, source]) => {
  const place = document.getElementById("connection");
  return place.dataset.state === wanted && new RegExp(source).test(place.textContent);
}, [state, text.source]);

test("stale prices make the page stale, and their areas are dimmed and dated", () => withPublished(["{symbol: QUIET}"], [
  { ch: "trade", sym: "QUIET", px: "10.50", qty: "1" }, { ch: "quote", sym: "QUIET", bid: "10.50", bidq: "1", ask: "10.51", askq: "1" },
], {
  more: "stale_after: 400ms", query: "?symbol=QUIET", beside: '  - {name: busy, kind: sim, stale_after: 1m, instruments: [{symbol: BUSY, start: "100", rate: 50/s}]}',
}, async (screen) => {
  await untilConnection(screen, "stale", /^Stale · 1 of 2$/);
  const dimmed = () => screen.ask(() => ["session", "chart", "bbo", "trades"].map((id) => getComputedStyle(document.getElementById(id)).filter === "grayscale(1)"));
  await screen.until(() => ["instrument", "book", "tape"].every((id) => /^as of \d\d:\d\d:\d\d$/.test(document.querySelector(`#${id} .as-of:not([hidden])`)?.textContent ?? "")));
  assert.deepEqual(await dimmed(), [true, true, true, true]);
  await screen.shot("stale");
  for (const colorScheme of ["dark", "light"]) {
    await screen.page.emulateMedia({ colorScheme });
    await screen.until((theme) => document.documentElement.dataset.theme === theme, colorScheme);
    assert.deepEqual(await violations(screen), [], `dimmed prices are legible, ${colorScheme}`);
    await screen.shot(`stale-${colorScheme}`);
  }
  await screen.page.locator(".line[data-symbol='BUSY']").click();
  await screen.until(() => document.getElementById("symbol").textContent === "BUSY" && !document.querySelector(".as-of:not([hidden])"));
  assert.deepEqual(await dimmed(), [false, false, false, false]);
  await untilConnection(screen, "stale", /./);
}));

test("an ended replay is not live", () => {
  const file = scratch("BTCUSDT-trades-2024-08-08.csv");
  writeFileSync(file, Array.from({ length: 200 }, (_, at) => `${at},${(60000 + at % 7).toFixed(2)},0.01,600.00,${1723075200000 + 20 * at},true,true`).join("\n"));
  return withScreen({ serverArguments: ["--replay", file] }, async (screen) => {
    await untilConnection(screen, "stale", /^Stale/);
    await screen.until(() => /^as of 2024-08-08 00:00:0\d$/.test(document.querySelector("#instrument .as-of:not([hidden])")?.textContent ?? ""));
    assert.doesNotMatch(await screen.text("#connection"), /Live/);
    await untilConnection(screen, "stale", /^Stale · \w+ ended$/);
    // A page opened after the end shows the same.
    await screen.page.reload();
    await untilConnection(screen, "stale", /^Stale · \w+ ended$/);
  });
});

test("a server without a price is not live", async () => {
  const server = await Server.start(pushed(["{symbol: LATER}"]));
  try {
    await withBrowser(async (page) => {
      const screen = new Screen(page, server);
      await page.goto(server.url);
      await untilConnection(screen, "stale", /^Waiting for prices$/);
      await publish(server, [{ ch: "trade", sym: "LATER", px: "10.50", qty: "1" }]);
      await untilConnection(screen, "live", /^Live$/);
      screen.assertNoErrors();
    });
  } finally {
    await server.kill();
  }
});

test("a slow client is delayed instead of live, and live again once it has caught up", () => withScreen({ serverArguments: ["--sim-instruments", "100", "--sim-rate", "10000"] }, async (screen) => {
  const isMuted = () => screen.ask(() => ["last", "spread"].map((name) => getComputedStyle(document.querySelector(`#grid .lines .cell.${name}`)).color).reduce((last, spread) => last === spread));
  await untilConnection(screen, "live", /^Live$/);
  assert.equal(await isMuted(), false);
  await screen.page.keyboard.press("s");
  await untilConnection(screen, "delayed", /^Delayed \d/);
  assert.equal(await isMuted(), true);
  await screen.until(() => document.querySelector("#book .as-of:not([hidden])"));
  await screen.page.keyboard.press("s");
  await untilConnection(screen, "live", /^Live$/);
}));

test("a lost connection counts down to the next attempt, which can be started immediately", () => withScreen({ allowedErrors: AWAY }, async (screen, server) => {
  await untilConnection(screen, "live", /^Live$/);
  await screen.untilHealth("p99", /\d/);
  await server.kill();
  await screen.until(() => /^(Reconnecting in \d+ s|Reconnecting now), last update \d+ s ago$/.test(document.querySelector("#retry:not([hidden]) span")?.textContent ?? ""));
  for (const field of ["messages", "events", "rate", "p50", "p99", "ping", "lag", "merged", "lost", "ledger"]) assert.equal(await screen.health(field), "–", field);
  // Each failed attempt waits longer: use one that leaves time to press the button.
  await screen.until(() => Number(/in (\d+) s/.exec(document.querySelector("#retry span").textContent)?.[1] ?? 0) >= 4);
  await screen.shot("countdown");
  await server.start();
  await screen.ask(() => { window.pressedAt = performance.now(); document.querySelector("#retry button").click(); });
  await screen.untilState("open");
  await screen.until(() => document.getElementById("retry").hidden);
}));

test("the reason of a stopped server stays visible while it is away", () => withScreen({ allowedErrors: AWAY }, async (screen, server) => {
  await untilConnection(screen, "live", /^Live$/);
  await server.kill("SIGTERM");
  await untilConnection(screen, "waiting", /^Connection lost: .+; server unreachable$/);
}));

// --- Figures ---

/** Texts that are truncated in their boxes. */
const cut = (screen) => screen.ask(() => [...document.querySelectorAll(".lines .line:not([hidden]) .cell:not(.spark, .symbol), .lines .line:not([hidden]) .name, #session dd, .side strong, .side .size, .between, #trades td, #legend")]
  .filter((one) => one.offsetParent !== null && one.textContent !== "")
  .filter((one) => {
    const range = document.createRange();
    range.selectNodeContents(one);
    // Trailing spaces of a legend line may overflow.
    if (one.id === "legend") return one.scrollWidth > one.clientWidth + 1;
    const text = range.getBoundingClientRect(), box = one.getBoundingClientRect();
    const panel = one.closest("#grid") ? null : one.closest(".panel").getBoundingClientRect();
    return text.left < box.left - 0.5 || text.right > box.right + 0.5 || one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline"
      || panel !== null && (text.right > panel.right || text.left < panel.left);
  }).map((one) => `${one.className || one.tagName}: ${one.textContent}`));

const EXTREMES = [
  ["TINY", 8, "0.00000002"], ["DENTUSDT", 8, "0.02100830"], ["HUGE", 3, "123456784.123"], ["NEG", 2, "-38.63"],
  ["A-LONG-SYMBOL.OF-32-CHARACTERS.X", 2, "10.50"],
].flatMap(([symbol, scale, px]) => [{ symbol, scale, px }]);

for (const [width, height] of [[2560, 1300], [1440, 900], [1100, 700], [390, 844]]) {
  test(`no figure or name is truncated at ${width} px, whatever its size`, () => withPublished(
    EXTREMES.map(({ symbol, scale }) => `{symbol: ${symbol}, price_scale: ${scale}, qty_scale: 2}`),
    EXTREMES.flatMap(({ symbol, px }) => [
      { ch: "quote", sym: symbol, bid: px, bidq: "99999999.25", ask: px, askq: "123456789.75" },
      ...[1, 2, 3].map(() => ({ ch: "trade", sym: symbol, px, qty: "98765432.50", side: "buy" })),
    ]),
    { more: "stale_after: 500ms", viewport: { width, height }, query: "?symbol=HUGE" }, async (screen) => {
      // Every row has a stale mark next to its kind, and names remain visible.
      await screen.until((rows) => document.querySelectorAll(".lines .line.stale:not([hidden])").length === rows, EXTREMES.length);
      for (const { symbol, px } of EXTREMES) {
        await screen.ask((wanted) => document.querySelector(`.line[data-symbol="${wanted}"]`).click(), symbol);
        await screen.until(([wanted, digits]) => document.getElementById("symbol").textContent === wanted
          && document.querySelector(".side.bid strong").textContent.replaceAll(",", "").replace("−", "-") === digits
          && document.querySelectorAll("#trades tbody tr").length === 3 && document.getElementById("legend").textContent !== "", [symbol, px]);
        // In a narrow window, a name of 32 characters would leave no room for prices.
        assert.deepEqual((await cut(screen)).filter((one) => width > 1320 || one !== `name: ${EXTREMES.at(-1).symbol}`), [], symbol);
      }
      assert.ok(await screen.ask(() => document.documentElement.scrollWidth <= innerWidth), "no horizontal scrolling");
      await screen.shot(`extremes-${width}`);
    }));
}

test("negative prices have correct directions and spreads", () => withPublished(["{symbol: NEG, qty_scale: 0}"], [
  { ch: "trade", sym: "NEG", px: "-37.63", qty: "1" }, { ch: "trade", sym: "NEG", px: "-38.63", qty: "1" }, { ch: "quote", sym: "NEG", bid: "-38.64", bidq: "1", ask: "-38.59", askq: "1" },
], {}, async (screen, server) => {
  await screen.until(() => document.querySelector(".lines .line .change").textContent === "−2.66%" && document.querySelector("#session [data-sign]")?.textContent === "−2.66%");
  assert.deepEqual(await screen.ask(() => [...document.querySelectorAll("[data-sign]")].filter((one) => one.textContent).map((one) => one.dataset.sign)), ["down", "down"]);
  await screen.until(() => document.querySelector(".between").textContent === "Spread 0.05 · 12.95 bp");
  assert.doesNotMatch(await screen.text("#session"), /-\d/, "the minus sign is the same everywhere");
  await publish(server, [{ ch: "quote", sym: "NEG", bid: "-0.01", bidq: "1", ask: "0.01", askq: "1" }]);
  await screen.until(() => document.querySelector(".between").textContent === "Spread 0.02");
}));

test("the summary strip is not covered, and a chart with few bars shows all of them", async () => {
  await withScreen({ serverArguments: ["--sim-instruments", "3"], query: "?interval=1s", viewport: { width: 844, height: 390 } }, async (screen) => {
    await screen.until(() => document.getElementById("legend").textContent !== "");
    await screen.ask(() => document.getElementById("chart").scrollIntoView({ block: "center" }));
    const over = await screen.ask(() => {
      const strip = document.getElementById("health"), { left, width, top, height } = strip.getBoundingClientRect();
      return Array.from({ length: 20 }, (_, at) => document.elementFromPoint(left + width * (at + 0.5) / 20, top + height / 2)).filter((one) => !strip.contains(one)).map((one) => one?.tagName);
    });
    assert.deepEqual(over, []);
  });
  await withScreen({ serverArguments: ["--sim-instruments", "3"], query: "?interval=1s" }, async (screen, server) => {
    const symbol = await screen.text("#symbol");
    const bars = async () => (await server.json(`/v1/snapshot?topics=bar:${symbol}:1s&events=1000`)).ok[0].events.length;
    while (await bars() < 12) await screen.until(() => new Promise((done) => requestAnimationFrame(() => done(true))));
    const box = await screen.page.locator("#chart").boundingBox(), seen = new Set();
    for (let step = 1; step < 160; step += 1) {
      await screen.page.mouse.move(box.x + (box.width - 80) * step / 160, box.y + box.height / 2);
      seen.add(await screen.ask(() => document.getElementById("legend").textContent.split("  ").slice(0, 3).join()));
    }
    assert.ok(seen.size >= 11, `${[...seen].join("; ")}`);
  });
});

// --- The list ---

const stored = (screen) => screen.ask(() => JSON.parse(localStorage.getItem("tickcast") ?? "{}").symbols ?? null);
const action = (screen, title) => screen.page.getByRole("button", { name: title, exact: true }).click();

test("the list of a link does not replace the stored list until the user keeps it", () => withScreen({}, async (screen) => {
  const { page } = screen;
  // A stored list.
  await page.goto(`${screen.server.url}?symbols=AAPL,BTC-USD,TSLA`);
  await screen.untilSymbols(["AAPL", "BTC-USD", "TSLA"]);
  await action(screen, "Save as my watchlist");
  await screen.until(() => document.getElementById("watch-list").hidden);
  assert.deepEqual(await stored(screen), ["AAPL", "BTC-USD", "TSLA"]);
  // A link whose list the user changes.
  await page.goto(`${screen.server.url}?symbols=JPM,META&symbol=JPM`);
  await screen.untilSymbols(["JPM", "META"]);
  await screen.until(() => document.getElementById("watch-list").textContent.startsWith("This watchlist comes from a link."));
  await screen.shot("link");
  await page.locator("#add").fill("GOOG");
  await page.locator("#add").press("Enter");
  await screen.untilSymbols(["GOOG", "JPM", "META"]);
  await page.keyboard.press("Escape");
  await page.locator("#theme-toggle").click();
  assert.deepEqual(await stored(screen), ["AAPL", "BTC-USD", "TSLA"]);
  await action(screen, "Restore my watchlist");
  await screen.untilSymbols(["AAPL", "BTC-USD", "TSLA"]);
  await page.goto(screen.server.url);
  await screen.untilSymbols(["AAPL", "BTC-USD", "TSLA"]);
  assert.ok(await screen.ask(() => document.getElementById("watch-list").hidden), "the stored list needs no note");
  assert.equal(await screen.ask(() => document.documentElement.dataset.theme), "light", "settings other than the list are kept");
}));

test("symbols are removed by mouse and by touch, restored, and all removed at once", () => withScreen({ query: "?symbols=AAPL,BTC-USD,EUR-USD" }, async (screen) => {
  const { page } = screen;
  await screen.untilSymbols(["AAPL", "BTC-USD", "EUR-USD"]);
  const line = page.locator(".line[data-symbol='BTC-USD']");
  await line.hover();
  await line.getByRole("button", { name: "Remove BTC-USD" }).click();
  await screen.untilSymbols(["AAPL", "EUR-USD"]);
  await screen.until(() => document.getElementById("watch-note").textContent.startsWith("BTC-USD removed."));
  await action(screen, "Undo");
  await screen.untilSymbols(["AAPL", "BTC-USD", "EUR-USD"]);
  await screen.until(() => document.getElementById("watch-note").hidden);
  await action(screen, "All symbols");
  await screen.until(() => document.getElementById("watch-count").textContent === "24 symbols" && document.getElementById("all").hidden);
  // From the list of all symbols: the consequence is explained and can be undone.
  await page.locator("#grid").press("Delete");
  await screen.until(() => / removed\. New symbols of the server are no longer added/.test(document.getElementById("watch-note").textContent));
  await action(screen, "Undo");
  await screen.until(() => document.getElementById("watch-count").textContent === "24 symbols" && document.getElementById("all").hidden);
}));

test("on touch screens the selected row shows its button", () => withScreen({ query: "?symbols=AAPL,BTC-USD", viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }, async (screen) => {
  await screen.untilSymbols(["AAPL", "BTC-USD"]);
  const line = screen.page.locator(".line[data-symbol='BTC-USD']");
  await line.tap();
  await line.getByRole("button", { name: "Remove BTC-USD" }).tap();
  await screen.untilSymbols(["AAPL"]);
}));

test("500 symbols: all are reachable, and visible ones are subscribed", () => withScreen({ serverArguments: ["--sim-instruments", "500"] }, async (screen) => {
  await screen.until(() => document.getElementById("watch-count").textContent === "500 symbols");
  await screen.untilHealth("ledger", /^0 ✓$/);
  const topics = () => screen.ask(() => [...document.querySelectorAll("#subscriptions tr")].slice(1).map((line) => Number(line.cells[2].textContent.replaceAll(",", ""))));
  await screen.page.locator("#delivery-toggle").click();
  await screen.until(() => Number(document.querySelector("#subscriptions td:nth-child(3)").textContent) > 0);
  const [quotes, tickers] = await topics();
  assert.ok(quotes >= 20 && quotes <= 120 && tickers === quotes, `${quotes} ${tickers}`);
  await screen.page.locator("#grid").press("End");
  await screen.until(() => {
    const line = document.querySelector('.line[data-symbol="SIM0499"]:not(.waiting)');
    return line && /\d/.test(line.querySelector(".last").textContent) && /\d/.test(line.querySelector(".bid").textContent);
  });
  const before = await screen.text('.line[data-symbol="SIM0499"] .bid');
  await screen.until((text) => document.querySelector('.line[data-symbol="SIM0499"] .bid').textContent !== text, before);
  assert.ok(await screen.ask(() => document.getElementById("watch-note").hidden && document.getElementById("watch-list").hidden), "no note about a limit is shown");
  await screen.untilHealth("ledger", /^0 ✓$/);
}));

const HISTORY = `
sources:
  - {name: sim, kind: sim, seed: 3, history: 2h, stale_after: 1h, instruments: [${Array.from({ length: 100 }, (_, at) => `{symbol: S${String(at).padStart(2, "0")}, start: "100", rate: 5/s}`).join(", ")}]}
`;

test("sorting by the last hour includes rows that were never visible", () => withScreen({ serverArguments: config(HISTORY) }, async (screen, server) => {
  await screen.until(() => document.getElementById("watch-count").textContent === "100 symbols");
  await screen.page.locator(".head .spark button").click();
  await screen.page.mouse.move(0, 0);
  // Order by rise, from the server's bars and prices.
  const hours = async () => {
    const symbols = Array.from({ length: 100 }, (_, at) => `S${String(at).padStart(2, "0")}`), all = [];
    for (let at = 0; at < 100; at += 25) {
      const { ok } = await server.json(`/v1/snapshot?topics=${symbols.slice(at, at + 25).map((symbol) => `bar:${symbol}:1m`).join(",")}&events=60`);
      for (const { topic, events } of ok) all.push({ symbol: topic.split(":")[1], hour: Number(events.at(-1).c) / Number(events[0].c) });
    }
    return all.sort((a, b) => b.hour - a.hour).map(({ symbol }) => symbol);
  };
  const deadline = performance.now() + 60_000;
  for (;;) {
    const [shown, wanted] = [(await screen.symbols()).slice(0, 5), (await hours()).slice(0, 10)];
    // Close ones may swap meanwhile.
    if (shown.every((symbol) => wanted.includes(symbol))) break;
    assert.ok(performance.now() < deadline, `${shown} ${wanted}`);
  }
}));

test("rows do not move under the pointer", () => withScreen({ serverArguments: config(HISTORY) }, async (screen) => {
  await screen.until(() => document.getElementById("watch-count").textContent === "100 symbols");
  await screen.page.locator(".head .last button").click();
  const moved = (before) => screen.until((old) => {
    const lines = [...document.querySelectorAll(".lines .line:not([hidden])")].sort((a, b) => a.ariaRowIndex - b.ariaRowIndex);
    return lines.map(({ dataset }) => dataset.symbol).join() !== old;
  }, before.join());
  await screen.page.mouse.move(0, 0);
  await moved(await screen.symbols());
  const box = await screen.page.locator("#grid").boundingBox();
  await screen.page.mouse.move(box.x + 100, box.y + 200);
  await screen.until(() => !document.getElementById("watch-order").hidden);
  const before = await screen.symbols();
  const texts = await screen.column("last");
  // Prices keep changing for much longer than one sorting interval.
  await screen.until(([old, until]) => performance.now() > (window.until ??= performance.now() + until)
    && [...document.querySelectorAll(".lines .last")].filter((cell) => !old.includes(cell.textContent)).length > 5, [texts, 3000]);
  assert.deepEqual(await screen.symbols(), before);
  await screen.page.mouse.move(0, 0);
  await moved(before);
  await screen.until(() => document.getElementById("watch-order").hidden);
}));

test("an empty filter and an invalid link show the reason and a remedy", () => withScreen({}, async (screen) => {
  const { page } = screen;
  await page.locator("#filter").fill("no-such");
  await screen.until(() => document.querySelector("#watch-empty:not([hidden]) span")?.textContent === "No symbol matches “no-such”.");
  await action(screen, "Clear filter");
  await screen.until(() => document.getElementById("watch-count").textContent === "24 symbols" && document.getElementById("watch-empty").hidden);
  await page.locator("#add").fill("TSLB");
  await page.locator("#add").press("Enter");
  await screen.until(() => document.querySelector("#watch-note:not([hidden]) span")?.textContent === "Unknown symbol TSLB.");
  // The note disappears by itself.
  await screen.until(() => document.getElementById("watch-note").hidden);

  await page.goto(`${screen.server.url}?symbols=NOPE-AT-ALL,BTC-USDD&symbol=NOPE-AT-ALL`);
  await screen.until(() => document.querySelector("#watch-list:not([hidden]) span")?.textContent.startsWith("Unknown symbols: NOPE-AT-ALL, BTC-USDD."));
  assert.equal(await screen.ask(() => document.title), "tickcast");
  await untilConnection(screen, "stale", /^No symbols$/);
  await screen.shot("wrong-link");
  await action(screen, "Replace BTC-USDD with BTC-USD");
  await screen.untilSymbols(["BTC-USD"]);
  await screen.until(() => document.getElementById("symbol").textContent === "BTC-USD");
  await action(screen, "Remove unknown symbols");
  await screen.until(() => !document.getElementById("watch-list").textContent.includes("NOPE"));
  await page.goto(`${screen.server.url}?symbols=NOPE-AT-ALL`);
  await action(screen, "All symbols");
  await screen.until(() => document.getElementById("watch-count").textContent === "24 symbols");
}));

// --- Elsewhere ---

/** Reverse proxy with the server under a path prefix, which keeps the server's host name. */
async function proxy(server, prefix) {
  const { host, hostname, port } = new URL(server.url);
  const passed = ({ url, method, headers }) => ({ hostname, port, method, path: url.slice(prefix.length - 1), headers: { ...headers, host, ...(headers.origin ? { origin: `http://${host}` } : {}) } });
  const isOurs = ({ url }) => url.startsWith(prefix);
  const made = createServer((asked, answer) => {
    if (!isOurs(asked)) return answer.writeHead(404).end();
    asked.pipe(request(passed(asked), (got) => got.pipe(answer.writeHead(got.statusCode, got.headers))));
  });
  made.on("upgrade", (asked, socket) => {
    if (!isOurs(asked)) return socket.destroy();
    request(passed(asked)).on("upgrade", (got, behind, head) => {
      const lines = Object.entries(got.headers).map(([name, value]) => `${name}: ${value}`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("\r\n")}\r\n\r\n`);
      socket.write(head);
      behind.on("error", () => socket.destroy()).on("close", () => socket.destroy());
      socket.on("error", () => behind.destroy()).on("close", () => behind.destroy());
      behind.pipe(socket).pipe(behind);
    }).end();
  });
  await once(made.listen(0, "127.0.0.1"), "listening");
  return { url: `http://127.0.0.1:${made.address().port}${prefix}`, end: () => { made.closeAllConnections(); made.close(); } };
}

test("the page and its client work under the path prefix of a proxy", async () => {
  const server = await Server.start();
  const front = await proxy(server, "/markets/eu/");
  try {
    await withBrowser(async (page) => {
      const screen = new Screen(page, { url: front.url });
      await screen.open();
      await screen.untilHealth("ledger", /^0 ✓$/);
      await screen.until(() => document.getElementById("legend").textContent !== "");
      // The last hour of each row is loaded by HTTP.
      await screen.until(() => [...document.querySelectorAll(".lines .line:not([hidden]) canvas")].some((canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)));
      assert.ok(page.url().startsWith(front.url));
      screen.assertNoErrors();
    });
  } finally {
    front.end();
    await server.kill();
  }
});
