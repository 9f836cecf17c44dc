/** The watchlist: a grid of which only the lines in view exist as elements, so that 500 symbols cost what 30 do. */

import { byId, decimal, element, kind, moment, percent, short, sign, width, write } from "./format.js";
import { show } from "./notes.js";

/** @typedef {import("./market.js").Market} Market */
/** @typedef {import("./market.js").Row} Row */

const LINE_PX = 30;
const FLASH_MS = 350;
const SORT_EVERY_MS = 1000;
/** A line that changes more often than this is not read any better. */
const DRAW_EVERY_MS = 100;

/** While a finger has just touched the list its order stays, ms. */
const TOUCH_HOLDS_MS = 3000;

/** `needs`: the channel that a column's values are taken from, where rows out of view have to be asked for them.
 * @type {{id: string, title: string, needs?: "ticker" | "quote", sort: (row: Row) => number | string}[]} */
const COLUMNS = [
  { id: "symbol", title: "Symbol", sort: (row) => row.symbol },
  { id: "last", title: "Last", needs: "ticker", sort: (row) => Number(row.ticker?.last ?? NaN) },
  { id: "change", title: "Change", needs: "ticker", sort: (row) => row.change },
  { id: "bid", title: "Bid", needs: "quote", sort: (row) => Number(row.quote?.bid ?? NaN) },
  { id: "ask", title: "Ask", needs: "quote", sort: (row) => Number(row.quote?.ask ?? NaN) },
  { id: "spread", title: "Spread", needs: "quote", sort: (row) => row.spread },
  { id: "volume", title: "Volume", needs: "ticker", sort: (row) => Number(row.ticker?.vol ?? NaN) },
  { id: "spark", title: "1 h", needs: "ticker", sort: (row) => row.hour },
];

/** How a row says what kind of source it has. */
const MARKS = /** @type {Record<string, string>} */ ({ sim: "SIM", replay: "REPLAY", push: "PUSH" });
/** What style.css gives each column at least, px. */
const LEAST = { last: 78, change: 66, bid: 76, ask: 76, spread: 60, volume: 58 };

/** The columns' widths: as wide as the widest text that was in them, so that nothing is cut, and never narrower again, so that nothing jumps. */
class Widths {
  constructor() {
    /** @type {Map<string, number>} */
    this.known = new Map(Object.entries(LEAST));
    const { fontFamily } = getComputedStyle(document.body);
    this.fonts = { normal: `13px ${fontFamily}`, bold: `600 13px ${fontFamily}`, mark: `600 10px ${fontFamily}`, state: `600 11px ${fontFamily}` };
  }

  /** The column of names has room for the longest name, up to a bound that depends on the window, and the badges behind it.
   * @param {number} name px @param {number} badges px */
  takeName(name, badges) {
    for (const [part, px] of /** @type {const} */ ([["name", name], ["badges", badges]])) {
      if (px > (this.known.get(part) ?? 0)) document.documentElement.style.setProperty(`--w-${part}`, `${px}px`);
      this.known.set(part, Math.max(px, this.known.get(part) ?? 0));
    }
  }

  /** @param {string} column @param {number} px of its text */
  take(column, px) {
    const needed = px + 14; // The cell's padding, and two pixels for rounding.
    if (needed <= (this.known.get(column) ?? 0)) return;
    this.known.set(column, needed);
    document.documentElement.style.setProperty(`--w-${column}`, `${needed}px`);
  }
}

/** One line on the screen, whichever row it shows. */
class Line {
  /** @param {HTMLElement} parent @param {number} index */
  constructor(parent, index) {
    this.index = index;
    /** @type {Row | null} */
    this.row = null;
    this.seen = -1;
    this.drawnAt = 0;
    this.flash = 0;
    this.element = element("div", "line");
    this.element.hidden = true;
    this.element.setAttribute("role", "row");
    this.element.id = `line-${index}`;
    /** @type {Record<string, HTMLElement>} */
    this.cells = {};
    for (const { id } of COLUMNS) {
      const cell = element("div", `cell ${id}`);
      cell.setAttribute("role", id === "symbol" ? "rowheader" : "gridcell");
      this.cells[id] = cell;
      this.element.append(cell);
    }
    this.name = element("span", "name");
    this.mark = element("span", "mark");
    this.state = element("span", "state");
    this.cells.symbol.append(this.name, this.mark, this.state);
    this.remove = element("button", "remove", "✕");
    this.remove.setAttribute("type", "button");
    this.remove.tabIndex = -1; // By keys: Delete.
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.cells.spark.append(this.canvas, this.remove);
    this.sparkDrawn = "";
    this.shown = "";
    parent.append(this.element);
  }

