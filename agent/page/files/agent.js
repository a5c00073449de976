// Talks to the agent: the key, requests, and events over a WebSocket that reconnects.
const KEY = "wa-agent-key";
const SILENCE = 13000; // the agent says something every 5 s
const LONGEST_PAUSE = 10000;

const state = { key: sessionStorage.getItem(KEY) || "", ahead: 0 };

export const hasKey = () => state.key !== "";
// A key begins with its id.
export const keyId = () => state.key.split("_")[1] || "";

export function useKey(text) {
  state.key = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

// The agent's clock: a phone's clock may be minutes off.
export const now = () => Date.now() + state.ahead;

export class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code || "";
  }
}

/** `raw`: a file that is the body as it is.
 * @param {string} method @param {string} path
 * @param {{body?: any, raw?: Blob, accept?: string, seconds?: number}} [how] */
export async function send(method, path, { body, raw, accept, seconds = 30 } = {}) {
  const headers = { Accept: accept || "application/json" };
  if (state.key) headers.Authorization = "Bearer " + state.key;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (raw) headers["Content-Type"] = "application/gzip";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      cache: "no-store",
      body: raw || (body === undefined ? undefined : JSON.stringify(body)),
      signal: AbortSignal.timeout(seconds * 1000),
    });
    await answer.clone().arrayBuffer(); // whole: one that breaks off later is no answer
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Refused(0, late ? "the agent did not answer in time" : "the agent is unreachable");
  }
  setClock(answer.headers.get("Date"));
  if (!answer.ok) {
    const { status } = answer;
    const { message, error } = await answer.json().catch(() => ({}));
    throw new Refused(status, message || "the agent answered " + status, error);
  }
  return answer;
}

export const get = async (path) => (await send("GET", path)).json();
// null where the agent refuses or is away: asked again with the next look.
export async function getOrNull(path) {
  try {
    return await get(path);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return null;
  }
}
export const post = async (path, body, seconds) =>
  (await send("POST", path, { body, seconds })).json();

function setClock(date) {
  const theirs = Date.parse(date || "");
  if (Number.isNaN(theirs)) return;
  const ahead = theirs + 500 - Date.now(); // the header has whole seconds
  state.ahead = Math.abs(ahead) < 2000 ? 0 : ahead;
}

// Hears every event once and in order; after a break it resumes behind the last one.
export class Live {
  constructor({ heard, changed, reset }) {
    this.heard = heard;
    this.reset = reset;
    this.changed = changed;
    this.cursor = null;
    this.state = "new";
    this.failures = 0;
    this.wanted = false;
    addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  open(cursor) {
    if (cursor > (this.cursor ?? -1)) this.cursor = cursor; // an agent without events has none
    this.wanted = true;
    this.connect();
  }

  close() {
    this.wanted = false;
    this.drop();
  }

  retryNow() {
    if (this.wanted && this.state === "lost") this.connect();
  }

  connect() {
    this.drop();
    const after = this.cursor === null ? "" : "?after=" + this.cursor;
    const words = state.key ? ["wa-agent", "bearer." + state.key] : ["wa-agent"];
    const place = location.origin.replace(/^http/, "ws") + "/api/events" + after;
    const socket = new WebSocket(place, words);
    this.socket = socket;
    this.listen();
    socket.onmessage = (message) => {
      if (this.socket !== socket) return;
      this.listen();
      this.take(JSON.parse(message.data));
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.lost(event.reason);
    };
  }

  take(message) {
    if (message.type === "event") {
      if (this.cursor !== null && message.cursor <= this.cursor) return;
      this.cursor = message.cursor;
      this.heard(message);
    } else if (message.type === "hello") {
      this.failures = 0;
      this.become("live");
    } else if (message.type === "reset") {
      this.cursor = message.cursor; // the agent's journal is another one than before
      this.reset();
    }
  }

  listen() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => this.lost("the agent sends nothing"), SILENCE);
  }

  lost(why) {
    this.drop();
    if (!this.wanted) return;
    const pause = Math.min(500 * 2 ** this.failures, LONGEST_PAUSE) * (0.75 + Math.random() / 2);
    this.failures += 1;
    this.retry = setTimeout(() => this.connect(), pause);
    this.become("lost", why);
  }

  drop() {
    clearTimeout(this.watch);
    clearTimeout(this.retry);
    this.socket?.close();
    this.socket = null;
  }

  become(state, why) {
    const before = this.state;
    this.state = state;
    this.changed(state, before, why || "");
  }
}
