"use strict";
// Messages of a program on whatsapp-web.js: its events become records, and the agent's messages go out
// by its own sendMessage. WhatsApp's page has told WhatsApp of a message before any event comes.
const { join } = require("node:path");
const { pathToFileURL } = require("node:url");

const CLIENT = join(__dirname, "..", "..", "baileys", "client");
const SENDS = ["text", "mentions", "media", "location", "mark_read"];
const TEXT = 65536;
const WORD = 1024;
const LIST = 500;
const ACKED = 500; // states of messages whose sender does not know their ids yet
const TYPES = { chat: "text", image: "image", video: "video", ptv: "video", gif: "video", audio: "audio", ptt: "audio", document: "document", sticker: "sticker", location: "location", vcard: "contact", multi_vcard: "contact", poll_creation: "poll" };
const NONE = new Set(["ciphertext", "revoked", "protocol", "notification", "notification_template", "gp2", "e2e_notification", "broadcast_notification", "newsletter_notification", "call_log", "reaction", "poll_update", "keep_in_chat", "pin_message", "debug", "unknown", "groups_v4_notification"]);
const FILES = new Set(["image", "video", "audio", "document", "sticker"]);
const STATES = { "-1": "error", 1: "server", 2: "delivered", 3: "read", 4: "played" };

const load = (name) => import(pathToFileURL(join(CLIENT, `${name}.mjs`)));
const refuse = (code, words) => Object.assign(new Error(words), { code });
const cut = (value, most = WORD) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (Number.isFinite(Number(value)) && value !== "" ? Number(value) : undefined);
const list = (value) => (Array.isArray(value) ? value.slice(0, LIST) : []);
const known = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== "" && value !== undefined));
const seconds = (at) => (at > 1e11 ? at / 1000 : Number(at) || Date.now() / 1000);

function jid(value) {
  const raw = typeof value === "string" ? value : (value?._serialized ?? "");
  const [, name, domain] = /^([0-9A-Za-z._-]{1,40})(?::\d{1,5})?@([a-z.]{1,24})$/.exec(raw) ?? [];
  return name ? `${name}@${domain === "c.us" ? "s.whatsapp.net" : domain}` : "";
}

/** What all records about a message have, by its key; `who` and `by` are parts of their ids. */
function about(key, at, me, doer) {
  const [id, chat] = [cut(key?.id).slice(0, 64), jid(key?.remote)];
  if (!id || !chat || chat === "status@broadcast") return null;
  const mine = key.fromMe === true;
  const writer = jid(key.participant) || (chat.endsWith("@g.us") ? jid(doer) : chat);
  const sender = doer ? jid(doer) : mine ? me : writer;
  const base = { at: seconds(at), chat, from_me: doer ? sender === me : mine, sender, alias: "", message_id: id };
  return { base, who: `${chat}:${mine ? "me" : writer}:${id}`, by: `${chat}:${id}:${sender}` };
}

function messageOf(message, me) {
  if (NONE.has(message.type)) return null;
  const found = about(message.id, message.timestamp, me, message.id?.fromMe ? "" : message.author);
  if (!found) return null;
  const type = TYPES[message.type] ?? "other";
  const data = message._data ?? {};
  const record = { id: `m:${found.who}`, kind: "message", ...found.base, type, text: cut(message.body, TEXT), name: cut(data.notifyName), fresh: true };
  if (["contact", "poll", "location"].includes(type)) record.text = "";
  if (FILES.has(type)) {
    const sha256 = data.filehash ? Buffer.from(cut(data.filehash), "base64").toString("hex").slice(0, 64) : "";
    record.media = known({ mimetype: cut(data.mimetype), size: number(data.size), sha256, filename: cut(data.filename), seconds: number(data.duration), width: number(data.width), height: number(data.height) });
    if (record.text === record.media.filename) record.text = "";
  }
  if (type === "location") record.location = known({ latitude: number(message.location?.latitude), longitude: number(message.location?.longitude), name: cut(message.location?.name), address: cut(message.location?.address) });
  if (type === "contact") record.contacts = list(message.vCards).map((vcard) => ({ name: "", vcard: cut(vcard, 16384) }));
  if (type === "poll") record.poll = { question: cut(message.pollName), options: list(message.pollOptions).map((its) => cut(its?.name ?? its)), several: message.allowMultipleAnswers === true };
  if (message.hasQuotedMsg) record.quote = { message_id: cut(data.quotedStanzaID), sender: jid(data.quotedParticipant), text: cut(data.quotedMsg?.body, 4096) };
  const mentions = list(message.mentionedIds).map(jid).filter(Boolean);
  if (mentions.length) record.mentions = mentions;
  return record;
}

