// Appearance and accessibility of the page: themes, widths, axe. Screenshots are in target/page.

import assert from "node:assert/strict";
import { test } from "node:test";
import { violations } from "./axe.mjs";
import { AWAY, withScreen } from "./harness.mjs";

const WIDTHS = { wide: [1440, 900], laptop: [1280, 720], tablet: [820, 1180], phone: [390, 844] };

const ready = async (screen) => {
  await screen.until(() => document.querySelectorAll("#trades tbody tr").length >= 20 && document.getElementById("legend").textContent !== "");
  await screen.untilHealth("ledger", /^0 ✓$/);
  await screen.untilHealth("p99", /\d/);
  await screen.until(() => document.getElementById("connection").dataset.state === "live");
};

for (const theme of ["dark", "light"]) {
  for (const [name, [width, height]] of Object.entries(WIDTHS)) {
    test(`${theme}, ${name}: no overflow and no accessibility violation`, () => withScreen({ viewport: { width, height }, colorScheme: theme, query: "?symbol=BTC-USD" }, async (screen) => {
      await ready(screen);
      await screen.shot(`${theme}-${name}`);
      assert.equal(await screen.ask(() => document.documentElement.dataset.theme), theme);
      const [ground, ink] = await screen.ask(() => ["backgroundColor", "color"].map((one) => Number(/\d+/.exec(getComputedStyle(document.body)[one])[0])));
      assert.equal(ground < ink, theme === "dark");
      const wide = await screen.ask(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide[0] <= wide[1], `${wide[0]} px are wider than the window of ${wide[1]}`);
      const cut = await screen.ask(() => [...document.querySelectorAll("button, h2, .name, .last, .bid strong, .ask strong, #trades, #session")]
        .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline").map((one) => one.outerHTML.slice(0, 120)));
      assert.deepEqual(cut, [], "no name or price is truncated");
      assert.deepEqual(await violations(screen), []);
      await screen.page.locator("#delivery-toggle").click();
      await screen.page.locator("#delivery").scrollIntoViewIfNeeded();
      await screen.until(() => Number(document.querySelector("#subscriptions td:nth-child(4)").textContent) !== 0);
      await screen.shot(`${theme}-${name}-delivery`);
      assert.ok(await screen.ask(() => document.documentElement.scrollWidth <= innerWidth), "no horizontal scrolling with the panel open");
      assert.deepEqual(await violations(screen), []);
      await screen.page.locator("#help-toggle").click();
      assert.deepEqual(await violations(screen), []);
    }));
  }
}

test("figures keep their positions, and nothing moves with reduced motion", () => withScreen({ reducedMotion: "reduce" }, async (screen) => {
  await ready(screen);
  const [numeric, transition] = await screen.ask(() => [".last", ".side strong", "#health dd", "#trades td"]
    .map((one) => getComputedStyle(document.querySelector(one))).reduce(([all, moves], style) => [all && style.fontVariantNumeric === "tabular-nums", moves || parseFloat(style.transitionDuration) > 0 && style.transitionProperty !== "none"], [true, false]));
  assert.deepEqual([numeric, transition], [true, false]);
  // A row keeps its position and height, whatever it shows.
  const places = () => screen.ask(() => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].map((cell) => { const { x, y, width, height } = cell.getBoundingClientRect(); return [x, y, width, height].join(); }));
  const before = await places(), texts = await screen.column("last");
  await screen.until((old) => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].filter((cell) => !old.includes(cell.textContent)).length > 10, texts);
  assert.deepEqual(await places(), before);
}));

for (const theme of ["dark", "light"]) {
  test(`${theme}: prices that are not current stay readable`, () => withScreen({ colorScheme: theme, query: "?symbol=BTC-USD", allowedErrors: AWAY }, async (screen, server) => {
    await ready(screen);
    await screen.until(() => document.querySelector('.lines .cell.last[data-flash="up"]'));
    await server.kill();
    await screen.untilState("waiting");
    // The last flash remains for the time of the check, as it does when the browser itself is slow.
    await screen.ask(() => document.querySelectorAll(".lines .cell.last").forEach((cell, at) => { cell.dataset.flash = at % 2 ? "up" : "down"; }));
    await screen.shot(`${theme}-not-current`);
    assert.deepEqual(await violations(screen), []);
  }));
}
