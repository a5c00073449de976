// WhatsApp as its clients see it: pairing, login, the people, and their messages under way.
import { createHmac, randomBytes } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import { answer } from './answers.js';
import { conflict, failure, streamError } from './connection.js';
import { files } from './files.js';
import { Groups } from './group.js';
import { LinkedDevices } from './linked.js';
import { Media } from './media.js';
import { randomRef } from './noise.js';
import { curve, proto } from './packages.js';
import { Person, enclosedBundle, marked, randomId, takeBundle } from './person.js';
import { WHATSAPP, child, children, node, parts } from './stanza.js';

const REFS = 6;
const BY_ACCOUNT = Buffer.from([6, 0]);
const BY_DEVICE = Buffer.from([6, 1]);

const now = () => Math.floor(Date.now() / 1000);
const same = (one, other) => Buffer.compare(Buffer.from(one), Buffer.from(other)) === 0;

/** A part of the history that Baileys 6 takes notice of and does not load: it holds back all that comes
 *  to a new device until the first one is there. */
function historyOfStatuses() {
  const { HISTORY_SYNC_NOTIFICATION: type } = proto.Message.ProtocolMessage.Type;
  return { type, historySyncNotification: { syncType: proto.HistorySync.HistorySyncType.INITIAL_STATUS_V3 } };
}

export class WhatsApp {
  people = new Map();
  devices = new Map();
  groups = new Groups(this);
  media = new Media();
  others = new LinkedDevices(this);
  /** Every login of a device, in order: of two of one device, the first must have ended. */
  logins = [];
  /** The fault that waits for the next connection that comes to its stage. */
  ambush = null;
  #waiting = new Map();
  #nextDevice = 1;
  #nextId = 1;

  /** A server that knows these people and devices, to which no client has come yet. */
  copy() {
    const other = new WhatsApp();
    for (const [user, person] of this.people) other.people.set(user, person.copy());
    for (const [name, device] of this.devices) {
      const still = { preKeys: new Map(device.preKeys), kept: new Map(), receipts: [] };
      other.devices.set(name, { ...device, ...still, logins: 0, connection: null });
    }
    other.#nextDevice = this.#nextDevice;
    other.#nextId = this.#nextId;
    return other;
  }

  id() {
    return `stand-in-${this.#nextId++}`;
  }

  person(user) {
    if (!this.people.has(user)) this.people.set(user, new Person(user));
    return this.people.get(user);
  }

  personOf(jid) {
    const { user, server } = parts(jid);
    return this.person(server === 'lid' ? user.slice(1) : user);
  }

  /** The devices of one account, its phone excepted. */
  linked(user) {
    return [...this.devices.values()].filter((each) => each.user === user && !each.removed);
  }

  greet(connection, noiseKey, wish) {
    if (wish.devicePairingData) this.#offerPairing(connection, noiseKey, wish.devicePairingData);
    else this.#login(connection, noiseKey, `${wish.username}.${wish.device}`);
  }

