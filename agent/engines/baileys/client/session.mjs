// One session on the unmodified library: one socket at a time; what happens becomes plain events.
import { setTimeout as sleep } from "node:timers/promises";
import { Arrivals } from "./arrivals.mjs";
import { Downloads } from "./downloads.mjs";
import { Inbox } from "./inbox.mjs";
import { makeLogger, masked } from "./log.mjs";
import { ackOf, contentOf, jidOf, optionsOf, refuse, senderOf, typeOf } from "./messages.mjs";
import { Moments } from "./moments.mjs";
import { MOST_ACKS } from "./notices.mjs";
import { idOf, newId } from "./own_ids.mjs";
import { repositoryOf } from "./signal.mjs";
import { Sent } from "./sent.mjs";
import { Store } from "./store.mjs";
import { Uploads, namingSides } from "./uploads.mjs";

const KEEP_ALIVE = 25_000;
const QUERY = 30_000; // two of them fit into the time that a start may take
const PING = 5_000;
const LOGOUT = 10_000;
const TELLING = 2000; // for a message under way when a disk or a network hangs
const NEW_PRE_KEYS = 30;
const AGAIN = 30_000; // for a phone to give a file again

const now = () => performance.now() / 1000;
// Seconds that WhatsApp names; null where the number is no time that a clock can reach.
const secondsOf = (raw) => (Number(raw) > 0 && Number(raw) < 4e9 ? Number(raw) : null);
// These credentials of a linked device never change, whatever stanza of a pairing comes later.
const FIXED = ["noiseKey", "signedIdentityKey", "registrationId", "advSecretKey", "account"];
const pauseOf = (ms) => sleep(ms, undefined, { ref: false });
const queryOf = (socket, type, xmlns, child) => ({
  tag: "iq",
  attrs: { id: socket.generateMessageTag(), to: "s.whatsapp.net", type, xmlns },
  content: [child],
});
const tagsIn = ({ content }) => (Array.isArray(content) ? content.map(({ tag }) => tag) : []);
const keepFixed = (creds) => {
  for (const name of FIXED) {
    const value = creds[name];
    Object.defineProperty(creds, name, { get: () => value, set() {}, enumerable: true });
  }
};

export class Session {
  #lib;
  #load;
  #emit;
  #settings = null;
  #state = null;
  #store = null;
  #socket = null;
  #open = false;
  #heardAt = null;
  #endedWith = null;
  #ended = null; // resolves with the code of the connection's end
  #unanswered = new Map(); // messages that the server has not confirmed yet
  #sent = null;
  #uploads = new Uploads();
  #downloads = new Downloads("");
  #agent; // of the proxy, for files
  #moments = new Moments();
  #inbox = null; // null: no records of messages are wanted
  #arrivals = null;
  #mending = null;
  #wasPaired = false;
  #scanned = false; // in this connection
  #linked = null; // resolves when a pairing that was just made is on the disk

  constructor(lib, load, emit) {
    this.#lib = lib;
    this.#load = load;
    this.#emit = emit;
  }

