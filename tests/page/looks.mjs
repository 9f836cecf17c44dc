// How the page looks and whom it lets in: themes, widths, accessibility. The screenshots stay in target/page.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { ROOT, withScreen } from "./harness.mjs";

const AXE = readFileSync(`${ROOT}/tests/.deps/node_modules/axe-core/axe.min.js`, "utf8");
const WIDTHS = { wide: [1440, 900], laptop: [1280, 720], tablet: [820, 1180], phone: [390, 844] };

/** What axe finds, of WCAG 2.2 A and AA and of good practice. A page that is delayed, on a busy machine, is dimmed on purpose: it is looked at again. */
async function violations(screen) {
  await screen.ask(AXE);
  for (;;) {
    await screen.until(() => document.body.dataset.prices === "current");
    await screen.ask(() => {
      window.wasDimmed = false;
      new MutationObserver(() => { window.wasDimmed ||= document.body.dataset.prices !== "current"; }).observe(document.body, { attributes: true });
    });
    const found = await judged(screen);
    if (found.length === 0 || !await screen.ask(() => window.wasDimmed)) return found;
  }
}

const judged = (screen) => screen.ask(async () => {
  const { violations: found } = await window.axe.run(document, { resultTypes: ["violations"] });
  return found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary.split("\n")[1] ?? ""}`).join(" | ")}`);
});

const ready = async (screen) => {
  await screen.until(() => document.querySelectorAll("#trades tbody tr").length >= 20 && document.getElementById("legend").textContent !== "");
  await screen.untilHealth("ledger", /^0 ✓$/);
  await screen.untilHealth("p99", /\d/);
  await screen.until(() => document.getElementById("connection").dataset.state === "live");
};

for (const theme of ["dark", "light"]) {
  for (const [name, [width, height]] of Object.entries(WIDTHS)) {
    test(`${theme}, ${name}: nothing overflows, axe finds nothing`, () => withScreen({ viewport: { width, height }, colorScheme: theme, query: "?symbol=BTC-USD" }, async (screen) => {
      await ready(screen);
      await screen.shot(`${theme}-${name}`);
      assert.equal(await screen.ask(() => document.documentElement.dataset.theme), theme);
      const [ground, ink] = await screen.ask(() => ["backgroundColor", "color"].map((one) => Number(/\d+/.exec(getComputedStyle(document.body)[one])[0])));
      assert.equal(ground < ink, theme === "dark");
      const wide = await screen.ask(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(wide[0] <= wide[1], `${wide[0]} px are wider than the window of ${wide[1]}`);
      const cut = await screen.ask(() => [...document.querySelectorAll("button, h2, .name, .last, .bid strong, .ask strong, #trades, #session")]
        .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline").map((one) => one.outerHTML.slice(0, 120)));
      assert.deepEqual(cut, [], "no name and no price is cut");
      assert.deepEqual(await violations(screen), []);
      await screen.page.locator("#delivery-toggle").click();
      await screen.page.locator("#delivery").scrollIntoViewIfNeeded();
      await screen.until(() => Number(document.querySelector("#subscriptions td:nth-child(4)").textContent) !== 0);
      await screen.shot(`${theme}-${name}-delivery`);
      assert.ok(await screen.ask(() => document.documentElement.scrollWidth <= innerWidth), "nor with the panel open");
      assert.deepEqual(await violations(screen), []);
      await screen.page.locator("#help-toggle").click();
      assert.deepEqual(await violations(screen), []);
    }));
  }
}

test("figures don't jump, and nothing moves for those who asked for that", () => withScreen({ reducedMotion: "reduce" }, async (screen) => {
  await ready(screen);
  const [numeric, transition] = await screen.ask(() => [".last", ".side strong", "#health dd", "#trades td"]
    .map((one) => getComputedStyle(document.querySelector(one))).reduce(([all, moves], style) => [all && style.fontVariantNumeric === "tabular-nums", moves || parseFloat(style.transitionDuration) > 0 && style.transitionProperty !== "none"], [true, false]));
  assert.deepEqual([numeric, transition], [true, false]);
  // A line keeps its place and its height, whatever it shows.
  const places = () => screen.ask(() => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].map((cell) => { const { x, y, width, height } = cell.getBoundingClientRect(); return [x, y, width, height].join(); }));
  const before = await places(), texts = await screen.column("last");
  await screen.until((old) => [...document.querySelectorAll(".lines .line:not([hidden]) .last")].filter((cell) => !old.includes(cell.textContent)).length > 10, texts);
  assert.deepEqual(await places(), before);
}));