  #offerPairing(connection, noiseKey, told) {
    const refs = Array.from({ length: REFS }, randomRef);
    connection.registering = {
      dialect: connection.dialect.version,
      noiseKey: Buffer.from(noiseKey),
      identity: Buffer.from(told.eIdent),
      registration: Buffer.from(told.eRegid).readUInt32BE(0),
      signedKey: {
        keyId: Buffer.from(told.eSkeyId).readUIntBE(0, 3),
        publicKey: marked(told.eSkeyVal),
        signature: Buffer.from(told.eSkeySig),
      },
    };
    for (const ref of refs) this.#waiting.set(ref, connection);
    const offered = refs.map((ref) => node('ref', {}, Buffer.from(ref)));
    connection.send(
      node('iq', { from: WHATSAPP, type: 'set', id: this.id(), xmlns: 'md' }, [
        node('pair-device', {}, offered),
      ]),
    );
  }

  /** A phone scans the code that a client shows. */
  scan(qr, user) {
    const [ref, noiseKey, identity, secret] = qr.replace(/^[^#]*#/, '').split(',');
    const connection = this.#waiting.get(ref);
    if (!connection?.open) throw new Error('nobody waits with this code');
    const registering = connection.registering;
    const shown = [noiseKey, identity].map((each) => Buffer.from(each, 'base64'));
    if (!same(shown[0], registering.noiseKey) || !same(shown[1], registering.identity)) {
      throw new Error('the code shows other keys than its client has');
    }
    const phone = this.person(user);
    if (phone.passkey) {
      this.#askForPasskey(connection);
      return { user };
    }
    const number = this.#nextDevice++;
    const details = proto.ADVDeviceIdentity.encode({
      rawId: number,
      timestamp: now(),
      keyIndex: number,
    }).finish();
    const signed = Buffer.concat([BY_ACCOUNT, details, registering.identity]);
    const account = {
      details,
      accountSignatureKey: phone.identity.pubKey.subarray(1),
      accountSignature: curve.calculateSignature(phone.identity.privKey, signed),
    };
    const sealed = Buffer.from(proto.ADVSignedDeviceIdentity.encode(account).finish());
    const hmac = createHmac('sha256', Buffer.from(secret, 'base64')).update(sealed).digest();
    const device = {
      ...registering,
      ...{ user, number, account, preKeys: new Map(), refused: null, kept: new Map() },
      ...{ logins: 0, connection: null, removed: false, synced: false, receipts: [] },
    };
    const id = this.id();
    (connection.pairings ??= new Map()).set(id, device);
    connection.send(
      node('iq', { from: WHATSAPP, type: 'set', id, xmlns: 'md' }, [
        node('pair-success', {}, [
          node(
            'device-identity',
            {},
            proto.ADVSignedDeviceIdentityHMAC.encode({ details: sealed, hmac }).finish(),
          ),
          node('device', { jid: this.jid(device), lid: `${phone.lid}:${number}@lid` }),
          node('platform', { name: 'android' }),
        ]),
      ]),
    );
    return { user, device: number };
  }

  #askForPasskey(connection) {
    const options = node('passkey_request_options', {}, Buffer.from('{"rpId":"whatsapp.com"}'));
    const attrs = { from: WHATSAPP, type: 'passkey_prologue_request', id: this.id(), t: now() };
    connection.send(node('notification', { ...attrs, t: String(attrs.t) }, [options]));
  }

  /** A phone takes the pairing code that a client asked for; no device comes of it here. */
  enterCode(user) {
    const connection = [...this.#waiting.values()].find((each) => each.open && each.linkCode === user);
    if (!connection) throw new Error('nobody waits with a pairing code');
    const phone = this.person(user);
    const inside = {
      link_code_pairing_ref: randomBytes(16),
      link_code_pairing_wrapped_primary_ephemeral_pub: randomBytes(80),
      primary_identity_pub: Buffer.from(phone.identity.pubKey).subarray(-32),
    };
    const told = Object.entries(inside).map(([tag, bytes]) => node(tag, {}, bytes));
    const type = 'link_code_companion_reg';
    const attrs = { from: WHATSAPP, type, id: this.id(), t: String(now()) };
    connection.send(node('notification', attrs, [node(type, { stage: 'primary_hello' }, told)]));
    if (phone.passkey) this.#askForPasskey(connection);
    return { user };
  }

  jid(device) {
    return `${device.user}:${device.number}${WHATSAPP}`;
  }

  /** The client signed in turn: it is paired, and shall log in. */
  #confirm(connection, stanza) {
    const device = connection.pairings.get(stanza.attrs.id);
    const sign = child(child(stanza, 'pair-device-sign'), 'device-identity');
    const told = proto.ADVSignedDeviceIdentity.decode(sign.content);
    const { details, accountSignatureKey } = device.account;
    const signed = Buffer.concat([BY_DEVICE, details, device.identity, accountSignatureKey]);
    const identity = marked(device.identity);
    if (!curve.verifySignature(identity, signed, Buffer.from(told.deviceSignature))) {
      throw new Error('the client signed with another key');
    }
    this.devices.set(`${device.user}.${device.number}`, device);
    connection.pairings.delete(stanza.attrs.id);
    connection.end(streamError(515));
  }

  #login(connection, noiseKey, name) {
    const device = this.devices.get(name);
    if (!device || device.removed || !same(device.noiseKey, noiseKey)) {
      connection.end(failure(401));
    } else if (device.refused) {
      connection.end(failure(device.refused));
    } else {
      device.connection?.end(conflict('replaced'));
      device.connection = connection;
      connection.device = device;
      device.logins += 1;
      const { user, number } = device;
      const times = { begun: Date.now(), last: 0, ended: null };
      connection.login = { user, device: number, address: connection.address, ...times };
      this.logins.push(connection.login);
      const lid = `${this.person(device.user).lid}:${device.number}@lid`;
      connection.send(node('success', { t: String(now()), lid, location: 'stand-in' }));
    }
  }

  /** The client has all it needs: what waited for it comes now. */
  async active(connection) {
    const { device } = connection;
    for (const stanza of device.kept.values()) {
      stanza.attrs.offline = '0';
      connection.send(stanza);
    }
    const count = String(device.kept.size);
    connection.send(node('ib', { from: WHATSAPP }, [node('offline', { count })]));
    connection.active = true;
    if (!device.synced) {
      device.synced = true;
      await this.#shareFromPhone(device);
    }
  }

  gone(connection) {
    const { device, login } = connection;
    if (login) login.ended ??= Date.now();
    if (device?.connection === connection) device.connection = null;
    for (const [ref, each] of this.#waiting) if (each === connection) this.#waiting.delete(ref);
  }

  async take(connection, stanza) {
    if (stanza.tag === 'iq') await this.#takeQuery(connection, stanza);
    else if (stanza.tag === 'message') await this.#takeMessage(connection, stanza);
    else if (stanza.tag === 'receipt') await this.#takeReceipt(connection, stanza);
    else if (['presence', 'chatstate'].includes(stanza.tag)) this.#showPresence(connection, stanza);
    else if (stanza.tag === 'ack' && !stanza.attrs.error) {
      connection.device?.kept.delete(stanza.attrs.id);
    }
  }

  async #takeQuery(connection, stanza) {
    if (stanza.attrs.type === 'result') {
      if (connection.pairings?.has(stanza.attrs.id)) this.#confirm(connection, stanza);
      return;
    }
    const linking = child(stanza, 'link_code_companion_reg');
    if (linking?.attrs.stage === 'companion_hello') connection.linkCode = parts(linking.attrs.jid).user;
    const { id, xmlns } = stanza.attrs;
    const unwilling = connection.device?.unwilling;
    if (unwilling && unwilling.xmlns === xmlns) {
      const { refusal } = unwilling;
      if (refusal) connection.send(node('iq', { from: WHATSAPP, type: 'error', id }, [node('error', refusal)]));
      return;
    }
    const content = answer(this, connection, stanza);
    connection.send(node('iq', { from: WHATSAPP, type: 'result', id }, content));
    if (child(stanza, 'active')) await this.active(connection);
  }

  async #takeMessage(connection, stanza) {
    const { device } = connection;
    const { id, to } = stanza.attrs;
    if (!device.unanswered) connection.send(node('ack', { class: 'message', id, from: to, t: String(now()) }));
    for (const each of children(child(stanza, 'participants'), 'to')) {
      if (!this.others.of(each.attrs.jid)) await this.#deliver(device, parts(each.attrs.jid), each, stanza);
    }
    await this.others.deliver(device, stanza);
    if (to.endsWith('@g.us')) await this.groups.deliver(device, stanza);
    else if (child(stanza, 'enc')) await this.#deliver(device, parts(to), stanza, stanza);
  }

  async #deliver(device, to, holder, stanza) {
    const person = this.personOf(`${to.user}@${to.server}`);
    const { id } = stanza.attrs;
    try {
      const enc = child(holder, 'enc');
      const message = await person.decrypt(`${device.user}.${device.number}`, enc);
      const shared = message.senderKeyDistributionMessage;
      if (shared) await this.groups.take(person, device, shared);
      const text = message.conversation || message.extendedTextMessage?.text;
      const file = this.media.read(message);
      if (text || file) person.heard.push({ from: device.user, id, type: enc.attrs.type, text, file });
      if (person.user === device.user) return;
      person.screen.take({ id, from: device.user, chat: device.user, edit: stanza.attrs.edit }, message);
      device.connection?.send(
        node('receipt', { from: `${to.user}@${to.server}`, id, t: String(now()) }),
      );
    } catch (error) {
      person.unread += 1;
      console.log(`${person.user} cannot read ${id}: ${error.message}`);
      const again = person.askAgain(id, stanza.attrs.t ?? String(now()));
      const from = `${to.user}@${to.server}`;
      if (again) this.put(device, node('receipt', { from, id, type: 'retry', t: String(now()) }, again));
    }
  }

  async #takeReceipt(connection, stanza) {
    const { device } = connection;
    const { id, to, participant, type = 'delivered' } = stanza.attrs;
    connection.send(node('ack', { class: 'receipt', id, from: to }));
    device.receipts.push({ id, type, at: Date.now() });
    if (type === 'read') {
      const more = children(child(stanza, 'list'), 'item').map((each) => each.attrs.id);
      this.#tellReader(device, participant ?? to, [id, ...more], to);
      return;
    }
    device.kept.delete(id);
    if (this.others.tell(device, stanza)) return;
    if (type === 'server-error') return this.#giveAgain(device, stanza);
    if (type !== 'retry') return;
    const person = this.personOf(participant ?? to);
    person.retries += 1;
    if (!person.answers) return;
    const { count } = child(stanza, 'retry').attrs;
    if (this.groups.has(id)) {
      await this.groups.again(device, id, count);
      return;
    }
    const message = person.sent.get(id);
    if (message === undefined) return;
    // From the second retry on a client encloses keys.
    const keys = person.takesKeys && child(stanza, 'keys');
    const bundle = keys ? () => enclosedBundle(device, keys) : undefined;
    await this.#write(person, device, message, { id, count, bundle });
  }

  /** The phone is asked for a file that WhatsApp has no more. */
  #giveAgain(device, stanza) {
    const { jid, participant } = child(stanza, 'rmr').attrs;
    const [part] = Object.values(this.personOf(participant ?? jid).sent.get(stanza.attrs.id) ?? {});
    if (part) this.put(device, files.retry(part, { id: stanza.attrs.id, content: stanza.content }));
  }

  /** A receipt reaches the writer of these messages only, and names them in that chat, as they were
   * named in the messages' stanzas. */
  #tellReader(device, writer, ids, to) {
    if ((device.dialect === 3) !== writer.endsWith('@lid')) return;
    if (to.endsWith('@g.us') && writer === to) return;
    const { screen } = this.personOf(writer);
    const chat = to.endsWith('@g.us') ? to : device.user;
    const own = (each) => each.from === '' && each.chat === chat;
    for (const id of ids) if (screen.messages.some((each) => each.id === id && own(each))) screen.read.push(id);
  }

  #showPresence({ device }, stanza) {
    const { to, type } = stanza.attrs;
    if (stanza.tag === 'presence') {
      if (stanza.attrs.name) for (const { screen } of this.people.values()) screen.presences.push({ from: device.user, state: type });
      return;
    }
    const [{ tag, attrs }] = stanza.content;
    const state = attrs.media === 'audio' ? 'recording' : tag;
    const readers = to.endsWith('@g.us') ? this.groups.members(to) : [this.personOf(to).user];
    const chat = to.endsWith('@g.us') ? to : device.user;
    for (const user of readers) if (user !== device.user) this.person(user).screen.presences.push({ from: device.user, chat, state });
  }

  /** A contact writes to every linked device of an account. `attrs`: of the stanza, instead of its own. */
  async say(from, to, message, { id = randomId(), attrs } = {}) {
    const person = this.person(from);
    person.sent.set(id, message);
    person.screen.wrote(id, to, message.conversation ?? message.extendedTextMessage?.text);
    const devices = this.linked(to);
    if (!devices.length) throw new Error(`${to} has no linked device`);
    for (const device of devices) await this.#write(person, device, message, { id, more: attrs });
    return id;
  }

  async #write(person, device, message, { id, count, category, more, bundle = () => takeBundle(device) }) {
    const address = `${device.user}.${device.number}`;
    const told = proto.Message.fromObject(message);
    const enc = await person.encryptMessage(address, told, bundle, Boolean(count));
    if (count) enc.attrs.count = count;
    if (person.corrupts) enc.content[enc.content.length - 3] ^= 0xff;
    const [pn, lid] = [`${person.user}${WHATSAPP}`, `${person.lid}@lid`];
    // Clients of the newer dictionary know people by their LID.
    const newer = device.dialect === 3 && person.user !== device.user;
    const attrs = newer
      ? { from: lid, sender_pn: pn, addressing_mode: 'lid' }
      : { from: pn, category };
    const stanza = node(
      'message',
      { ...attrs, id, type: 'text', t: String(now()), notify: person.user, ...more },
      [enc],
    );
    this.put(device, stanza);
  }

  /** To the client now, and again when it comes back before it has confirmed it. */
  put(device, stanza) {
    device.kept.set(stanza.attrs.id, stanza);
    if (device.connection?.active) device.connection.send(stanza);
  }

  /** The phone gives a new device a key of the app state, and its history. */
  async #shareFromPhone(device) {
    const phone = this.person(device.user);
    const { Type } = proto.Message.ProtocolMessage;
    const keyData = {
      keyData: Buffer.alloc(32, device.number),
      fingerprint: { rawId: device.number, currentIndex: 0, deviceIndexes: [0] },
      timestamp: now(),
    };
    const keyId = { keyId: Buffer.from([0, 0, 0, 0, 0, device.number]) };
    const share = { type: Type.APP_STATE_SYNC_KEY_SHARE, appStateSyncKeyShare: { keys: [{ keyId, keyData }] } };
    const told = [share, device.dialect === 3 ? this.#historyOf([]) : historyOfStatuses()];
    for (const protocolMessage of told) {
      await this.#write(phone, device, { protocolMessage }, { id: randomId(), category: 'peer' });
    }
  }

  #historyOf(conversations) {
    const syncType = proto.HistorySync.HistorySyncType.RECENT;
    const told = proto.HistorySync.fromObject({ syncType, progress: 100, conversations });
    const bytes = deflateSync(proto.HistorySync.encode(told).finish());
    const { HISTORY_SYNC_NOTIFICATION: type } = proto.Message.ProtocolMessage.Type;
    return { type, historySyncNotification: { syncType, initialHistBootstrapInlinePayload: bytes } };
  }

  /** Trouble on command, for one account's devices. */
  trouble(user, { kind, code, type, xmlns, refusal }) {
    for (const device of this.linked(user)) {
      const { connection } = device;
      if (kind === 'refuse') device.refused = code;
      else if (kind === 'none') device.refused = device.unanswered = device.unwilling = null;
      else if (kind === 'unanswered') device.unanswered = true;
      else if (kind === 'queries') device.unwilling = { xmlns, refusal };
      else if (kind === 'silence') {
        if (connection) connection.silent = true;
      } else if (kind === 'stream_error') connection?.end(streamError(code));
      else if (kind === 'conflict') {
        if (type === 'device_removed') device.removed = true;
        connection?.end(conflict(type));
      } else throw new Error(`no such trouble: ${kind}`);
      if (kind === 'refuse') connection?.end(failure(code));
    }
  }
}