  /** @param {Row | null} row @param {number} place @param {boolean} isChosen */
  show(row, place, isChosen) {
    const shown = row === null ? "" : `${row.symbol} ${place} ${isChosen}`;
    if (shown === this.shown && row === this.row) return;
    this.shown = shown;
    if (row !== this.row) {
      this.row = row;
      this.seen = -1;
      this.drawnAt = 0;
      this.flash = 0;
      this.sparkDrawn = "";
      this.element.hidden = row === null;
    }
    if (!row) return;
    this.element.style.transform = `translateY(${place * LINE_PX}px)`;
    this.element.setAttribute("aria-rowindex", String(place + 2));
    this.element.setAttribute("aria-selected", String(isChosen));
    this.element.dataset.symbol = row.symbol;
    this.remove.setAttribute("aria-label", `Remove ${row.symbol}`);
    this.remove.title = `Remove ${row.symbol}`;
  }

  /** @param {number} now @param {Widths} widths @param {string} ink @param {string} up @param {string} down */
  draw(now, widths, ink, up, down) {
    const { row } = this;
    if (!row) return;
    if (this.flash !== 0 && now - row.movedAt > FLASH_MS) this.#flash(0);
    if (row.version === this.seen || now - this.drawnAt < DRAW_EVERY_MS) return;
    this.seen = row.version;
    this.drawnAt = now;
    if (now - row.movedAt < FLASH_MS) this.#flash(row.move);
    const { ticker, quote, cells } = { ...row, cells: this.cells };
    this.#name(row, widths);
    const texts = {
      last: decimal(ticker?.last), change: percent(row.change), bid: decimal(quote?.bid), ask: decimal(quote?.ask),
      spread: Number.isNaN(row.spread) ? "–" : decimal(row.spread.toFixed(row.scale)), volume: short(ticker?.vol),
    };
    for (const [id, text] of Object.entries(texts)) {
      write(cells[id], text);
      widths.take(id, width(text, id === "last" ? widths.fonts.bold : widths.fonts.normal));
    }
    cells.change.dataset.sign = sign(row.change);
    this.#spark(row, ink, up, down);
  }

  /** The symbol, its kind and its state. @param {Row} row @param {Widths} widths */
  #name(row, widths) {
    const mark = MARKS[row.src ?? ""] ?? "", state = row.isLive ? "" : row.status?.state ?? "";
    write(this.name, row.symbol);
    this.name.title = row.symbol;
    write(this.mark, mark);
    this.mark.title = mark && `${kind(row.src)} prices`;
    write(this.state, state);
    this.element.title = row.isLive || !row.ticker ? "" : `${state}, as of ${moment(row.ticker.ts)} UTC`;
    this.element.classList.toggle("stale", !row.isLive);
    // Subscribed just now: what stands there is from the last time it was in view.
    this.element.classList.toggle("waiting", !row.isHeld && row.ticker !== null);
    const { bold, mark: markFont, state: stateFont } = widths.fonts;
    widths.takeName(width(row.symbol, bold) + 2, (mark ? width(mark, markFont) + 15 : 0) + (state ? width(state.toUpperCase(), stateFont) + 7 : 0));
  }

  /** @param {number} flash 1: up, −1: down, 0: over */
  #flash(flash) {
    if (flash === this.flash) return;
    this.flash = flash;
    this.cells.last.dataset.flash = flash > 0 ? "up" : flash < 0 ? "down" : "";
  }

  /** @param {Row} row @param {string} ink @param {string} up @param {string} down */
  #spark(row, ink, up, down) {
    const points = row.spark;
    if (!points || points.length < 2) return;
    const key = `${row.symbol} ${points.length} ${points[0]} ${points.at(-1)} ${ink}`;
    if (key === this.sparkDrawn) return;
    this.sparkDrawn = key;
    const { canvas } = this, ratio = devicePixelRatio;
    const width = 72, height = 20;
    if (canvas.width !== width * ratio) [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    let low = Infinity, high = -Infinity;
    for (const point of points) {
      if (point < low) low = point;
      if (point > high) high = point;
    }
    const y = (/** @type {number} */ point) => 2 + (height - 4) * (high === low ? 0.5 : (high - point) / (high - low));
    pen.beginPath();
    points.forEach((point, at) => pen.lineTo(1 + (width - 2) * at / (points.length - 1), y(point)));
    pen.lineWidth = 1.25;
    pen.strokeStyle = points[points.length - 1] >= points[0] ? up : down;
    pen.stroke();
  }
}

