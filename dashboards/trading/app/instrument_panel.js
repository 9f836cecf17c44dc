/** The selected instrument: chart, session figures, best bid and offer, time and sales. */

import { byId, decimal, element, kind, moment, percent, short, sign, time, width, write } from "./format.js";
import { delivery } from "./market.js";

/** @typedef {import("../tickcast.js").Feed} Feed */
/** @typedef {import("../tickcast.js").MarketEvent} MarketEvent */
/** @typedef {import("./prefs.js").Prefs} Prefs */
/** @typedef {import("./market.js").Market} Market */

const TRADES_KEPT = 60;
/** Redraw interval; trades that arrive in between are all shown. */
const DRAW_EVERY_MS = 50;
const HISTORY = 500;
const LOAD_AGAIN_MS = 2000;

/** Space between the texts of a line, px: paddings, gaps, a scroll bar. */
const TAPE_APART_PX = 64;
const SIDE_APART_PX = 92;
const { fontFamily } = getComputedStyle(document.body);
const TEXT_FONT = `13px ${fontFamily}`, FIGURE_FONT = `600 13px ${fontFamily}`, PRICE_FONT = `700 16px ${fontFamily}`;

export class InstrumentPanel {
  /** @param {Feed} feed @param {Market} market @param {Prefs} prefs */
  constructor(feed, market, prefs) {
    this.feed = feed;
    this.market = market;
    this.prefs = prefs;
    /** The chart's library is most of the page, so it comes after the first prices. @type {import("./chart.js").Chart | null} */
    this.chart = null;
    this.isLoading = false;
    this.symbol = "";
    this.seen = -1;
    /** The decimals of the chart's prices. */
    this.scale = 2;
    /** @type {import("../tickcast.js").Bars | null} */
    this.bars = null;
    /** @type {import("../tickcast.js").Subscription | null} */
    this.tape = null;
    /** Newest first. @type {(MarketEvent | string)[]} */
    this.trades = [];
    /** Number of trades not yet drawn. */
    this.newTrades = 0;
    this.drawnAt = 0;
    /** True while the feed is current; stale figures are dimmed and dated. */
    this.isCurrent = true;
    this.dated = "";
    /** Widest texts so far, px; the layout reserves room for them. */
    this.widest = { side: 0, figure: 0 };
    this.#frame();
  }

