// Accessibility of the screen, checked with axe.

import { readFileSync } from "node:fs";
import { ROOT } from "./harness.mjs";

const AXE = readFileSync(`${ROOT}/tests/.deps/node_modules/axe-core/axe.min.js`, "utf8");

/** Violations of WCAG 2.2 A and AA and of good practice, as axe reports them. */
export async function violations(screen) {
  await screen.ask(AXE);
  return screen.ask(async () => {
    const { violations: found } = await window.axe.run(document, { resultTypes: ["violations"] });
    return found.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary.split("\n")[1] ?? ""}`).join(" | ")}`);
  });
}
