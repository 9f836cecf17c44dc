/** Numbers and times as a trader reads them. Prices stay the strings they came as. */

const compact = new Intl.NumberFormat("en", { notation: "compact", minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const grouped = new Intl.NumberFormat("en");

/** A decimal string with its digits grouped: 64,250.10. @param {string | null | undefined} text */
export function decimal(text) {
  if (text === null || text === undefined) return "–";
  const point = text.indexOf(".");
  const whole = point < 0 ? text : text.slice(0, point);
  const digits = whole.replace("-", "");
  if (digits.length < 4) return text.replace("-", "−");
  return text.slice(0, whole.length - digits.length).replace("-", "−") + digits.replace(/\B(?=(\d{3})+$)/g, ",") + (point < 0 ? "" : text.slice(point));
}

/** 1.23M. @param {string | number | null | undefined} value */
export const short = (value) => (value === null || value === undefined ? "–" : compact.format(Number(value)));

/** 12,345. @param {number} value */
export const count = (value) => grouped.format(value);

/** A fraction as a signed percentage. @param {string | undefined} fraction */
export function percent(fraction) {
  if (fraction === undefined) return "–";
  const value = Number(fraction) * 100;
  const text = Math.abs(value).toFixed(2);
  return text === "0.00" ? text + "%" : `${value < 0 ? "−" : "+"}${text}%`;
}

/** @param {number | null} ms */
export function latency(ms) {
  if (ms === null) return "–";
  return ms < 1 ? `${(ms * 1000).toFixed(0)} µs` : ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(0)} s`;
}

/** @param {number} n */
export const bytes = (n) => (n < 1024 ? `${n} B` : n < 1048576 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / 1048576).toFixed(1)} MiB`);

/** UTC, to the millisecond. @param {number} ns */
export const time = (ns) => new Date(ns / 1e6).toISOString().slice(11, 23);

/** How prices of a kind of source are marked, always. @param {string | undefined} src */
export const kind = (src) => ({ sim: "Simulated", replay: "Replayed", push: "Pushed", live: "" })[src ?? ""] ?? "";

/** Makes an element. @param {string} tag @param {string} [className] @param {string} [text] */
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Writes only what changed. @param {Element} place @param {string} text */
export function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** The element of that id, which the page has. @param {string} id @returns {HTMLElement} */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
