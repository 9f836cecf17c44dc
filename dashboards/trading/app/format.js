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

/** How far a price went from another, as a fraction of that one's size: up is positive, also below zero.
 * @param {string | undefined} now @param {string | number | undefined} before @returns {number} NaN where there is none */
export function change(now, before) {
  const from = Number(before);
  return now === undefined || from === 0 ? NaN : (Number(now) - from) / Math.abs(from);
}

/** A fraction as a signed percentage. @param {number} fraction */
export function percent(fraction) {
  if (!Number.isFinite(fraction)) return "–";
  const text = Math.abs(fraction * 100).toFixed(2);
  return text === "0.00" ? text + "%" : `${fraction < 0 ? "−" : "+"}${text}%`;
}

/** The sign of a number, for its colour. @param {number} value */
export const sign = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");

/** @param {number | null} ms */
export function latency(ms) {
  if (ms === null) return "–";
  return ms < 1 ? `${(ms * 1000).toFixed(0)} µs` : ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(0)} s`;
}

/** @param {number} n */
export const bytes = (n) => (n < 1024 ? `${n} B` : n < 1048576 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / 1048576).toFixed(1)} MiB`);

/** UTC, to the millisecond. @param {number} ns */
export const time = (ns) => new Date(ns / 1e6).toISOString().slice(11, 23);

/** UTC, to the second, with the date where it isn't today. @param {number} ns */
export function moment(ns) {
  const text = new Date(ns / 1e6).toISOString();
  return (text.slice(0, 10) === new Date().toISOString().slice(0, 10) ? "" : `${text.slice(0, 10)} `) + text.slice(11, 19);
}

/** 4 s, 2 min. @param {number} ms */
export const duration = (ms) => (ms < 120_000 ? `${Math.max(0, Math.ceil(ms / 1000))} s` : `${Math.round(ms / 60_000)} min`);

const pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
/** @type {Map<string, number>} */
const widths = new Map();

/** The width of a text, px, whichever its digits: figures are tabular. @param {string} text @param {string} font as in CSS */
export function width(text, font) {
  const shape = `${font}|${text.replace(/\d/g, "0")}`;
  let known = widths.get(shape);
  if (known === undefined) {
    pen.font = font;
    known = Math.ceil(pen.measureText(shape.slice(font.length + 1)).width);
    if (widths.size > 5000) widths.clear();
    widths.set(shape, known);
  }
  return known;
}

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
