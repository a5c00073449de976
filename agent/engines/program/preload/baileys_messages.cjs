"use strict";
// Messages of a program on Baileys. What comes is with the worker before the library uses its key, and
// so before WhatsApp is told; what the agent sends goes out by the library's own sendMessage.
const { EventEmitter } = require("node:events");
const { existsSync } = require("node:fs");
const { createRequire } = require("node:module");
const { dirname, join } = require("node:path");
const { pathToFileURL } = require("node:url");

const CLIENT = join(__dirname, "..", "..", "baileys", "client");
const FILES = ["arrivals", "inbox", "signal", "messages", "own_ids", "uploads", "moments"];
const TAGS = ["CB:message", "CB:receipt", "CB:call"];
const SENDS = ["text", "media", "location", "contact", "reaction", "quote", "mentions", "edit", "delete", "mark_read", "typing"];
const WITHIN = 5000; // a worker that stands still holds up the program no longer
const MOST_AGAIN = 200;

const load = (path) => import(pathToFileURL(path));
const refuse = (code, words) => Object.assign(new Error(words), { code });

let parts;
const partsOf = () => (parts ??= Promise.all(FILES.map((name) => load(join(CLIENT, `${name}.mjs`)))).then((all) => Object.assign({}, ...all)));

// Both ciphers are the program's own, of which there is one for all its sockets.
const patched = new WeakSet();

async function waitBeforeKeys(place) {
  const own = createRequire(place);
  const libsignal = own("libsignal");
  if (patched.has(libsignal)) return;
  patched.add(libsignal);
  const [old, now] = [join(dirname(place), "..", "WASignalGroup"), join(dirname(place), "Signal", "Group", "index.js")];
  const group = existsSync(old) ? own(old) : await load(now);
  (await partsOf()).waitBeforeKeys(libsignal, group);
}

/** What was sent for the agent, for a receiver whose phone could not read it and asks for it again. */
class Again {
  #sent = new Map(); // id → {message, chats}

  note(id, message, chats) {
    this.#sent.set(id, { message, chats });
    if (this.#sent.size > MOST_AGAIN) this.#sent.delete(this.#sent.keys().next().value);
  }

  // Whoever knows an id may ask for it: it goes to its own chat only.
  find({ id, remoteJid }) {
    const found = this.#sent.get(id);
    return found?.chats.includes(remoteJid) ? found.message : undefined;
  }
}

const again = new Again();

/** The program's own configuration, and what is sent for the agent among the messages it can give again. */
function configured(config) {
  const own = config?.getMessage;
  return { ...config, getMessage: async (key) => (await own?.(key)) ?? again.find(key) };
}

class Messages {
  #socket;
  #lib;
  #channel;
  #unanswered = new Map();
  #inbox;
  #arrivals;
  #uploads;
  #moments;
  #isOpen;

  /** `place`: the file of the library's index; `isOpen`: whether the socket is connected and the newest. */
  constructor(socket, { lib, place, channel, keeps }, isOpen) {
    this.#socket = socket;
    this.#lib = lib;
    this.#channel = channel;
    this.#isOpen = isOpen;
    socket.ws.on("frame", (frame) => this.#frame(frame));
    if (keeps) this.#keep(place);
  }

  get works() {
    const names = { send: "send", read: "read", presence: "presence", file_part: "filePart", kept: "kept" };
    return Object.fromEntries(Object.entries(names).map(([work, name]) => [work, (order) => this[name](order)]));
  }

  // The library's own listeners hear of a stanza when it is kept; those of the program are as they were.
  #keep(place) {
    const { ws } = this.#socket;
    const inner = new EventEmitter();
    const ready = this.#open(inner, place).catch((error) => this.#channel.tell("not_kept", { raw: String(error?.code ?? error?.name) }));
    let isReady = false;
    void ready.then(() => (isReady = true));
    for (const name of TAGS) {
      for (const listener of ws.listeners(name)) inner.on(name, listener);
      ws.removeAllListeners(name);
      ws.on(name, (node) => (isReady ? inner.emit(name, node) : void ready.then(() => inner.emit(name, node))));
    }
    this.#on("messages.upsert", ({ messages }) => messages.forEach((its) => its.message && its.messageStubType !== 2 && this.#arrivals?.told(its)));
    this.#on("messaging-history.set", ({ messages }) => void this.#arrivals?.history(messages).catch(() => {}));
  }

  async #open(inner, place) {
    const { Arrivals, Inbox } = await partsOf();
    const { authState } = this.#socket;
    this.#inbox = new Inbox((line) => this.#channel.tell(line.event, line), WITHIN);
    // What cannot be kept is the program's all the same.
    const keep = (records) => this.#inbox.keep(records).catch((error) => this.#channel.tell("not_kept", { raw: error.message }));
    const arrivals = new Arrivals(this.#lib, authState, { keep }, () => {});
    arrivals.watch({ ws: inner }, () => true);
    this.#arrivals = arrivals;
    await waitBeforeKeys(place);
  }

  #on(event, hear) {
    this.#socket.ev.on(event, (its) => {
      try {
        hear(its);
      } catch {
        // The program's own handlers come after this one.
      }
    });
  }

  #frame(frame) {
    try {
      this.#arrivals?.frame(frame);
      const { tag, attrs } = frame ?? {};
      if (tag !== "ack" || attrs.class !== "message") return;
      this.#unanswered.get(attrs.id)?.({ outcome: attrs.error ? "refused" : "sent", error: attrs.error });
      this.#channel.tell("ack", { id: attrs.id, ack: attrs.error ? "error" : "server" });
    } catch {
      // The library has the frame, whatever becomes of our part.
    }
  }

  kept(answer) {
    this.#inbox?.kept(answer);
  }

  settled() {
    return this.#inbox?.settled();
  }

  async #mustBeOpen() {
    const found = await partsOf();
    if (!this.#isOpen()) throw refuse("not_connected", "not connected");
    return found;
  }

  async send({ message, seconds = 8 }) {
    const { contentOf, jidOf, optionsOf, idOf, newId, Uploads } = await this.#mustBeOpen();
    const [socket, lib] = [this.#socket, this.#lib];
    const jid = jidOf(message.to);
    const options = optionsOf(message, jid);
    const content = contentOf(message, jid, (this.#uploads ??= new Uploads()));
    const secret = socket.authState.creds.noiseKey.private;
    const messageId = message.key ? idOf(secret, message.key) : newId(secret);
    let timer;
    const answered = new Promise((then) => {
      this.#unanswered.set(messageId, then);
      timer = setTimeout(then, seconds * 1000, { outcome: "unknown" });
    });
    try {
      const sent = await socket.sendMessage(jid, content, { ...options, messageId });
      const other = await socket.signalRepository?.lidMapping?.getLIDForPN?.(jid).catch(() => null);
      if (sent?.message) again.note(messageId, sent.message, [jid, other && lib.jidNormalizedUser(other)]);
      return { id: messageId, ...(await answered) };
    } finally {
      clearTimeout(timer);
      this.#unanswered.delete(messageId);
    }
  }

  async read({ asked }) {
    const { Moments } = await this.#mustBeOpen();
    await (this.#moments ??= new Moments()).read(this.#socket, asked);
  }

  async presence({ asked }) {
    const { Moments } = await this.#mustBeOpen();
    await (this.#moments ??= new Moments()).show(this.#socket, asked, this.#isOpen);
  }

  async filePart({ part }) {
    const { Uploads } = await partsOf();
    return (this.#uploads ??= new Uploads()).take(part);
  }
}

module.exports = { Messages, configured, SENDS };
