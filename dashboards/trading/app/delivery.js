/** The delivery panel: delivery mode and counts of each subscription, an event log, and the slow-consumer simulation. */

import { byId, bytes, count, element, write } from "./format.js";
import { delivery } from "./market.js";
import { MODES } from "./prefs.js";
import { canSlowDown, readAtMost } from "./socket.js";

/** @typedef {import("../tickcast.js").Feed} Feed */
/** @typedef {import("../tickcast.js").Subscription} Subscription */
/** @typedef {import("./prefs.js").Prefs} Prefs */
/** @typedef {import("./prefs.js").ModeName} ModeName */

const TITLES = { raw: "Raw", conflate: "Conflated", "100ms": "100 ms" };
/** Share of the incoming rate that is read while slow; the rate is measured first, with everything subscribed. */
const SLOW_SHARE = 0.25;
const MEASURE_MS = 1000;
/** Topics subscribed while slow, so that even a quiet market exceeds what a slow consumer reads. */
const EVERYTHING = ["quote:*", "ticker:*", "bar:*:1s", "bar:*:1m", "bar:*:5m", "bar:*:1h", "bar:*:1d"];
const EVENT_LOG_LINES_MAX = 50;

/** A radio group, operated by mouse and arrow keys. @template {string} T @param {HTMLElement} place a radiogroup @param {readonly T[]} values
 * @param {(value: T) => string} title @param {T} chosen @param {(value: T) => void} chose */
export function choice(place, values, title, chosen, chose) {
  const buttons = values.map((value) => {
    const button = element("button", "", title(value));
    button.setAttribute("type", "button");
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => take(value));
    place.append(button);
    return button;
  });
  const mark = (/** @type {T} */ value) => values.forEach((one, at) => {
    buttons[at].setAttribute("aria-checked", String(one === value));
    buttons[at].tabIndex = one === value ? 0 : -1;
  });
  const take = (/** @type {T} */ value) => {
    mark(value);
    chose(value);
  };
  place.addEventListener("keydown", (key) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[key.key];
    if (step === undefined) return;
    key.preventDefault();
    key.stopPropagation();
    const at = (buttons.indexOf(/** @type {HTMLElement} */ (key.target)) + step + values.length) % values.length;
    buttons[at].focus();
    take(values[at]);
  });
  mark(chosen);
  return mark;
}

export class DeliveryPanel {
  /** @param {Feed} feed @param {Prefs} prefs @param {{name: string, key: keyof Prefs["modes"] | null, fixed?: string, subscription: () => Subscription | null | undefined}[]} subscriptions
   * @param {() => void} changed */
  constructor(feed, prefs, subscriptions, changed) {
    this.feed = feed;
    this.panel = byId("delivery");
    this.toggle = byId("delivery-toggle");
    this.isSlow = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.slowing = undefined;
    /** @type {Subscription | null} */
    this.everything = null;
    const table = byId("subscriptions");
    const head = element("tr");
    for (const title of ["Subscription", "Delivery", "Topics", "Delivered", "Merged", "Lost"]) head.append(element("th", "", title));
    table.append(head);
    this.lines = subscriptions.map(({ name, key, fixed = "", subscription }) => {
      const line = element("tr"), mode = element("td"), title = element("th", "", name);
      title.setAttribute("scope", "row");
      const numbers = [0, 1, 2, 3].map(() => element("td", "number", "0"));
      if (key) {
        const group = element("div", "choice");
        group.setAttribute("role", "radiogroup");
        group.setAttribute("aria-label", `Delivery mode of ${name}`);
        choice(group, MODES, (one) => TITLES[one], prefs.modes[key], (/** @type {ModeName} */ chosen) => {
          prefs.modes[key] = chosen;
          subscription()?.modify(delivery(chosen));
          changed();
        });
        mode.append(group);
      } else {
        mode.textContent = fixed;
      }
      line.append(title, mode, ...numbers);
      table.append(line);
      return { subscription, numbers };
    });
    this.toggle.addEventListener("click", () => this.open(this.panel.hidden));
    byId("delivery-close").addEventListener("click", () => {
      this.open(false);
      this.toggle.focus();
    });
    const button = /** @type {HTMLButtonElement} */ (byId("slow"));
    button.disabled = !canSlowDown;
    if (!canSlowDown) button.title = "Requires HTTPS or loopback: elsewhere browsers do not allow a worker to block.";
    button.addEventListener("click", () => this.slow(!this.isSlow));
    feed.on("lag", ({ level, queued_bytes: queued, behind_ms: behind }) =>
      this.say(`lag ${level}`, level === "ok" ? "caught up" : `${bytes(queued)} queued, ${(behind / 1000).toFixed(1)} s behind`));
    feed.on("state", ({ state, reason }) => { if (state !== "connecting") this.say(state, reason); });
    feed.on("source", ({ name, state }) => this.say(`source ${name}`, state));
  }

  /** @param {boolean} isOpen */
  open(isOpen) {
    this.panel.hidden = !isOpen;
    this.toggle.setAttribute("aria-expanded", String(isOpen));
  }

  /** @param {boolean} isSlow */
  slow(isSlow) {
    if (!canSlowDown || isSlow === this.isSlow) return;
    this.isSlow = isSlow;
    this.feed.isPatient = isSlow;
    byId("slow").setAttribute("aria-checked", String(isSlow));
    document.body.classList.toggle("slowed", isSlow);
    clearTimeout(this.slowing);
    if (isSlow) {
      const before = this.feed.counts.bytes;
      this.everything = this.feed.subscribe(EVERYTHING, { mode: "raw", onSlow: "conflate", snapshot: false });
      this.slowing = setTimeout(() => this.#throttle((this.feed.counts.bytes - before) * 1000 / MEASURE_MS), MEASURE_MS);
    } else {
      this.everything?.close();
      readAtMost(0);
      this.say("throttling off", "reading at full speed");
    }
  }

  /** @param {number} incoming bytes a second */
  #throttle(incoming) {
    const rate = Math.max(1024, Math.round(incoming * SLOW_SHARE));
    readAtMost(rate);
    this.say("throttling on", `reading ${bytes(rate)}/s of ${bytes(Math.round(incoming))}/s`);
  }

  /** @param {string} what @param {string} how */
  say(what, how) {
    const list = byId("event_log"), line = element("li");
    line.append(element("time", "", new Date().toISOString().slice(11, 19)), element("strong", "", what), element("span", "", how));
    list.prepend(line);
    while (list.children.length > EVENT_LOG_LINES_MAX) list.lastElementChild?.remove();
  }

  /** Updates the counts; called periodically. */
  refresh() {
    if (this.panel.hidden) return;
    for (const { subscription, numbers } of this.lines) {
      const held = subscription();
      const { delivered, merged, lost } = held?.counts ?? { delivered: 0, merged: 0, lost: 0 };
      [held?.topics.length ?? 0, delivered, merged, lost].forEach((number, at) => write(numbers[at], count(number)));
    }
  }
}