export class Watchlist {
  /** @param {Market} market @param {import("./prefs.js").Prefs} prefs
   * @param {{chose: (symbol: string) => void, changed: () => void, removed: (symbol: string, before: string[] | null) => void, filter: (text: string) => void}} hears */
  constructor(market, prefs, hears) {
    this.market = market;
    this.prefs = prefs;
    this.hears = hears;
    /** @type {Row[]} in the order shown */
    this.order = [];
    this.filter = "";
    this.seen = -1;
    this.sortedAt = 0;
    this.widths = new Widths();
    /** Whether a mouse is over the rows: their order then stays, so that nobody clicks what was another row a moment ago. */
    this.isPointed = false;
    this.touchedAt = -Infinity;
    this.grid = byId("grid");
    this.grid.setAttribute("aria-colcount", String(COLUMNS.length));
    this.#head();
    this.body = element("div", "lines");
    this.body.setAttribute("role", "rowgroup");
    this.grid.append(this.body);
    this.empty = byId("watch-empty");
    /** @type {Line[]} */
    this.lines = [];
    this.grid.addEventListener("click", ({ target }) => {
      const line = /** @type {HTMLElement} */ (target).closest(".line");
      if (!(line instanceof HTMLElement) || !line.dataset.symbol) return;
      if (/** @type {HTMLElement} */ (target).closest(".remove")) this.remove(line.dataset.symbol);
      else this.hears.chose(line.dataset.symbol);
    });
    this.body.addEventListener("pointerover", ({ pointerType }) => { if (pointerType === "mouse") this.isPointed = true; });
    this.body.addEventListener("pointerleave", () => { this.isPointed = false; });
    this.body.addEventListener("pointerdown", () => { this.touchedAt = performance.now(); });
    this.grid.addEventListener("keydown", (key) => this.#key(key));
    this.inks();
  }

  /** Reads the theme's colours for what is drawn. */
  inks() {
    const style = getComputedStyle(document.documentElement);
    const ink = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    this.ink = { ink: ink("--ink"), up: ink("--up"), down: ink("--down") };
    for (const line of this.lines) line.seen = -1;
  }

  #head() {
    const group = element("div", "head");
    group.setAttribute("role", "rowgroup");
    const head = element("div", "line");
    head.setAttribute("role", "row");
    head.setAttribute("aria-rowindex", "1");
    this.heads = COLUMNS.map(({ id, title }) => {
      const cell = element("div", `cell ${id}`);
      cell.setAttribute("role", "columnheader");
      const button = element("button", "", title);
      button.setAttribute("type", "button");
      button.addEventListener("click", () => this.sortBy(id));
      cell.append(button);
      head.append(cell);
      return { id, cell };
    });
    group.append(head);
    this.grid.append(group);
  }

  /** @param {string} column again: the other way round */
  sortBy(column) {
    const { sort } = this.prefs;
    const descending = sort.column === column ? !sort.descending : column !== "symbol";
    this.prefs.sort = { column, descending };
    this.seen = -1;
    this.hears.changed();
  }

  /** @param {string} text */
  filterBy(text) {
    this.filter = text.trim().toLowerCase();
    this.seen = -1;
  }

