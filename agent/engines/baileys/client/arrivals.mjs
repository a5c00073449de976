// Output commit: what arrives is on the worker's disk before WhatsApp hears that it was taken.
//
// A message's record is kept between its decryption and the use of its key (signal.mjs); only then
// the library stores the key and sends receipt and ack. Receipts, calls and messages that are not
// encrypted reach the library when their records are kept. Where they cannot be, the connection
// ends before the library says anything, and WhatsApp gives them again at the next one.
import { recordsOf } from "./incoming.mjs";
import { Names } from "./names.mjs";
import { acksOf, callsOf, serverAckOf } from "./notices.mjs";
import { Polls } from "./polls.mjs";
import { beforeItsKeyIsUsed } from "./signal.mjs";

const MOST_KNOWN = 2000;
const HISTORY_AT_ONCE = 100;

const inside = (node, tag) => {
  const isIt = (child) => child?.tag === tag && child.content instanceof Uint8Array;
  return Array.isArray(node.content) ? node.content.filter(isIt) : [];
};

export class Arrivals {
  #lib;
  #creds;
  #inbox;
  #failed;
  #polls;
  #names;
  #known = new Set(); // ids of messages that were kept before the library tells of them

  // `failed`: called with the error, before the library hears of it.
  constructor(lib, { creds, keys }, inbox, failed) {
    this.#lib = lib;
    this.#creds = creds;
    this.#inbox = inbox;
    this.#failed = failed;
    this.#polls = new Polls(lib, () => creds.me);
    this.#names = new Names(lib, keys);
  }

  // `current`: whether the socket is still the session's.
  watch(socket, current) {
    const before = (tag, recordsOfNode) => {
      const [name, { ws }] = [`CB:${tag}`, socket];
      const listeners = ws.listeners(name);
      ws.removeAllListeners(name);
      ws.on(name, async (node) => {
        const records = this.#guarded(() => recordsOfNode(node));
        if (records.length) {
          const kept = await this.#keep(records).then(() => true, () => false);
          if (!kept || !current()) return;
        }
        for (const each of listeners) each.call(ws, node);
      });
    };
    before("receipt", (node) => acksOf(this.#lib, node, this.#creds));
    before("call", (node) => callsOf(this.#lib, node, this.#creds));
    before("message", (node) => {
      const keep = (plain) => this.#decrypted(node, plain, current);
      for (const { content } of inside(node, "enc")) beforeItsKeyIsUsed(content, keep);
      return inside(node, "plaintext").flatMap(({ content }) => this.#read(node, content));
    });
  }

  // Frames that need no word of ours.
  frame(frame) {
    if (frame?.tag === "ack") this.#later(() => serverAckOf(this.#lib, frame, this.#creds));
  }

  // A message that the library tells of: most were kept before.
  told(message) {
    if (!this.#known.delete(message.key.id)) this.#later(() => this.#recordsOf(message, true));
  }

  async history(messages) {
    for (let at = 0; at < messages.length; at += HISTORY_AT_ONCE) {
      const part = messages.slice(at, at + HISTORY_AT_ONCE);
      const read = (message) => this.#guarded(() => this.#recordsOf(message, false));
      const records = part.flatMap(read);
      if (records.length) await this.#keep(records);
    }
  }

  async #decrypted(node, padded, current) {
    // The message's connection is gone: undecrypted it comes again, but a used key costs a retry.
    if (!current()) throw new Error("the connection of this message ended");
    const records = this.#guarded(() => this.#read(node, this.#lib.unpadRandomMax16(padded)));
    if (!records.length) return;
    await this.#keep(records);
    this.#known.add(node.attrs.id);
    if (this.#known.size > MOST_KNOWN) this.#known.delete(this.#known.values().next().value);
  }

  #read(node, bytes) {
    const { me } = this.#creds;
    const { fullMessage } = this.#lib.decodeMessageNode(node, me.id, me.lid ?? "");
    const message = this.#lib.proto.Message.decode(bytes);
    return this.#recordsOf({ ...fullMessage, message }, true);
  }

  #recordsOf(message, fresh) {
    if (!message.message) return [];
    this.#guarded(() => this.#polls.note(message)); // a poll that cannot be read costs no message
    const votes = (vote, common) => this.#polls.read(vote, common);
    return recordsOf(this.#lib, message, { me: this.#creds.me, fresh, votes });
  }

  // A message that cannot be read here cannot be read by the library either, which answers it.
  #guarded(work) {
    try {
      return work();
    } catch {
      return [];
    }
  }

  #later(read) {
    const records = this.#guarded(read);
    if (records.length) this.#keep(records).catch(() => {});
  }

  async #keep(records) {
    try {
      await this.#inbox.keep(await Promise.all(records.map((record) => this.#names.show(record))));
    } catch (error) {
      this.#failed(error);
      throw error;
    }
  }
}
