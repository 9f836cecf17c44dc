/** Candles and volume of one symbol: the past first, the present on top. */

import { CandlestickSeries, ColorType, CrosshairMode, HistogramSeries, createChart } from "../vendor/lightweight-charts.js";
import { byId, decimal, short } from "./format.js";

/** @typedef {import("../tickcast.js").MarketEvent} MarketEvent */

/** @param {MarketEvent} bar seconds, exact as bars begin at whole ones */
const timeOf = (bar) => /** @type {any} */ (Math.round(/** @type {number} */ (bar.start) / 1e9));

/** How many bars are shown at first, and for how many there is room at least. */
const BARS_SHOWN = 110;
const BARS_LEAST = 40;

export class Chart {
  constructor() {
    this.place = byId("chart");
    this.legend = byId("legend");
    this.chart = createChart(this.place, {
      autoSize: true,
      layout: { attributionLogo: false, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.12, bottom: 0.24 } },
      timeScale: { borderVisible: false, timeVisible: true, rightOffset: 4, minBarSpacing: 1 },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    /** @type {MarketEvent[]} */
    this.bars = [];
    /** What the next frame draws: all bars, or the newest ones. @type {"all" | MarketEvent[]} */
    this.pending = [];
    /** Until the user moves the chart it shows the newest bars. */
    this.isMoved = false;
    for (const name of ["pointerdown", "wheel"]) this.place.addEventListener(name, () => { this.isMoved = true; }, { passive: true });
    /** How many bars the range was last set for. */
    this.ranged = 0;
    /** The columns' colours. */
    this.faint = { up: "", down: "" };
    /** @type {number | null} under the crosshair */
    this.pointed = null;
    this.chart.subscribeCrosshairMove(({ time }) => {
      this.pointed = typeof time === "number" ? time : null;
      this.#tell();
    });
    this.inks();
  }

  /** Takes the theme's colours. */
  inks() {
    const style = getComputedStyle(document.documentElement);
    const ink = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const up = ink("--up-fill"), down = ink("--down-fill");
    this.faint = { up: ink("--up-faint"), down: ink("--down-faint") };
    const { fontFamily } = getComputedStyle(document.body);
    this.chart.applyOptions({
      layout: { background: { type: ColorType.Solid, color: ink("--panel") }, textColor: ink("--muted"), fontFamily },
      grid: { vertLines: { color: ink("--grid") }, horzLines: { color: ink("--grid") } },
    });
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.pending = "all";
  }

  /** Another symbol or interval. @param {string} symbol @param {string} interval @param {number} scale of its prices */
  clear(symbol, interval, scale) {
    this.bars = [];
    this.pending = "all";
    this.isMoved = false;
    this.ranged = 0;
    this.place.setAttribute("aria-label", `Price chart of ${symbol}, bars of ${interval}`);
    this.rescale(scale);
    this.chart.applyOptions({ timeScale: { secondsVisible: interval === "1s" } });
  }

  /** @param {number} scale decimals of a price */
  rescale(scale) {
    this.candles.applyOptions({ priceFormat: { type: "custom", minMove: 10 ** -scale, formatter: (/** @type {number} */ price) => decimal(price.toFixed(scale)) } });
  }

  /** @param {{bars: MarketEvent[], bar: MarketEvent | null}} change */
  take({ bars, bar }) {
    this.bars = bars;
    if (bar === null) this.pending = "all";
    else if (this.pending !== "all") {
      if (this.pending.at(-1)?.start === bar.start) this.pending[this.pending.length - 1] = bar;
      else this.pending.push(bar);
    }
  }

  frame() {
    const { pending } = this;
    if (pending !== "all" && pending.length === 0) return;
    if (pending === "all") {
      this.candles.setData(this.bars.map((bar) => this.#candle(bar)));
      this.volume.setData(this.bars.map((bar) => this.#column(bar)));
    } else {
      for (const bar of pending) {
        this.candles.update(this.#candle(bar));
        this.volume.update(this.#column(bar));
      }
    }
    this.pending = [];
    this.#range();
    this.#tell();
  }

  /** Shows the newest bars. A young market has few: they keep the width of a usual bar and their place at the right, until they fill the chart; from
   * then on the chart follows by itself. */
  #range() {
    const bars = this.bars.length;
    if (this.isMoved || bars === 0 || bars === this.ranged || this.ranged >= BARS_SHOWN) return;
    this.ranged = bars;
    this.chart.timeScale().setVisibleLogicalRange({ from: bars - Math.min(BARS_SHOWN, Math.max(BARS_LEAST, bars + 2)), to: bars + 4 });
  }

  /** @param {MarketEvent} bar */
  #candle(bar) {
    return { time: timeOf(bar), open: Number(bar.o), high: Number(bar.h), low: Number(bar.l), close: Number(bar.c) };
  }

  /** @param {MarketEvent} bar */
  #column(bar) {
    return { time: timeOf(bar), value: Number(bar.vol), color: Number(bar.c) >= Number(bar.o) ? this.faint.up : this.faint.down };
  }

  #tell() {
    const bar = this.pointed === null ? this.bars.at(-1) : this.bars.find((one) => timeOf(one) === this.pointed);
    this.legend.textContent = bar ? `O ${decimal(bar.o)}  H ${decimal(bar.h)}  L ${decimal(bar.l)}  C ${decimal(bar.c)}  Vol ${short(bar.vol)}  ${bar.n} trades` : "";
  }
}
