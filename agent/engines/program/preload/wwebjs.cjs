"use strict";
// Watches the events of whatsapp-web.js' Clients, tells the worker of them, and answers it.
const { OTHER_ACCOUNT, quietly } = require("./channel.cjs");

const FIRST_CODE = 60;
const NEXT_CODE = 20;
const ACKS = { "-1": "error", 0: "pending", 1: "server", 2: "delivered", 3: "read", 4: "played" };
const LOGOUTS = { LOGOUT: "logout", UNPAIRED: "logout", UNPAIRED_IDLE: "logout" };
const ENDS = { ...LOGOUTS, CONFLICT: "conflict" };
const BANS = { TOS_BLOCK: "banned", SMB_TOS_BLOCK: "banned" };
const REFUSED = { ...BANS, PROXYBLOCK: "proxy_block", DEPRECATED_VERSION: "client_outdated" };
let current;

/** Each client is watched from its first `initialize` on; the class stays the program's own. */
function note({ Client }, channel) {
  const initialize = Client.prototype.initialize;
  if (initialize.noted) return;
  const wrapped = function (...args) {
    quietly(() => watch(this, channel));
    return Reflect.apply(initialize, this, args);
  };
  Object.defineProperty(wrapped, "name", { value: initialize.name });
  Object.defineProperty(wrapped, "noted", { value: true });
  const as = { value: wrapped, writable: true, configurable: true };
  Object.defineProperty(Client.prototype, "initialize", as);
}

/** A program may have several accounts, each with a client and a store. */
const clients = new Set();
const storeOf = ({ authStrategy: its }) =>
  JSON.stringify([its?.constructor?.name, its?.dataPath, its?.clientId]);

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
  const isKnown = seenOf.has(client);
  seenOf.set(client, seen);
  if (isKnown) return;
  const on = (event, hear) =>
    client.prependListener(event, (...its) => {
      const now = seenOf.get(client);
      // The program's own handlers come after this one.
      if (now === current) quietly(() => hear(now, ...its));
    });
  on("qr", (now, qr) => channel.tell("qr", { qr, expires: now.codes++ ? NEXT_CODE : FIRST_CODE }));
  on("loading_screen", (_now, part) => channel.tell("sync", { progress: Number(part) / 100 }));
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
  on("disconnected", (now, why) => {
    const reason = ENDS[why] ?? REFUSED[why] ?? "connection_lost";
    close(now, channel, { reason, raw: String(why).slice(0, 60) });
  });
  client.prependListener("disconnected", (why) => noteEnd(seenOf.get(client), why, channel));
  const idOf = ({ id }) => String(id?.id ?? "");
  on("message_create", (_now, message) => {
    const [direction, peer] = message.fromMe ? ["out", message.to] : ["in", message.from];
    const told = { direction, type: String(message.type), id: idOf(message), peer: String(peer) };
    channel.tell("message", told);
  });
  on("message_ack", (_now, message, ack) => {
    channel.tell("ack", { id: idOf(message), ack: ACKS[ack] ?? "" });
  });
}

const seenOf = new WeakMap();

/** The logout of one account is none of another that is connected: that one counts from now on. */
function noteEnd(now, why, channel) {
  now.open = false;
  if (now !== current || ENDS[why] !== "logout") return;
  const other = [...clients].map((its) => seenOf.get(its)).find((its) => its.open);
  if (!other) return;
  channel.tell("close", OTHER_ACCOUNT);
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
    const told = Promise.resolve(seen.client.getState()).catch(() => "gone");
    const state = await Promise.race([told, late]);
    if (state === "CONNECTED") seen.provedAt = performance.now();
    else if (state !== "late" && state !== "gone") return { open: false, frame_age: null };
  }
  const age = (performance.now() - seen.provedAt) / 1000;
  return { open: seen.open, frame_age: seen.open ? age : null };
}

module.exports = { note };