  #frame() {
    this.figures = Object.fromEntries(["Last", "Change", "Open", "High", "Low", "VWAP", "Volume", "Trades"].map((title) => {
      const pair = element("div"), value = element("dd", "", "–");
      pair.append(element("dt", "", title), value);
      byId("session").append(pair);
      return [title, value];
    }));
    this.bbo = Object.fromEntries(["bid", "ask"].map((side) => {
      const box = element("div", `side ${side}`), price = element("strong", "", "–"), size = element("span", "size", "–"), bar = element("i");
      box.append(element("span", "label", side === "bid" ? "Bid" : "Ask"), price, size, bar);
      byId("bbo").append(box);
      return [side, { price, size, bar }];
    }));
    this.between = element("p", "muted between", "–");
    byId("bbo").append(this.between);
    const table = element("table"), head = element("thead"), titles = element("tr");
    for (const title of ["Time", "Price", "Size"]) {
      const cell = element("th", "", title);
      cell.setAttribute("scope", "col");
      titles.append(cell);
    }
    head.append(titles);
    this.lines = element("tbody");
    table.append(head, this.lines);
    byId("trades").append(table);
  }

  /** Chooses a symbol, or the interval anew. @param {string} symbol */
  choose(symbol) {
    const isOther = symbol !== this.symbol;
    this.symbol = symbol;
    this.seen = -1;
    const { interval, modes } = this.prefs;
    this.scale = this.market.rows.get(symbol)?.scale ?? 2;
    this.chart?.clear(symbol, interval, this.scale);
    this.bars?.close();
    this.bars = this.feed.bars(symbol, interval, { history: HISTORY, ...delivery(modes.bars) }, (change) => this.chart?.take(change));
    if (!isOther) return;
    this.widest = { side: 0, figure: 0 };
    this.#replace([]);
    this.tape?.close();
    this.tape = this.feed.subscribe([`trade:${symbol}`], { snapshot: 50 }, {
      event: (trade) => this.#print(trade),
      snapshot: ({ events }) => this.#replace(events.slice().reverse()),
      gap: ({ n, cause }) => this.#print(n > 0 ? `${n} trades lost (${cause})` : "trades missing at the source"),
    });
    write(byId("symbol"), symbol);
    document.title = `${symbol} · tickcast`;
  }

  async #load() {
    this.isLoading = true;
    const loaded = await import("./chart.js").catch(() => null);
    if (loaded === null) {
      // The server went away just then.
      setTimeout(() => { this.isLoading = false; }, LOAD_AGAIN_MS);
      return;
    }
    this.chart = new loaded.Chart();
    this.chart.clear(this.symbol, this.prefs.interval, this.scale);
    if (this.bars) this.chart.take({ bars: this.bars.list, bar: null });
  }

  /** @param {MarketEvent | string} trade */
  #print(trade) {
    this.trades.unshift(trade);
    if (this.trades.length > TRADES_KEPT) this.trades.length = TRADES_KEPT;
    this.newTrades = Math.min(this.newTrades + 1, this.trades.length);
  }

  /** @param {MarketEvent[]} trades newest first */
  #replace(trades) {
    this.trades = trades;
    this.newTrades = trades.length;
    /** @type {HTMLElement} */ (this.lines).replaceChildren();
  }

  /** @param {number} now ms */
  frame(now) {
    if (now - this.drawnAt < DRAW_EVERY_MS) return;
    this.drawnAt = now;
    if (!this.isLoading && this.market.rows.get(this.symbol)?.ticker) this.#load();
    this.chart?.frame();
    if (this.newTrades > 0) this.#drawTrades();
    const row = this.market.rows.get(this.symbol);
    if (row) this.#date(row);
    if (!row || row.version === this.seen) return;
    this.seen = row.version;
    if (row.scale !== this.scale) this.chart?.rescale(this.scale = row.scale);
    const { ticker, quote } = row, { figures } = this;
    write(byId("description"), row.instrument?.description ?? "");
    const mark = kind(row.src);
    byId("symbol-kind").hidden = mark === "" && row.isLive;
    write(byId("symbol-kind"), row.isLive ? mark : `${mark} · ${row.status?.state}`.replace(/^ · /, ""));
    write(byId("watermark"), mark && `${mark} prices`);
    if (!figures || !this.bbo) return;
    write(figures.Last, decimal(ticker?.last));
    write(figures.Change, percent(row.change));
    figures.Change.dataset.sign = sign(row.change);
    write(figures.Open, decimal(ticker?.open));
    write(figures.High, decimal(ticker?.high));
    write(figures.Low, decimal(ticker?.low));
    write(figures.VWAP, ticker?.vwap === undefined ? "–" : decimal(Number(ticker.vwap).toFixed(row.scale)));
    write(figures.Volume, short(ticker?.vol));
    write(figures.Trades, ticker?.n?.toLocaleString("en") ?? "–");
    const sizes = [Number(quote?.bidq ?? 0), Number(quote?.askq ?? 0)], most = Math.max(...sizes) || 1;
    for (const [at, side] of /** @type {const} */ (["bid", "ask"]).entries()) {
      write(this.bbo[side].price, decimal(quote?.[side]));
      write(this.bbo[side].size, decimal(quote?.[`${side}q`]));
      this.bbo[side].bar.style.transform = `scaleX(${(sizes[at] / most).toFixed(3)})`;
    }
    const { spread } = row;
    // In basis points of the middle's size; around zero that says nothing.
    const points = spread / Math.abs(Number(quote?.bid) + Number(quote?.ask)) * 2e4;
    write(/** @type {Element} */ (this.between), Number.isNaN(spread) ? "One-sided quote"
      : `Spread ${decimal(spread.toFixed(row.scale))}${Number.isFinite(points) ? ` · ${points.toFixed(2)} bp` : ""}`);
    for (const value of Object.values(figures)) this.#room("figure", width(value.textContent ?? "", FIGURE_FONT));
    for (const { price, size } of Object.values(this.bbo)) {
      this.#room("side", SIDE_APART_PX + width(price.textContent ?? "", PRICE_FONT) + width(size.textContent ?? "", TEXT_FONT));
    }
  }

  /** Makes room for a text; it never gets less, so that nothing jumps. @param {"side" | "figure"} place @param {number} px */
  #room(place, px) {
    if (px <= this.widest[place]) return;
    this.widest[place] = px;
    document.documentElement.style.setProperty(`--${place}`, `${px}px`);
  }

  /** Dims and dates what is not up to date, each area by the newest that it shows. @param {import("./market.js").Row} row */
  #date(row) {
    const isCurrent = this.isCurrent && row.isLive;
    const [trade] = this.trades;
    const times = { instrument: row.ticker?.ts, book: row.quote?.ts, tape: typeof trade === "object" ? trade.ts : undefined };
    const dated = isCurrent ? "" : JSON.stringify([row.isLive, times]);
    if (dated === this.dated) return;
    this.dated = dated;
    for (const [id, ts] of Object.entries(times)) {
      byId(id).classList.toggle("stale", !isCurrent);
      const place = /** @type {HTMLElement} */ (byId(id).querySelector(".as-of"));
      place.hidden = isCurrent || ts === undefined;
      if (ts !== undefined) write(place, `as of ${moment(ts)}`);
    }
  }

  /** New ones come in above; a line that falls out below is used again for one. */
  #drawTrades() {
    const lines = /** @type {HTMLTableSectionElement} */ (this.lines);
    while (lines.rows.length > this.trades.length) lines.deleteRow(-1);
    for (const trade of this.trades.slice(0, this.newTrades).reverse()) {
      const line = lines.rows.length < Math.min(this.trades.length, TRADES_KEPT) ? this.#line() : lines.rows[lines.rows.length - 1];
      const isNotice = typeof trade === "string";
      line.className = isNotice ? "told" : trade.side ?? "";
      write(line.cells[0], isNotice ? "" : time(trade.ts));
      write(line.cells[1], isNotice ? trade : `${trade.side === "buy" ? "▲" : trade.side === "sell" ? "▼" : "•"} ${decimal(trade.px)}`);
      write(line.cells[2], isNotice ? "" : decimal(trade.qty));
      if (!isNotice) this.#room("side", TAPE_APART_PX + [...line.cells].reduce((sum, cell) => sum + width(cell.textContent ?? "", TEXT_FONT), 0));
      lines.prepend(line);
    }
    this.newTrades = 0;
  }

  #line() {
    const line = document.createElement("tr");
    for (let cell = 0; cell < 3; cell += 1) line.insertCell();
    return line;
  }
}
