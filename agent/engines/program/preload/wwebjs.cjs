"use strict";
// What a Client of whatsapp-web.js tells by its events, and how it is asked.
const FIRST_CODE = 60;
const NEXT_CODE = 20;
const ACKS = { "-1": "error", 0: "pending", 1: "server", 2: "delivered", 3: "read", 4: "played" };
const ENDS = { LOGOUT: "logout", UNPAIRED: "logout", UNPAIRED_IDLE: "logout", CONFLICT: "conflict" };
const REFUSED = { TOS_BLOCK: "banned", SMB_TOS_BLOCK: "banned", PROXYBLOCK: "proxy_block", DEPRECATED_VERSION: "client_outdated" };
let current;

/** Each client is watched from its first `initialize` on; the class itself stays the program's own. */
function note({ Client }, channel) {
  const initialize = Client.prototype.initialize;
  if (initialize.noted) return;
  const wrapped = function (...args) {
    try {
      watch(this, channel);
    } catch {
      // The program has its client, whatever becomes of our part.
    }
    return Reflect.apply(initialize, this, args);
  };
  Object.defineProperty(wrapped, "name", { value: initialize.name });
  Object.defineProperty(wrapped, "noted", { value: true });
  Object.defineProperty(Client.prototype, "initialize", { value: wrapped, writable: true, configurable: true });
}

const watched = new WeakSet();
/** A program may have several accounts, each with a client and a store. */
const clients = new Set();
const storeOf = ({ authStrategy: its }) => JSON.stringify([its?.constructor?.name, its?.dataPath, its?.clientId]);

function watch(client, channel) {
  const seen = { client, codes: 0, open: false, provedAt: 0 };
  clients.add(client);
  // A client of another store does not count, as long as this one is connected.
  if (!current?.open || storeOf(current.client) === storeOf(client)) current = seen;
  const works = { look, stop, logout: () => current.client.logout() };
  seen.serve = () => channel.serve(works);
  if (current === seen) {
    seen.serve();
    channel.tell("connecting", {});
  }
  if (watched.has(client)) {
    seenOf.set(client, seen);
    return;
  }
  watched.add(client);
  seenOf.set(client, seen);
  const on = (event, hear) =>
    client.prependListener(event, (...its) => {
      const now = seenOf.get(client);
      try {
        if (now === current) hear(now, ...its);
      } catch {
        // The program's own handlers come after this one.
      }
    });
  on("qr", (now, qr) => channel.tell("qr", { qr, expires: now.codes++ ? NEXT_CODE : FIRST_CODE }));
  on("loading_screen", (_now, percent) => channel.tell("sync", { progress: Number(percent) / 100 }));
  on("authenticated", () => {
    const { userDataDir } = client.authStrategy ?? {}; // of LocalAuth
    if (typeof userDataDir === "string") channel.tell("session", { path: userDataDir });
    channel.tell("paired", {});
  });
  on("auth_failure", (now) => close(now, channel, { reason: "bad_session" }));
  on("ready", () => channel.tell("open", { account: accountOf(client) }));
  client.prependListener("ready", () => {
    const now = Object.assign(seenOf.get(client), { open: true, provedAt: performance.now() });
    if (current === now || current.open) return;
    current = now;
    now.serve();
  });
  on("change_state", (now, state) => {
    if (REFUSED[state]) close(now, channel, { reason: REFUSED[state], raw: String(state) });
  });
  on("disconnected", (now, why) =>
    close(now, channel, { reason: ENDS[why] ?? REFUSED[why] ?? "connection_lost", raw: String(why).slice(0, 60) }),
  );
  client.prependListener("disconnected", (why) => noteEnd(seenOf.get(client), why, channel));
  on("message_create", (_now, message) =>
    channel.tell("message", {
      direction: message.fromMe ? "out" : "in",
      type: String(message.type),
      id: String(message.id?.id ?? ""),
      peer: String(message.fromMe ? message.to : message.from),
    }),
  );
  on("message_ack", (_now, message, ack) => channel.tell("ack", { id: String(message.id?.id ?? ""), ack: ACKS[ack] ?? "" }));
}

const seenOf = new WeakMap();

/** The logout of one account is none of another that is connected: that one counts from now on. */
function noteEnd(now, why, channel) {
  now.open = false;
  if (now !== current || ENDS[why] !== "logout") return;
  const other = [...clients].map((its) => seenOf.get(its)).find((its) => its.open);
  if (!other) return;
  channel.tell("close", { reason: "connection_lost", raw: "one of several accounts of this program was logged out" });
  current = other;
  other.serve();
  channel.tell("open", { account: accountOf(other.client) });
}

const accountOf = (client) => String(client.info?.wid?.user ?? "");

async function stop() {
  await Promise.all([...clients].map((client) => client.destroy()));
}

function close(now, channel, why) {
  now.open = false;
  channel.tell("close", why);
}

/** The page itself says whether its stream is there. */
async function look({ seconds }) {
  const seen = current;
  if (seen.open) {
    const late = new Promise((then) => setTimeout(then, seconds * 1000, "late").unref());
    const state = await Promise.race([Promise.resolve(seen.client.getState()).catch(() => "gone"), late]);
    if (state === "CONNECTED") seen.provedAt = performance.now();
    else if (state !== "late" && state !== "gone") return { open: false, frame_age: null };
  }
  return { open: seen.open, frame_age: seen.open ? (performance.now() - seen.provedAt) / 1000 : null };
}

module.exports = { note };
