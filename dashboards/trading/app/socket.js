/** A `WebSocket` whose reading can be slowed down: it lives in a worker that really sleeps. */

/** Bytes a second; shared with the worker, as a thread that sleeps hears no message. Null where pages can't share memory. */
const budget = typeof SharedArrayBuffer === "function" ? new Int32Array(new SharedArrayBuffer(4)) : null;
/** One serves all connections in turn: while the server is away its file could not be had again. @type {Worker | null} */
let worker = null;
let connections = 0;

/** True where this page can throttle its reads: only when cross-origin isolated, so on HTTPS and on loopback. */
export const canSlowDown = budget !== null;

/** Reads so many bytes a second and no more; 0: as they come. Holds for later connections too. @param {number} rate */
export function readAtMost(rate) {
  if (budget === null) return;
  Atomics.store(budget, 0, rate);
  Atomics.notify(budget, 0);
}

/** The part of the `WebSocket` interface that `tickcast.js` uses. */
export class PausableSocket {
  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    worker ??= new Worker(new URL("socket-worker.js", import.meta.url));
    this.worker = worker;
    /** @type {(message: {data: string | ArrayBuffer}) => void} */
    this.onmessage = () => {};
    /** @type {(close: {code: number, reason: string}) => void} */
    this.onclose = () => {};
    const connection = ++connections;
    this.worker.onmessage = ({ data }) => {
      // What an earlier connection left behind is not this one's.
      if (data.connection !== connection) return;
      if (data.closed) this.onclose(data.closed);
      else for (const message of data.messages) this.onmessage({ data: message });
    };
    this.worker.onerror = () => {
      worker = null;
      this.onclose({ code: 1006, reason: "cannot load the page's worker" });
    };
    this.worker.postMessage({ open: url, protocols, budget, connection });
  }

  /** @param {string | Uint8Array} message */
  send(message) {
    this.worker.postMessage({ send: message });
  }

  /** @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = "") {
    this.worker.postMessage({ close: { code, reason } });
  }
}
