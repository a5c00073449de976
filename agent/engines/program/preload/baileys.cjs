"use strict";
// Watches the events of Baileys' sockets, tells the worker of them, and answers its questions.
const { createHash } = require("node:crypto");
const { OTHER_ACCOUNT, quietly } = require("./channel.cjs");
let current;
/** Those whose connection has not ended: a program may have several accounts, each with a store. */
const sockets = new Set();
const LOGGED_OUT = 401;
const FIRST_CODE = 60;
const NEXT_CODE = 20;
const CIPHERTEXT = 2;
const ACKS = ["error", "pending", "server", "delivered", "read", "played"];

function watch(socket, channel) {
  const seen = { socket, codes: 0, open: false, frameAt: 0 };
  sockets.add(seen);
  if (counts(seen)) current = seen;
  const tell = (event, more) => {
    if (current === seen) channel.tell(event, more);
  };
  socket.ws?.on?.("message", () => (seen.frameAt = performance.now()));
  on(socket, "connection.update", (update) => {
    if (update.connection === "open" && current !== seen && !current.open) {
      current = seen;
      seen.serve();
    }
    if (!followsAnother(seen, update, channel)) noteConnection(seen, update, tell);
  });
  const forEach = (note) => (all) => all.forEach((its) => note(its, tell));
  const noteMessages = forEach(noteMessage);
  on(socket, "messages.upsert", ({ messages }) => noteMessages(messages));
  on(socket, "messages.update", forEach(noteAck));
  on(socket, "message-receipt.update", forEach(noteReceipt));
  const works = { look, stop, save: quiet, logout: () => current.socket.logout() };
  seen.serve = () => channel.serve(works);
  if (current === seen) seen.serve();
}

/** A program that reconnects has a second socket: the newest counts. One of another store does not
 *  while this one is connected, or is paired and on its way while the new one waits for a scan. */
function counts(seen) {
  if (!current || storeOf(current) === storeOf(seen)) return true;
  return !current.open && (isPaired(seen) || !isPaired(current) || !sockets.has(current));
}

const isPaired = ({ socket }) => Boolean(socket.authState?.creds?.me);

/** The mark of a socket's store, by its keys: a program reads its store again for each socket. */
const storeOf = ({ socket }) => {
  const key = socket.authState?.creds?.noiseKey?.public ?? [];
  return Buffer.from(key).toString("base64");
};

/** The logout of one account is none of another that the program has: that one counts then. */
function followsAnother(seen, { connection, lastDisconnect }, channel) {
  if (connection !== "close") return false;
  sockets.delete(seen);
  if (current !== seen || lastDisconnect?.error?.output?.statusCode !== LOGGED_OUT) return false;
  const other = [...sockets].find((its) => isPaired(its) && storeOf(its) !== storeOf(seen));
  if (!other) return false;
  seen.open = false;
  channel.tell("close", OTHER_ACCOUNT);
  current = other;
  other.serve();
  if (other.open) channel.tell("open", { account: accountOf(other.socket) });
  return true;
}

// The program's own handlers come after this one.
const on = (socket, event, hear) => socket.ev.on(event, (its) => quietly(() => hear(its)));

function noteConnection(seen, { connection, qr, isNewLogin, lastDisconnect }, tell) {
  if (connection === "connecting") tell("connecting", {});
  if (qr) tell("qr", { qr, expires: seen.codes++ ? NEXT_CODE : FIRST_CODE });
  if (isNewLogin) tell("paired", whoIs(seen.socket));
  if (connection === "open") {
    seen.open = true;
    seen.frameAt = performance.now();
    tell("open", whoIs(seen.socket));
  }
  if (connection === "close") {
    seen.open = false;
    const error = lastDisconnect?.error;
    const raw = String(error?.message ?? "").slice(0, 120);
    tell("close", { code: error?.output?.statusCode, raw });
  }
}

/** `account` of the socket; `device`: a word that all copies of its keys have, and no others. */
function whoIs(socket) {
  const noise = socket.authState?.creds?.noiseKey?.private;
  const text = noise && Buffer.from(noise.data ?? noise).toString("base64");
  const device = text && createHash("sha256").update(text).digest("hex");
  return { account: accountOf(socket), device };
}

const accountOf = ({ user, authState }) =>
  String(user?.id ?? authState?.creds?.me?.id ?? "").split(/[:@]/)[0];

function noteMessage({ key, message, messageStubType, messageStubParameters }, tell) {
  const peer = key?.participantPn || key?.participantAlt || key?.participant || key?.remoteJid;
  if (messageStubType === CIPHERTEXT) {
    tell("undecryptable", { kind: kindOf(String(messageStubParameters?.[0] ?? "")), peer });
  } else if (message) {
    const type = Object.keys(message).find((its) => its !== "messageContextInfo") ?? "";
    tell("message", { direction: key.fromMe ? "out" : "in", type, id: key.id, peer });
  }
}

function kindOf(words) {
  if (/bad mac/i.test(words)) return "bad_mac";
  if (/prekey|pre-key/i.test(words)) return "prekey";
  if (/senderkey|sender key/i.test(words)) return "sender_key";
  if (/no (?:matching |open )?session/i.test(words)) return "no_session";
  if (/key used already|counter/i.test(words)) return "duplicate";
  return "undecryptable";
}

function noteAck({ key, update }, tell) {
  if (key?.fromMe && ACKS[update?.status]) tell("ack", { id: key.id, ack: ACKS[update.status] });
}

function noteReceipt({ key, receipt }, tell) {
  const ack = receipt?.readTimestamp ? "read" : receipt?.receiptTimestamp ? "delivered" : "";
  if (key?.fromMe && ack) tell("ack", { id: key.id, ack });
}

/** With `ask`, WhatsApp's server itself answers, as it does to the library's own keep-alive. */
async function look({ ask, seconds }) {
  const seen = current;
  if (ask && seen.open) {
    const attrs = { to: "@s.whatsapp.net", type: "get", xmlns: "w:p" };
    const ping = { tag: "iq", attrs, content: [{ tag: "ping", attrs: {} }] };
    await seen.socket.query(ping, seconds * 1000).catch(() => {});
  }
  const age = seen.frameAt ? (performance.now() - seen.frameAt) / 1000 : null;
  return { open: seen.open, frame_age: age };
}

/** The connections end, what is under way is written; the program hears nothing to answer. */
async function stop() {
  for (const { socket } of new Set([current, ...sockets])) {
    socket.ev.removeAllListeners("connection.update");
    await socket.end(undefined);
  }
  await quiet();
}

/** Until no write to the disk is under way, or for two seconds. */
async function quiet() {
  const until = performance.now() + 2000;
  const isWriting = () => process.getActiveResourcesInfo().some((its) => its.startsWith("FSReq"));
  do await new Promise((then) => setTimeout(then, 50));
  while (performance.now() < until && isWriting());
}

module.exports = { watch };
