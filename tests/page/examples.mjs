// The examples of README.md and docs/client.md run unchanged, except for the address.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { ROOT, Server, scratch, withBrowser } from "./harness.mjs";

/** Code blocks of a language that contain the feed's address. */
function examples(file, language) {
  const blocks = readFileSync(join(ROOT, file), "utf8").split("```").filter((_, at) => at % 2 === 1);
  const found = blocks.filter((block) => block.startsWith(`${language}\n`) && block.includes("tickcast.js")).map((block) => block.slice(language.length + 1));
  assert.ok(found.length > 0, `${file} has an example in ${language}`);
  return found;
}

const LINES = 30;

for (const file of ["README.md", "docs/client.md"]) {
  test(`${file}: the page of another origin runs unchanged`, async () => {
    const server = await Server.start();
    for (const example of examples(file, "html")) {
      const elsewhere = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(example.replaceAll("127.0.0.1:8080", server.address)));
      await once(elsewhere.listen(0, "127.0.0.1"), "listening");
      await withBrowser(async (page) => {
        const lines = [], wrong = [];
        page.on("pageerror", (error) => wrong.push(String(error)));
        const told = new Promise((done) => page.on("console", (message) => {
          (message.type() === "log" ? lines : wrong).push(message.text());
          // Browsers request an icon for a page without one.
          if (lines.length >= LINES || wrong.some((one) => !one.includes("favicon"))) done();
        }));
        await page.goto(`http://127.0.0.1:${elsewhere.address().port}/`);
        await told;
        assert.ok(lines.length >= LINES, wrong.join("; "));
        assert.ok(lines.some((line) => line.includes("BTC-USD")), lines.join("\n"));
      });
      elsewhere.close();
    }
    await server.kill();
  });
}

test("docs/client.md: the program runs in Node unchanged", async () => {
  const server = await Server.start();
  for (const example of examples("docs/client.md", "javascript")) {
    const file = scratch("client.mjs"), folder = dirname(file);
    writeFileSync(file, example.replaceAll("127.0.0.1:8080", server.address));
    writeFileSync(join(folder, "package.json"), '{"type": "module"}');
    mkdirSync(join(folder, "vendor"));
    symlinkSync(join(ROOT, "tests/.deps/node_modules"), join(folder, "node_modules"));
    for (const name of ["tickcast.js", "vendor/msgpack.js"]) writeFileSync(join(folder, name), await (await fetch(new URL(name, server.url))).text());
    const child = spawn(process.execPath, [file], { stdio: ["ignore", "pipe", "pipe"] });
    let out = "", errors = "";
    child.stderr.on("data", (text) => { errors += text; });
    for await (const text of child.stdout) {
      out += text;
      if (out.split("\n").length > LINES) break;
    }
    child.kill();
    assert.ok(out.split("\n").length > LINES && out.includes("BTC-USD"), `${out}\n${errors}`);
  }
  await server.kill();
});
