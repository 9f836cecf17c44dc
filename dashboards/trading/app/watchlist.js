/** The watchlist: a grid of which only the lines in view exist as elements, so that 500 symbols cost what 30 do. */

import { byId, decimal, element, kind, percent, short, write } from "./format.js";

/** @typedef {import("./market.js").Market} Market */
/** @typedef {import("./market.js").Row} Row */

const LINE_PX = 30;
const FLASH_MS = 350;
const SORT_EVERY_MS = 1000;
/** A line that changes more often than this is not read any better. */
const DRAW_EVERY_MS = 100;

/** @type {{id: string, title: string, sort: (row: Row) => number | string}[]} */
const COLUMNS = [
  { id: "symbol", title: "Symbol", sort: (row) => row.symbol },
  { id: "last", title: "Last", sort: (row) => Number(row.ticker?.last ?? NaN) },
  { id: "change", title: "Change", sort: (row) => Number(row.ticker?.chg ?? NaN) },
  { id: "bid", title: "Bid", sort: (row) => Number(row.quote?.bid ?? NaN) },
  { id: "ask", title: "Ask", sort: (row) => Number(row.quote?.ask ?? NaN) },
  { id: "spread", title: "Spread", sort: (row) => row.spread },
  { id: "volume", title: "Volume", sort: (row) => Number(row.ticker?.vol ?? NaN) },
  { id: "spark", title: "1 h", sort: (row) => (row.spark?.length ? Number(row.ticker?.last ?? NaN) / row.spark[0] : NaN) },
];

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
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.cells.spark.append(this.canvas);
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
  }

  /** @param {number} now @param {string} ink @param {string} up @param {string} down */
  draw(now, ink, up, down) {
    const { row } = this;
    if (!row) return;
    if (this.flash !== 0 && now - row.movedAt > FLASH_MS) this.#flash(0);
    if (row.version === this.seen || now - this.drawnAt < DRAW_EVERY_MS) return;
    this.seen = row.version;
    this.drawnAt = now;
    if (now - row.movedAt < FLASH_MS) this.#flash(row.move);
    const { ticker, quote, cells } = { ...row, cells: this.cells };
    write(this.name, row.symbol);
    write(this.mark, kind(row.src) ? kind(row.src).slice(0, 3).toUpperCase() : "");
    this.mark.title = kind(row.src) ? `${kind(row.src)} prices` : "";
    write(this.state, row.isLive ? "" : row.status?.state ?? "");
    this.element.classList.toggle("stale", !row.isLive);
    write(cells.last, decimal(ticker?.last));
    write(cells.change, percent(ticker?.chg));
    const change = Number(ticker?.chg ?? 0);
    cells.change.dataset.sign = change > 0 ? "up" : change < 0 ? "down" : "";
    write(cells.bid, decimal(quote?.bid));
    write(cells.ask, decimal(quote?.ask));
    write(cells.spread, Number.isNaN(row.spread) ? "–" : row.spread.toFixed(row.scale));
    write(cells.volume, short(ticker?.vol));
    this.#spark(row, ink, up, down);
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
  /** @param {Market} market @param {import("./prefs.js").Prefs} prefs @param {{chose: (symbol: string) => void, changed: () => void}} hears */
  constructor(market, prefs, hears) {
    this.market = market;
    this.prefs = prefs;
    this.hears = hears;
    /** @type {Row[]} in the order shown */
    this.order = [];
    this.filter = "";
    this.seen = -1;
    this.sortedAt = 0;
    this.grid = byId("grid");
    this.grid.setAttribute("aria-colcount", String(COLUMNS.length));
    this.#head();
    this.body = element("div", "lines");
    this.body.setAttribute("role", "rowgroup");
    this.grid.append(this.body);
    /** @type {Line[]} */
    this.lines = [];
    this.grid.addEventListener("click", ({ target }) => {
      const line = /** @type {HTMLElement} */ (target).closest(".line");
      if (line instanceof HTMLElement && line.dataset.symbol) this.hears.chose(line.dataset.symbol);
    });
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
    if (!next) return; // The last one stays: an empty screen helps nobody.
    this.market.remove(symbol);
    if (this.prefs.symbol === symbol) this.hears.chose(next.symbol);
    this.hears.changed();
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
    const all = this.market.rows.size;
    write(byId("watch-count"), this.order.length === all ? `${all} symbols` : `${this.order.length} of ${all}`);
    const note = byId("watch-note");
    write(note, this.market.note);
    note.hidden = this.market.note === "";
  }

  /** Brings the lines in view up to date. @param {number} now ms */
  frame(now) {
    const sortsByValue = this.prefs.sort.column !== "symbol";
    if (this.seen !== this.market.version || (sortsByValue && now - this.sortedAt > SORT_EVERY_MS)) this.#arrange(now);
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
      line.draw(now, this.ink?.ink ?? "", this.ink?.up ?? "", this.ink?.down ?? "");
    }
    if (active) this.grid.setAttribute("aria-activedescendant", active);
    else this.grid.removeAttribute("aria-activedescendant");
  }
}
