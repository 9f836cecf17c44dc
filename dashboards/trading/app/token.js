/** The token of a server with authentication: asked for in a dialog, and remembered until the tab is closed. */

import { byId, write } from "./format.js";

/** @typedef {import("../tickcast.js").Feed} Feed */

const KEY = "tickcast.token";
/** Codes after which another token may help: none, wrong or ended, not in time. */
const CODES = [401, 402, 404];

let held = "";

/** The token that was entered in this tab; "": none. */
export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? held;
  } catch {
    return held; // The browser keeps nothing for this page.
  }
}

/** @param {string} text "": forgets it */
function keep(text) {
  held = text;
  try {
    if (text === "") sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, text);
  } catch {
    // It is held until the page is closed.
  }
}

/** Asks for a token whenever the server refuses the one of the page, or the lack of one. @param {Feed} feed */
export function askForToken(feed) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("token"));
  const input = /** @type {HTMLInputElement} */ (byId("token-text"));
  feed.on("state", ({ state, reason, code }) => {
    if (state !== "closed" || code === null || !CODES.includes(code)) return;
    write(byId("token-reason"), `${reason[0].toUpperCase()}${reason.slice(1)}.`);
    keep("");
    input.value = "";
    if (!dialog.open) dialog.showModal();
    input.focus();
  });
  byId("token-cancel").addEventListener("click", () => dialog.close("cancel"));
  dialog.addEventListener("cancel", () => { dialog.returnValue = "cancel"; });
  dialog.addEventListener("close", () => {
    const text = input.value.trim();
    input.value = "";
    if (dialog.returnValue !== "connect" || text === "") return;
    keep(text);
    feed.retry();
  });
}