  /** @param {KeyboardEvent} key */
  #key(key) {
    if (key.ctrlKey || key.metaKey || key.altKey || /** @type {HTMLElement} */ (key.target).closest("button")) return;
    const at = this.order.findIndex(({ symbol }) => symbol === this.prefs.symbol);
    const page = Math.max(1, Math.floor(this.grid.clientHeight / LINE_PX) - 2);
    const last = this.order.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), PageDown: at + page, PageUp: Math.max(0, at - page), Home: 0, End: last }[key.key];
    if (to !== undefined && last >= 0) {
      key.preventDefault();
      this.#choose(Math.min(last, to));
    } else if (key.key === "Delete" && at >= 0) {
      key.preventDefault();
      this.remove(this.order[at].symbol);
    }
  }

  /** Removes a symbol and chooses its neighbour. @param {string} symbol */
  remove(symbol) {
    const at = this.order.findIndex((row) => row.symbol === symbol);
    const next = this.order[at + 1] ?? this.order[at - 1];
    const before = this.market.wanted;
    if (at < 0 || this.market.rows.size < 2) return; // The last one stays: an empty screen helps nobody.
    this.market.remove(symbol);
    if (this.prefs.symbol === symbol && next) this.hears.chose(next.symbol);
    this.hears.changed();
    this.hears.removed(symbol, before);
  }

  /** @param {number} place */
  #choose(place) {
    this.hears.chose(this.order[place].symbol);
    const top = place * LINE_PX, visible = this.grid.clientHeight - LINE_PX;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + LINE_PX > this.grid.scrollTop + visible) this.grid.scrollTop = top + LINE_PX - visible;
  }

  /** @param {number} now ms */
  #arrange(now) {
    const { sort } = this.prefs;
    const key = (COLUMNS.find(({ id }) => id === sort.column) ?? COLUMNS[0]).sort;
    const sign = sort.descending ? -1 : 1;
    const matches = (/** @type {Row} */ { symbol, instrument }) =>
      this.filter === "" || symbol.toLowerCase().includes(this.filter) || (instrument?.description ?? "").toLowerCase().includes(this.filter);
    const keyed = [...this.market.rows.values()].filter(matches).map((row) => ({ row, key: key(row) }));
    keyed.sort((a, b) => {
      // What has no value yet stands last, whichever way.
      const lacks = Number(Number.isNaN(a.key)) - Number(Number.isNaN(b.key));
      if (lacks !== 0) return lacks;
      return a.key < b.key ? -sign : a.key > b.key ? sign : a.row.symbol < b.row.symbol ? -1 : 1;
    });
    this.order = keyed.map(({ row }) => row);
    this.seen = this.market.version;
    this.sortedAt = now;
    this.body.style.height = `${this.order.length * LINE_PX}px`;
    this.grid.setAttribute("aria-rowcount", String(this.order.length + 1));
    for (const { id, cell } of this.heads ?? []) {
      cell.setAttribute("aria-sort", id !== sort.column ? "none" : sort.descending ? "descending" : "ascending");
    }
    this.#tell();
  }

  /** How many there are, and what to do where there is none. */
  #tell() {
    const { market } = this, all = market.rows.size;
    write(byId("watch-count"), this.order.length === all ? `${all} symbols` : `${this.order.length} of ${all}`);
    const isFiltered = this.order.length === 0 && all > 0;
    show(this.empty, isFiltered ? `No symbol matches “${this.filter}”.` : "", isFiltered ? [{ title: "Clear filter", does: () => this.hears.filter("") }] : []);
  }

  /** Sorted by a value, rows change places now and then, but not under a pointer. @param {number} now ms */
  #resorts(now) {
    const { sort } = this.prefs, needs = COLUMNS.find(({ id }) => id === sort.column)?.needs;
    if (!needs) return false;
    if (sort.column === "spark") for (const row of this.market.rows.values()) this.market.wantSpark(row);
    this.market.freshen(needs, now);
    const isHeld = this.isPointed || now - this.touchedAt < TOUCH_HOLDS_MS;
    const note = byId("watch-order");
    note.hidden = !isHeld;
    return !isHeld && now - this.sortedAt > SORT_EVERY_MS;
  }

  /** Brings the lines in view up to date. @param {number} now ms */
  frame(now) {
    const resorts = this.#resorts(now);
    if (this.seen !== this.market.version || resorts) this.#arrange(now);
    const first = Math.max(0, Math.floor(this.grid.scrollTop / LINE_PX) - 1);
    const needed = Math.ceil(this.grid.clientHeight / LINE_PX) + 2;
    while (this.lines.length < needed) this.lines.push(new Line(this.body, this.lines.length));
    let active = "";
    for (const line of this.lines) {
      // A line keeps its place modulo their number, so that scrolling moves few.
      const turn = this.lines.length;
      const place = first + ((line.index - first) % turn + turn) % turn;
      const row = this.order[place] ?? null;
      const isChosen = row !== null && row.symbol === this.prefs.symbol;
      line.show(row, place, isChosen);
      if (isChosen) active = line.element.id;
      if (row) this.market.wantSpark(row);
      line.draw(now, this.widths, this.ink?.ink ?? "", this.ink?.up ?? "", this.ink?.down ?? "");
    }
    this.market.look(this.order, first, Math.min(this.order.length, first + needed), this.prefs.symbol, now);
    if (active) this.grid.setAttribute("aria-activedescendant", active);
    else this.grid.removeAttribute("aria-activedescendant");
  }
}
