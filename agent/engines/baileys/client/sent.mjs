// The messages that this session sent lately, for the one case that a receiver asks for one again.
//
// A contact that knows a message's id can ask for it again. The library looks the message up by
// that id alone, and encrypts it for the contact that asks: here it goes only to its own receivers.
import { Copies } from "./copies.mjs";

const MOST_RECENT = 200;
const MOST_RECENT_BYTES = 2 << 20;
const MOST_IDS = 1000; // more than the library itself keeps
const MOST_COUNTS = 10_000;

const trim = (map, most) => {
  while (map.size > most) map.delete(map.keys().next().value);
};

export class Sent {
  #lib;
  #state; // the session's credentials and keys
  #recent = new Map(); // as they are sent: id → bytes
  #recentBytes = 0;
  #receivers = new Map(); // id → the accounts that it was sent to
  #members = new Map(); // group → the accounts in it when it was last asked for
  #counts = new Map();
  #copies;

  // `path` of their copies, which outlive this process; "" = there are none.
  constructor(lib, state, path = "") {
    this.#lib = lib;
    this.#state = state;
    const account = () => this.#accountOf(state.creds.me?.id ?? "");
    this.#copies = path && new Copies(path, account, MOST_RECENT);
    const copies = this.#copies ? this.#copies.load() : [];
    for (const { id, to, bytes } of copies) this.#take(id, new Set(to), bytes);
  }

  remember(message) {
    const { id, remoteJid } = message?.key ?? {};
    if (!message?.message || this.#receivers.has(id)) return;
    const receivers = this.#members.get(remoteJid) ?? new Set([this.#accountOf(remoteJid)]);
    const bytes = this.#lib.proto.Message.encode(message.message).finish();
    this.#take(id, receivers, bytes);
    const fits = this.#copies && bytes.length <= MOST_RECENT_BYTES;
    if (fits) this.#copies.add({ id, to: [...receivers], bytes });
  }

  #take(id, receivers, bytes) {
    this.#receivers.set(id, receivers);
    trim(this.#receivers, MOST_IDS);
    this.#recent.set(id, bytes);
    this.#recentBytes += bytes.length;
    while (this.#recent.size > MOST_RECENT || this.#recentBytes > MOST_RECENT_BYTES) {
      const [oldest, { length }] = this.#recent.entries().next().value;
      this.#recent.delete(oldest);
      this.#recentBytes -= length;
    }
  }

  again(id) {
    const bytes = this.#recent.get(id);
    return bytes && this.#lib.proto.Message.decode(bytes);
  }

  // The library takes the members of a group from here: each message to the group goes to these.
  async group(socket, jid) {
    const about = await socket.groupMetadata(jid);
    const told = about.participants.flatMap(({ id, lid, phoneNumber }) => [id, lid, phoneNumber]);
    this.#members.delete(jid);
    this.#members.set(jid, new Set(told.filter(Boolean).map((each) => this.#accountOf(each))));
    trim(this.#members, MOST_RECENT);
    return about;
  }

  // How often a message was asked for, as the library counts it: before it sends one again it
  // always looks here. For who was never sent it, that was often enough.
  get counts() {
    const { maxMsgRetryCount: most } = this.#lib.DEFAULT_CONNECTION_CONFIG;
    return {
      get: async (key) => ((await this.#mayAsk(key)) ? this.#counts.get(key) : most),
      set: async (key, count) => {
        this.#counts.set(key, count);
        trim(this.#counts, MOST_COUNTS);
      },
      del: async (key) => this.#counts.delete(key),
    };
  }

  async #mayAsk(key) {
    const at = key.indexOf(":");
    const receivers = this.#receivers.get(key.slice(0, at));
    if (!receivers) return true; // nothing that was sent here
    const asker = this.#accountOf(key.slice(at + 1));
    const { me } = this.#state.creds;
    if ([me?.id, me?.lid].some((own) => own && this.#accountOf(own) === asker)) return true;
    return receivers.has(asker) || receivers.has(await this.#otherNameOf(asker));
  }

  // A contact has two: the phone's number, and one that WhatsApp gave it.
  async #otherNameOf(account) {
    const { user, server } = this.#lib.jidDecode(account) ?? {};
    const name = server === "lid" ? `${user}_reverse` : user;
    const { [name]: other } = await this.#state.keys.get("lid-mapping", [name]);
    return other && this.#lib.jidEncode(other, server === "lid" ? "s.whatsapp.net" : "lid");
  }

  #accountOf(jid) {
    return this.#lib.jidNormalizedUser(jid);
  }
}
