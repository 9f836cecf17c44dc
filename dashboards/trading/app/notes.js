/** Notes on the watchlist, with actions. */

import { element } from "./format.js";

/** @typedef {{title: string, does: () => void}} Action */

const STAYS_MS = 8000;

/** Shows a text and its buttons in a place; nothing is touched while both stay the same. @param {HTMLElement} place @param {string} text @param {Action[]} actions */
export function show(place, text, actions) {
  const key = [text, ...actions.map(({ title }) => title)].join("\n");
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  place.hidden = text === "";
  place.replaceChildren(element("span", "", text), ...actions.map(({ title, does }) => {
    const button = element("button", "", title);
    button.setAttribute("type", "button");
    button.addEventListener("click", does);
    return button;
  }));
}

/** A note that disappears by itself; one at a time. */
export class Note {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.going = undefined;
    // It stays while somebody is about to use it; a pointer that has rested there since before it came isn't.
    for (const name of ["pointermove", "focusin"]) place.addEventListener(name, () => clearTimeout(this.going));
    for (const name of ["pointerleave", "focusout"]) place.addEventListener(name, () => this.#goesSoon());
  }

  /** @param {string} text @param {Action[]} [actions] each also ends the message */
  say(text, actions = []) {
    const ending = actions.map(({ title, does }) => ({ title, does: () => { this.clear(); does(); } }));
    this.place.dataset.shown = "";
    show(this.place, text, ending);
    this.#goesSoon();
  }

  #goesSoon() {
    clearTimeout(this.going);
    this.going = setTimeout(() => this.clear(), STAYS_MS);
  }

  clear() {
    clearTimeout(this.going);
    show(this.place, "", []);
  }
}
