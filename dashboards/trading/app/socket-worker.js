/** The feed's socket, in a thread of its own: while this thread sleeps nothing is read, the browser's buffers fill, and the server sees it. */

const worker = /** @type {any} */ (self);
/** @type {WebSocket | null} */
let socket = null;
/** Which of the page's connections it serves. */
let connection = 0;
/** Bytes that may be read a second, 0: all; the page writes it. Null where pages can't share memory. @type {Int32Array | null} */
let budget = null;
/** Read, but not slept for yet, ms. */
let debt = 0;
/** One large message shall not keep the page from everything behind it. */
const SLEEP_MAX_MS = 2000;

/** Sleeps as long as these bytes should have taken; awakes at once when the budget changes. @param {number} bytes */
function pace(bytes) {
  const rate = budget === null ? 0 : Atomics.load(budget, 0);
  debt = rate === 0 ? 0 : Math.min(SLEEP_MAX_MS, debt + bytes / rate * 1000);
  if (budget === null || debt < 50) return;
  if (waiting.length > 0) send();
  const begun = performance.now();
  Atomics.wait(budget, 0, rate, debt);
  debt -= performance.now() - begun;
}

/** Many small messages go to the page together: each that goes alone costs it more than the reading does. */
const TOGETHER_MS = 8;
/** @type {(string | ArrayBuffer)[]} */
let waiting = [];
let sentAt = 0;
let isDue = false;

function send() {
  isDue = false;
  sentAt = performance.now();
  worker.postMessage({ connection, messages: waiting }, waiting.filter((message) => typeof message !== "string"));
  waiting = [];
}

/** At once, unless others went just before. @param {string | ArrayBuffer} message */
function pass(message) {
  waiting.push(message);
  if (isDue) return;
  const wait = sentAt + TOGETHER_MS - performance.now();
  if (wait <= 0) return send();
  isDue = true;
  setTimeout(send, wait);
}

worker.onmessage = (/** @type {MessageEvent} */ { data }) => {
  if (data.open) {
    ({ budget, connection } = data);
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
    waiting = [];
    socket = new WebSocket(data.open, data.protocols);
    socket.binaryType = "arraybuffer";
    socket.onclose = ({ code, reason }) => {
      send();
      worker.postMessage({ connection, closed: { code, reason } });
    };
    socket.onmessage = (message) => {
      const isText = typeof message.data === "string";
      const bytes = isText ? message.data.length : message.data.byteLength;
      pass(message.data);
      pace(bytes);
    };
  } else if (data.send !== undefined) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(data.send);
  } else if (data.close) {
    socket?.close(data.close.code, data.close.reason);
  }
};
