// A real server and a real browser for the tests of the page. Waits are for visible conditions, never for a duration.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "../.deps/node_modules/playwright-core/index.mjs";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const isFull = process.env.TICKCAST_FULL === "1";
const TICKCAST = process.env.TICKCAST ?? join(ROOT, "target/release/tickcast");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** Folder of screenshots. */
export const SCREENS = join(ROOT, "target/page");
/** Containers have no other user for a sandbox; background requests of the browser would violate "no request to any other host". */
const BROWSER = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const WAIT_MS = 60_000;

const folder = mkdtempSync(join(tmpdir(), "tickcast-page-"));
mkdirSync(SCREENS, { recursive: true });
after(() => rmSync(folder, { recursive: true, force: true }));

/** Path of a temporary file with this name. */
export const scratch = (name) => join(mkdtempSync(join(folder, "file-")), name);

/** Arguments for a server with this config. */
export function config(text) {
  const file = scratch("feeds.yaml");
  writeFileSync(file, text);
  return ["--config", file];
}

/** Console messages of a browser about an unreachable server. */
export const AWAY = /ERR_CONNECTION_(REFUSED|RESET)|WebSocket connection|Failed to load resource/;

export const MARKET = ["--config", join(ROOT, "feeds.yaml")];

/** Running server, which can be killed and restarted at the same address. */
export class Server {
  #arguments;
  #child;
  address = "127.0.0.1:0";

  constructor(serverArguments) {
    this.#arguments = serverArguments;
  }

  static async start(serverArguments = MARKET) {
    const server = new Server(serverArguments);
    await server.start();
    return server;
  }

  async start() {
    const child = spawn(TICKCAST, ["serve", "--listen", this.address, "--admin", "off", ...this.#arguments], { stdio: ["ignore", "pipe", "ignore"] });
    this.#child = child;
    let banner = "";
    for await (const text of child.stdout) {
      banner += text;
      const found = /ws:\/\/([^/]+)\//.exec(banner);
      if (!found) continue;
      this.address = found[1];
      return;
    }
    throw new Error(`the server ended before it listened: ${banner}`);
  }

  async kill(signal = "SIGKILL") {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await once(child, "exit");
  }

  get url() {
    return `http://${this.address}/`;
  }

  async json(path) {
    return (await fetch(new URL(path, this.url))).json();
  }
}

/** Page of a server in a browser; records errors and foreign requests. */
export class Screen {
  /** Unexpected console messages. */
  errors = [];
  /** Requests to other hosts than the server. */
  foreignRequests = [];

  constructor(page, server) {
    this.page = page;
    this.server = server;
    page.setDefaultTimeout(WAIT_MS);
    page.on("pageerror", (error) => this.errors.push(error.stack ?? String(error)));
    page.on("console", (message) => {
      // The tests read canvases back; the page does not.
      if (message.text().includes("willReadFrequently")) return;
      if (["error", "warning"].includes(message.type())) this.errors.push(`${message.type()}: ${message.text()} (${message.location().url})`);
    });
    page.context().on("request", (request) => {
      if (!request.url().startsWith(server.url)) this.foreignRequests.push(request.url());
    });
  }

  async open(query = "") {
    await this.page.goto(this.server.url + query);
    await this.until(() => /\d/.test(document.querySelector(".lines .last")?.textContent ?? ""));
  }

  /** Waits until a condition holds on the page. */
  until(holds, argument) {
    return this.page.waitForFunction(holds, argument, { timeout: WAIT_MS });
  }

  ask(question, argument) {
    return this.page.evaluate(question, argument);
  }

  text(selector) {
    return this.page.locator(selector).innerText();
  }

  /** Texts of a column from top to bottom, at one instant. */
  column(name) {
    return this.ask((column) => [...document.querySelectorAll(".lines .line:not([hidden])")]
      .sort((a, b) => Number(a.ariaRowIndex ?? a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")))
      .map((line) => line.querySelector(column)?.textContent ?? ""), name === "symbol" ? ".name" : `.cell.${name}`);
  }

  symbols() {
    return this.column("symbol");
  }

  untilSymbols(wanted) {
    return this.until((symbols) => {
      const lines = [...document.querySelectorAll(".lines .line:not([hidden])")];
      lines.sort((a, b) => Number(a.getAttribute("aria-rowindex")) - Number(b.getAttribute("aria-rowindex")));
      return lines.map((line) => line.querySelector(".name")?.textContent).join() === symbols.join();
    }, wanted);
  }

  /** Field of the health strip. */
  health(field) {
    return this.text(`[data-field="${field}"] dd`);
  }

  untilHealth(field, holds) {
    return this.until(([name, source]) => {
      const text = document.querySelector(`[data-field="${name}"] dd`)?.textContent ?? "";
      return new RegExp(source).test(text);
    }, [field, holds.source]);
  }

  untilState(state) {
    return this.until((wanted) => document.body.dataset.state === wanted, state);
  }

  /** Screenshot, saved as a file too. */
  shot(name, options = {}) {
    return this.page.screenshot({ path: join(SCREENS, `${name}.png`), ...options });
  }

  /** Asserts that there are no errors except the allowed ones. */
  assertNoErrors(allowed = /(?!)/) {
    assert.deepEqual(this.errors.filter((error) => !allowed.test(error)), []);
    assert.deepEqual(this.foreignRequests, []);
  }
}

/** @type {import("playwright-core").Browser | null} */
let browser = null;
after(() => browser?.close());

/** Browser shared by all tests; each has its own context. */
async function sharedBrowser() {
  browser ??= await chromium.launch({ executablePath: CHROMIUM, args: [...BROWSER, "--enable-precise-memory-info"] });
  return browser;
}

/** Runs a test with a new page. */
export async function withBrowser(test, context = {}) {
  const made = await (await sharedBrowser()).newContext(context);
  try {
    await test(await made.newPage());
  } finally {
    await made.close();
  }
}

/** Runs a test with a server and its page, and stops both. */
export async function withScreen({ serverArguments = MARKET, query = "", allowedErrors, ...context } = {}, test) {
  const server = await Server.start(serverArguments);
  try {
    await withBrowser(async (page) => {
      const screen = new Screen(page, server);
      await screen.open(query);
      await test(screen, server);
      screen.assertNoErrors(allowedErrors);
    }, { viewport: { width: 1440, height: 900 }, colorScheme: "dark", ...context });
  } finally {
    await server.kill();
  }
}

/** Browser whose tabs can be hidden; the shared one always reports them as visible. Returns its first page and a function to close it. */
export async function browserWithHiddenTabs() {
  const profile = mkdtempSync(join(folder, "profile-"));
  const child = spawn(CHROMIUM, ["--headless", "--remote-debugging-port=0", `--user-data-dir=${profile}`, ...BROWSER, "about:blank"], { stdio: ["ignore", "ignore", "pipe"] });
  let stderr = "";
  let address;
  for await (const text of child.stderr) {
    stderr += text;
    address = /ws:\/\/\S+/.exec(stderr)?.[0];
    if (address) break;
  }
  assert.ok(address, `the browser ended: ${stderr}`);
  const hiding = await chromium.connectOverCDP(address, { noDefaults: true });
  const end = async () => {
    await hiding.close();
    if (child.exitCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  };
  return { context: hiding.contexts()[0], page: hiding.contexts()[0].pages()[0], end };
}