  async open(settings) {
    this.#settings = settings;
    this.#downloads = new Downloads(settings.media_url ?? "");
    const broken = (error) => {
      const lost = "; the scan was not stored, and WhatsApp linked no device: scan again";
      const raw = this.#linked ? error.message + lost : error.message;
      this.#emit({ event: "store", code: error.code, raw });
      this.#hangUp();
    };
    this.#store = new Store(settings.folder, this.#lib, broken, this.#emit);
    this.#state = await this.#store.open(settings.paired);
    this.#sent = new Sent(this.#lib, this.#state, settings.copies);
    if (settings.keeps) {
      this.#inbox = new Inbox(this.#emit);
      const failed = (error) => this.#notKept(error);
      this.#arrivals = new Arrivals(this.#lib, this.#state, this.#inbox, failed);
    }
    this.#wasPaired = this.#identity().paired;
    if (this.#wasPaired) keepFixed(this.#state.creds);
    return this.#identity();
  }

  async connect() {
    if (this.#socket) return;
    this.#endedWith = null;
    this.#linked = null;
    this.#scanned = false;
    // A pairing code that led to no device: the library would log in with its number, and WhatsApp
    // would call that a logout.
    const { creds } = this.#state;
    if (creds.me && !creds.account && creds.pairingCode) {
      Object.assign(creds, { me: undefined, pairingCode: undefined, registered: false });
    }
    const { url, version, browser, proxy } = this.#settings;
    const agents = proxy ? await this.#agents(proxy) : {};
    this.#agent = agents.agent;
    const socket = this.#lib.makeWASocket({
      auth: this.#state,
      makeSignalRepository: repositoryOf(this.#lib, this.#state.keys),
      logger: makeLogger((line) => this.#socket === socket && this.#emit(line)),
      markOnlineOnConnect: false,
      syncFullHistory: false,
      generateHighQualityLinkPreview: false,
      keepAliveIntervalMs: KEEP_ALIVE,
      defaultQueryTimeoutMs: QUERY,
      retryRequestDelayMs: 0, // all messages would wait for it, those of other contacts too
      getMessage: async (key) => this.#sent.again(key.id),
      msgRetryCounterCache: this.#sent.counts,
      cachedGroupMetadata: (jid) => this.#sent.group(socket, jid),
      ...(url ? { waWebSocketUrl: url } : {}),
      ...(version ? { version } : {}),
      ...(browser ? { browser: [browser, "Chrome", "1.0"] } : {}),
      ...agents,
    });
    this.#socket = socket;
    const isMine = () => this.#socket === socket;
    const wire = socket.ws.socket;
    const send = wire.send.bind(wire);
    wire.send = (...frame) => {
      if (!this.#linked) return send(...frame);
      // The frame that confirms a scan waits until the disk has it: before, nothing is linked.
      this.#linked.then(() => isMine() && send(...frame), () => {});
    };
    // Peers' data reaches these: an error of one event ends no session of this process.
    const mine = (work) => (...data) => {
      if (!isMine()) return;
      try {
        work(...data);
      } catch (error) {
        this.#emit({ event: "stray", name: error?.name ?? "Error", code: error?.code ?? "" });
      }
    };
    this.#arrivals?.watch(socket, isMine);
    socket.ws.on("frame", mine((frame) => this.#frame(frame)));
    socket.ev.on("connection.update", mine((update) => this.#update(update)));
    socket.ev.on("creds.update", mine((update) => this.#keepCreds(update)));
    socket.ev.on("messages.upsert", mine((batch) => this.#messages(batch)));
    const keepOld = ({ messages }) => void this.#arrivals?.history(messages).catch(() => {});
    socket.ev.on("messaging-history.set", mine(keepOld));
    socket.ev.on("messages.update", mine((updates) => this.#acks(updates)));
    socket.ev.on("message-receipt.update", mine((updates) => this.#receipts(updates)));
  }

  // WhatsApp counts a message as delivered from its receipt on: its event leaves before the end.
  async disconnect() {
    const socket = this.#socket;
    const told = socket?.messageMutex.mutex(() => this.#socket === socket && this.#hangUp());
    await Promise.race([told, pauseOf(TELLING)]);
    this.#hangUp();
    await this.#kept();
    await this.#store?.settled();
  }

  // The worker has the records of a line on its disk, or cannot keep them.
  kept(order) {
    this.#inbox?.kept(order);
  }

  // The worker is gone: what waits for it is not kept.
  unwatched() {
    this.#inbox?.end();
  }

  // A worker that stands still holds up no stop.
  async #kept() {
    if (this.#inbox) await Promise.race([this.#inbox.settled(), pauseOf(TELLING)]);
  }

  // Before the library hears of it: it says nothing to WhatsApp, which gives the messages again.
  #notKept(error) {
    if (!this.#socket) return;
    this.#hangUp();
    this.#emit({ event: "not_kept", raw: error.message });
  }

  // A tick of this loop, how old the last frame is, and with `ask` a question to the server.
  async look({ ask, seconds = PING / 1000 }) {
    void this.#mend(); // not awaited: a disk that hangs is no loop that hangs
    const answer = { open: this.#open, frame_age: this.#age() };
    if (!ask || !this.#open) return answer;
    const begun = now();
    const ping = queryOf(this.#socket, "get", "w:p", { tag: "ping", attrs: {} });
    try {
      // The library gives nothing, or throws, where no answer came.
      if (!(await this.#socket.query(ping, seconds * 1000))) throw refuse("no_answer", "");
    } catch {
      throw refuse("no_answer", `WhatsApp did not answer a ping within ${seconds} s`);
    }
    return { ...answer, frame_age: this.#age(), ping_seconds: now() - begun };
  }

  async pairingCode({ phone }) {
    const waits = this.#socket && !this.#state.creds.me?.lid;
    if (!waits) throw refuse("not_ready", "no login is waiting for a code");
    return { code: await this.#socket.requestPairingCode(phone.replace(/\D/g, "")) };
  }

  // For contacts that were given one of the lost ones: WhatsApp hands out new ones in the end.
  async uploadPreKeys() {
    await this.#connected().uploadPreKeys(NEW_PRE_KEYS);
  }

  async send(order) {
    const socket = this.#connected();
    const { message } = order;
    const jid = jidOf(message.to);
    const options = optionsOf(message, jid);
    const content = contentOf(message, jid, this.#uploads);
    const { private: secret } = this.#state.creds.noiseKey;
    const id = message.key ? idOf(secret, message.key) : newId(secret);
    const answered = new Promise((resolve) => this.#unanswered.set(id, resolve));
    const timer = setTimeout(() => this.#acked({ id, silent: true }), (order.seconds ?? 20) * 1000);
    const { upload, named } = namingSides(socket, message.url);
    try {
      const sent = socket.sendMessage(jid, content, { ...options, upload, messageId: id });
      this.#sent.remember(await sent.catch((error) => Promise.reject(named(error))));
      return { id, ...(await answered) };
    } finally {
      clearTimeout(timer);
      this.#unanswered.delete(id);
    }
  }

  // The server has it, or says why it will not; silence is neither.
  #acked({ id, error = "", silent = false }) {
    const [outcome, ack] = error ? ["refused", "error"] : ["sent", "server"];
    const refused = String(error);
    this.#unanswered.get(id)?.(silent ? { outcome: "unknown" } : { outcome, error: refused });
    if (!silent) this.#emit({ event: "ack", id, ack, refused });
  }

  async read({ asked }) {
    await this.#moments.read(this.#connected(), asked);
  }

  async presence({ asked }) {
    const socket = this.#connected();
    await this.#moments.show(socket, asked, () => this.#socket === socket && this.#open);
  }

  filePart({ part }) {
    return this.#uploads.take(part);
  }

  async fileOpen({ file }) {
    this.#connected();
    return this.#downloads.open(file, this.#agent, () => this.#fileAgain(file));
  }

  fileNext({ download }) {
    return this.#downloads.next(download);
  }

  fileClose({ download }) {
    this.#downloads.close(download);
  }

  // Asks the phone that has the message to upload its file again; returns the path of the upload.
  async #fileAgain({ type, media, chat, message_id, from_me }) {
    const part = { mediaKey: Buffer.from(media.key, "base64") };
    const fromMe = from_me === true;
    const key = { remoteJid: media.chat ?? chat, id: message_id, fromMe, participant: media.by };
    const late = pauseOf(AGAIN).then(() => Promise.reject(refuse("late", "")));
    late.catch(() => {});
    try {
      const message = { [`${type}Message`]: part };
      const asked = this.#socket.updateMediaMessage({ key, message });
      asked.catch(() => {});
      await Promise.race([asked, late]);
    } catch {
      const words = "WhatsApp does not have the file any more, and the phone did not give it again";
      throw refuse("media_gone", words);
    }
    return part.directPath;
  }

  // The library's own logout hangs up before WhatsApp has it. Here WhatsApp confirms it, or ends
  // the connection because of it; what is neither was no logout.
  async logout() {
    const socket = this.#connected();
    const { id: jid } = this.#state.creds.me;
    const removal = { tag: "remove-companion-device", attrs: { jid, reason: "user_initiated" } };
    const query = queryOf(socket, "set", "md", removal);
    const ended = new Promise((resolve) => (this.#ended = resolve));
    const answered = socket.query(query, LOGOUT).catch(() => null);
    const confirmed = answered.then((answer) => (answer ? 401 : null));
    const code = (await Promise.race([ended, confirmed])) ?? this.#endedWith;
    const late = `WhatsApp did not confirm the logout within ${LOGOUT / 1000} s`;
    if (code !== 401) throw refuse("not_confirmed", late);
    if (this.#socket !== socket) return;
    this.#hangUp();
    this.#emit({ event: "close", code: 401, raw: "logged out by the agent", expire: null });
  }

  async save() {
    await this.#mend();
    await this.#kept();
    await this.#store?.settled();
  }

  async #mend() {
    if (!this.#open) return;
    // The store reports a failure itself.
    const mend = () => this.#store.mendCreds(this.#state.creds).catch(() => {});
    this.#mending ??= mend().finally(() => (this.#mending = null));
    await this.#mending;
  }

  #identity() {
    const { me, account, registered, pairingCode } = this.#state.creds;
    // With a pairing code the library says `registered` before WhatsApp has linked the device.
    const paired = Boolean(me?.id && (account || (registered && !pairingCode)));
    return { paired, account: (me?.id ?? "").split(/[:@]/)[0] };
  }

  #connected() {
    if (!this.#open) throw refuse("not_connected", "not connected");
    return this.#socket;
  }

  #age() {
    return this.#heardAt === null ? null : now() - this.#heardAt;
  }

  #hangUp() {
    const socket = this.#socket;
    try {
      socket?.ev.flush(); // the library drops what it has not told yet
    } catch {} // it hangs up, whatever the library says
    this.#socket = null;
    this.#open = false;
    this.#heardAt = null;
    this.#downloads.end();
    if (socket) socket.end(undefined);
  }

  async #agents(proxy) {
    const socks = proxy.startsWith("socks");
    const found = await this.#load(socks ? "socks-proxy-agent" : "https-proxy-agent");
    const agent = socks ? new found.SocksProxyAgent(proxy) : new found.HttpsProxyAgent(proxy);
    return { agent, fetchAgent: agent };
  }

  #frame(frame) {
    this.#heardAt = now();
    this.#arrivals?.frame(frame);
    if (frame?.tag === "ack" && frame.attrs.class === "message") this.#acked(frame.attrs);
    if (frame?.tag === "success") this.#emit({ event: "welcomed" });
    if (frame?.tag === "iq" && tagsIn(frame).includes("pair-success")) this.#scan();
    if (frame?.tag !== "notification") return;
    const words = [frame.attrs.type, ...tagsIn(frame)];
    if (words.some((word) => /^passkey/.test(word))) this.#emit({ event: "passkey" });
    else if (frame.attrs.type === "link_code_companion_reg") this.#emit({ event: "accepted" });
  }

  // Two phones may scan one code at once. The credentials are of one account: the first one's. The
  // second gets no answer, so WhatsApp links no device to it, whose keys would be lost.
  #scan() {
    if (!this.#scanned && !this.#wasPaired) this.#scanned = true;
    else {
      this.#socket.ws.removeAllListeners("CB:iq,,pair-success");
      this.#emit({ event: "scanned_again" });
    }
  }

  #update({ connection, lastDisconnect, qr, isNewLogin, reachoutTimeLock }) {
    if (qr && !this.#wasPaired) this.#emit({ event: "qr", qr }); // a linked device shows none
    const tellPaired = () => this.#emit({ event: "paired", ...this.#identity() });
    if (isNewLogin) Promise.resolve(this.#linked).then(tellPaired, () => {});
    if (reachoutTimeLock) {
      const { isActive, timeEnforcementEnds: ends } = reachoutTimeLock;
      this.#emit({ event: "restricted", active: isActive === true, until: secondsOf(ends) });
    }
    if (connection === "connecting") this.#emit({ event: "connecting" });
    if (connection === "open") {
      this.#open = true;
      const version = this.#settings.version ?? this.#lib.DEFAULT_CONNECTION_CONFIG.version;
      this.#emit({ event: "open", version: version.join("."), ...this.#identity() });
    }
    if (connection === "close") this.#closed(lastDisconnect?.error);
  }

  #closed(error) {
    const { statusCode = null } = error?.output ?? {};
    const data = error?.data ?? {};
    const attrs = data.attrs ?? data;
    // The refusal of a login, or the removal of the device, ends a pairing: after any other word on
    // an open connection the next login shows whether it has ended.
    const proved = attrs.type === "device_removed" || (!this.#open && !data.tag);
    this.#endedWith = statusCode;
    this.#ended?.(statusCode);
    this.#hangUp();
    const raw = masked(error?.output?.payload?.message ?? error?.message ?? "");
    const expire = secondsOf(attrs.expire);
    this.#emit({ event: "close", code: statusCode, raw, proved, expire });
  }

  #keepCreds(update) {
    Object.assign(this.#state.creds, update);
    // The store itself reports a failure.
    const saved = this.#store.saveCreds(this.#state.creds);
    saved.catch(() => {});
    // The library has the update in its credentials by now: they do not tell what was before.
    if (this.#wasPaired || !this.#identity().paired) return;
    this.#wasPaired = true;
    keepFixed(this.#state.creds);
    this.#linked = saved;
    saved.then(() => (this.#linked = null), () => {});
  }

  #messages({ messages, type }) {
    for (const message of messages) {
      if (message.messageStubType === 2 || !message.message) continue;
      this.#arrivals?.told(message);
      const { id, fromMe } = message.key;
      const fresh = type === "notify";
      const out = fromMe === true;
      // A message that this session sent itself was never encrypted for it.
      const sender = out && !fresh ? {} : senderOf(message.key, this.#state.creds.me);
      if (message.message.protocolMessage) {
        this.#emit({ event: "readable", id, ...sender });
        continue;
      }
      if (out) this.#sent.remember(message);
      const direction = out ? "out" : "in";
      const kind = typeOf(message.message);
      this.#emit({ event: "message", direction, type: kind, id, fresh, ...sender });
    }
  }

  #acks(updates) {
    for (const { key, update } of updates.slice(0, MOST_ACKS)) {
      if (update.status === undefined || !key.fromMe) continue;
      const refused = update.messageStubParameters?.[0] ?? "";
      this.#emit({ event: "ack", id: key.id, ack: ackOf(update.status), refused });
    }
  }

  #receipts(updates) {
    for (const { key, receipt } of updates.slice(0, MOST_ACKS)) {
      const ack = receipt.readTimestamp ? "read" : receipt.receiptTimestamp ? "delivered" : "";
      if (ack && key.fromMe) this.#emit({ event: "ack", id: key.id, ack, refused: "" });
    }
  }
}
