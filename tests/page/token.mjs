// The page and a server with authentication: the dialog, and the places where the token is kept.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Screen, Server, config, withBrowser } from "./harness.mjs";

const KEYS = (ids) => `sources: [{name: sim, kind: sim, instruments: [{symbol: A, start: 100, rate: 20/s}, {symbol: B, start: 50, rate: 20/s}]}]
roles: {reader: {topics: ["*"]}}
auth: {scheme: keys, keys: [${ids.map((id) => `{id: ${id}, sha256: ${createHash("sha256").update(`canary-${id}`).digest("hex")}, role: reader}`)}]}
`;

/** Responses with an error status, which the browser reports. */
const REFUSED = /Failed to load resource.*401/;

test("the page asks for a token, says why one is refused, and remembers the right one for the tab alone", async () => {
  const server = await Server.start(config(KEYS(["desk"])));
  try {
    await withBrowser(async (page) => {
      const screen = new Screen(page, server);
      const addresses = [];
      page.on("request", (request) => addresses.push(request.url()));
      page.on("websocket", (socket) => addresses.push(socket.url()));
      await page.goto(server.url);
      const dialog = page.getByRole("dialog", { name: "Token" });
      const input = page.locator("#token-text");
      await dialog.waitFor();
      assert.match(await screen.text("#token-reason"), /requires a token/);
      await screen.shot("token");
      await input.fill("desk.wrong-canary");
      await input.press("Enter");
      await screen.until(() => document.querySelector("#token-reason").textContent.includes("wrong secret"));
      assert.equal(await input.inputValue(), "");
      await input.fill("desk.canary-desk");
      await page.getByRole("button", { name: "Connect" }).click();
      await screen.untilState("open");
      await screen.untilHealth("ledger", /^0 ✓$/);
      assert.equal(await dialog.isVisible(), false);
      const kept = () => screen.ask(() => JSON.stringify([Object.entries(localStorage), document.cookie, location.href]));
      assert.ok(!(await kept()).includes("canary"), await kept());
      assert.equal(await screen.ask(() => sessionStorage.getItem("tickcast.token")), "desk.canary-desk");
      await page.reload();
      await screen.untilState("open");
      assert.equal(await dialog.isVisible(), false);
      assert.deepEqual(addresses.filter((address) => address.includes("canary")), []);
      screen.assertNoErrors(REFUSED);
    });
    // Another tab knows nothing of it, and may be cancelled.
    await withBrowser(async (page) => {
      const screen = new Screen(page, server);
      await page.goto(server.url);
      await page.getByRole("dialog", { name: "Token" }).waitFor();
      await page.getByRole("button", { name: "Cancel" }).click();
      await screen.untilState("closed");
      assert.match(await screen.text("#connection"), /requires a token/);
      screen.assertNoErrors(REFUSED);
    });
  } finally {
    await server.kill();
  }
});