/** The records of each of the client's events; null where there is none. */
const RECORDS = {
  message_create: (me, message) => messageOf(message, me),
  message_edit(me, message, text) {
    const found = about(message.id, message.latestEditSenderTimestampMs, me, message.id?.fromMe ? "" : message.author);
    const edit = cut(message.latestEditMsgKey?.id).slice(0, 64);
    return found && { id: `e:${found.who}:${edit}`.slice(0, 200), kind: "message_edit", ...found.base, text: cut(text, TEXT) };
  },
  message_revoke_everyone(me, message, before) {
    const found = about((before ?? message).id, message.timestamp, me, message.id?.fromMe ? "" : message.author);
    return found && { id: `d:${found.who}`, kind: "message_delete", ...found.base };
  },
  message_reaction(me, { msgId, timestamp, reaction, senderId }) {
    const found = about(msgId, timestamp, me, senderId);
    return found && { id: `r:${found.by}:${Math.round(seconds(timestamp) * 1000)}`, kind: "message_reaction", ...found.base, emoji: cut(reaction).slice(0, 64) };
  },
  message_ack(me, message, ack) {
    const [state, found] = [STATES[ack], about(message.id, 0, me)];
    if (!state || !found?.base.from_me) return null;
    return { id: `a:${found.base.message_id}:${found.base.chat}:${state}`, kind: "message_ack", ...found.base, state, participant: "" };
  },
  vote_update(me, { voter, selectedOptions, interractedAtTs, parentMsgKey, parentMessage }) {
    const found = about(parentMsgKey ?? parentMessage?.id, interractedAtTs, me, voter);
    const options = list(selectedOptions).map((its) => cut(its?.name));
    return found && { id: `v:${found.by}:${Math.round(seconds(interractedAtTs) * 1000)}`, kind: "message_vote", ...found.base, options };
  },
  call(_me, { id, from, timestamp, isVideo, fromMe }) {
    const [call_id, chat] = [cut(id).slice(0, 64), jid(from)];
    if (!call_id || !chat || fromMe) return null;
    return { id: `c:${call_id}:offer`, kind: "call", at: seconds(timestamp), chat, from_me: false, sender: chat, alias: "", message_id: "", call_id, state: "offer", video: isVideo === true };
  },
};

class Messages {
  #client;
  #lib;
  #isOpen;
  #inbox;
  #uploads;
  #acked = new Map(); // id → the last state
  #unanswered = new Map();

  /** `isOpen`: whether the client is connected and the newest. */
  constructor(client, { lib, channel, keeps }, isOpen) {
    this.#client = client;
    this.#lib = lib;
    this.#isOpen = isOpen;
    if (keeps) this.#inbox = load("inbox").then(({ Inbox }) => new Inbox((line) => channel.tell(line.event, line)));
    this.notKept = (error) => channel.tell("not_kept", { raw: String(error?.message ?? "") });
  }

  /** Of each event of the client's. */
  hear(event, ...its) {
    if (event === "message_ack") this.#noteAck(its[0]?.id?.id, its[1]);
    if (!this.#inbox) return;
    const record = RECORDS[event](jid(this.#client.info?.wid), ...its);
    if (record) this.#inbox.then((inbox) => inbox.keep([record])).catch(this.notKept);
  }

  get works() {
    const kept = async (answer) => (await this.#inbox)?.kept(answer);
    return { send: (order) => this.#send(order), read: (order) => this.#read(order), file_part: async ({ part }) => (await this.#files()).take(part), kept };
  }

  #noteAck(id, ack) {
    if (!id || !STATES[ack]) return;
    this.#unanswered.get(id)?.(ack);
    this.#acked.set(id, ack);
    if (this.#acked.size > ACKED) this.#acked.delete(this.#acked.keys().next().value);
  }

  async #files() {
    return (this.#uploads ??= new (await load("uploads")).Uploads());
  }

  async #send({ message, seconds: within = 8 }) {
    const { jidOf } = await load("messages");
    if (!this.#isOpen()) throw refuse("not_connected", "not connected");
    const pageOf = (to) => jidOf(to).replace("@s.whatsapp.net", "@c.us");
    const chat = pageOf(message.to);
    const { content, options } = await this.#contentOf(message, pageOf);
    const sent = await this.#client.sendMessage(chat, content, { ...options, sendSeen: false });
    if (!sent) throw refuse("chat_not_found", "the page has no such chat");
    const id = String(sent.id?.id ?? "");
    const ack = await this.#ackOf(id, sent.ack, within);
    return { id, outcome: ack < 0 ? "refused" : ack > 0 ? "sent" : "unknown" };
  }

  /** The state that the server gave it; 0 = none within the time. */
  async #ackOf(id, first, within) {
    const now = this.#acked.get(id) ?? first;
    if (STATES[now]) return now;
    let timer;
    try {
      return await new Promise((then) => {
        this.#unanswered.set(id, then);
        timer = setTimeout(then, within * 1000, 0);
      });
    } finally {
      clearTimeout(timer);
      this.#unanswered.delete(id);
    }
  }

  async #contentOf(message, pageOf) {
    const mentions = list(message.mentions).map(pageOf);
    const options = mentions.length ? { mentions } : {};
    switch (message.type ?? "text") {
      case "text":
        return { content: message.text, options };
      case "location":
        return { content: new this.#lib.Location(message.latitude, message.longitude, { name: message.name, address: message.address }), options };
      case "media": {
        const { mimetype, caption } = message;
        const as = /^(?:image|video|audio)\//.test(mimetype) ? {} : { sendMediaAsDocument: true };
        const filename = message.filename ?? "file";
        const content = new this.#lib.MessageMedia(mimetype, await this.#dataOf(message), filename);
        return { content, options: { ...options, ...as, ...(caption ? { caption } : {}) } };
      }
      default:
        throw refuse("not_supported", "no such type of message");
    }
  }

  async #dataOf(message) {
    if (message.content !== undefined) return message.content;
    if (message.upload === undefined) throw refuse("not_supported", "this library takes a file's content, not its address");
    const parts = [];
    for await (const part of (await this.#files()).whole(message).stream) parts.push(part);
    return Buffer.concat(parts).toString("base64");
  }

  // The page knows chats that were read, not single messages.
  async #read({ asked }) {
    const { jidOf } = await load("messages");
    if (!this.#isOpen()) throw refuse("not_connected", "not connected");
    await this.#client.sendSeen(jidOf(asked.chat).replace("@s.whatsapp.net", "@c.us"));
  }
}

module.exports = { Messages, EVENTS: Object.keys(RECORDS), SENDS };
