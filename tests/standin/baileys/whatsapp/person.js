// A contact with a phone: real Signal keys, and the texts that came and could be read.
import { randomBytes, randomInt } from 'node:crypto';
import { curve, libsignal, proto } from './packages.js';
import { Screen } from './screen.js';
import { child, node, number, parts } from './stanza.js';

// Phones try a message on copies of their sessions; libsignal steps each session that it tries.
const { SessionCipher } = libsignal;
const { doDecryptWhisperMessage } = SessionCipher.prototype;
SessionCipher.prototype.doDecryptWhisperMessage = async function tryOnCopy(bytes, session) {
  const copy = session && session.constructor.deserialize(session.serialize());
  const plain = await doDecryptWhisperMessage.call(this, bytes, copy);
  delete session.pendingPreKey;
  return Object.assign(session, copy) && plain;
};
const SIGNED = 1;
const MOST_ASKED = 5;

const bare = (key) => Buffer.from(key).subarray(-32);
const marked = (key) => Buffer.concat([Buffer.from([5]), bare(key)]);

const pad = (bytes) => {
  const more = randomInt(1, 17);
  return Buffer.concat([bytes, Buffer.alloc(more, more)]);
};
const unpad = (bytes) => bytes.subarray(0, bytes.length - bytes[bytes.length - 1]);

/** WhatsApp's number for a person when it does not show the phone's. */
export const lidOf = (user) => `1${user}`;
const userOf = (jid) => {
  const { user, server } = parts(jid);
  return server === 'lid' ? user.slice(1) : user;
};

export class Person {
  heard = [];
  screen = new Screen(userOf);
  sent = new Map();
  unread = 0;
  retries = 0;
  /** True if the person sends a message that could not be read again, with new keys. */
  answers = true;
  /** True if no device can read what the person writes. */
  corrupts = false;
  /** True if the person writes again with the keys that a retry encloses, as WhatsApp's clients do;
   * else with the next ones that the server hands out. */
  takesKeys = false;
  /** True if the phone asks again for an unreadable message, as WhatsApp's clients do. */
  asks = false;
  #asked = new Map();
  /** True if WhatsApp asks for a passkey before it links a device of this account. */
  passkey = false;

  #identity = curve.generateKeyPair();
  #registration = randomInt(1, 16380);
  #signedKey = curve.generateKeyPair();
  #preKeys = new Map();
  #records = new Map();
  #nextPreKey = 1;

  constructor(user) {
    this.user = user;
    this.lid = lidOf(user);
    this.screen.self = user;
  }

  /** Who goes on as this one is now. */
  copy() {
    const other = new Person(this.user);
    other.#identity = this.#identity;
    other.#registration = this.#registration;
    other.#signedKey = this.#signedKey;
    other.#preKeys = new Map(this.#preKeys);
    other.#records = new Map(this.#records);
    other.#nextPreKey = this.#nextPreKey;
    return other;
  }

  get identity() {
    return this.#identity;
  }

  /** Returns the keys to write to this person for the first time. */
  bundle(jid) {
    return node('user', { jid }, [this.#registrationNode(), ...this.#keys()]);
  }

  /** Returns the content of a receipt that asks for a message again; from the second time on with
   * keys for a new session. null: it was asked for often enough. */
  askAgain(id, t) {
    const count = (this.#asked.get(id) ?? 0) + 1;
    if (!this.asks || count > MOST_ASKED) return null;
    this.#asked.set(id, count);
    const retry = node('retry', { count: String(count), id, t, v: '1' });
    const keys = count > 1 ? [node('keys', {}, this.#keys())] : [];
    return [retry, this.#registrationNode(), ...keys];
  }

  #registrationNode() {
    return node('registration', {}, number(this.#registration, 4));
  }

  /** Nodes of the person's public keys, one of them for a first message. */
  #keys() {
    const id = this.#nextPreKey++;
    this.#preKeys.set(id, curve.generateKeyPair());
    const signature = curve.calculateSignature(this.#identity.privKey, this.#signedKey.pubKey);
    return [
      node('type', {}, Buffer.from([5])),
      node('identity', {}, bare(this.#identity.pubKey)),
      node('key', {}, [
        node('id', {}, number(id, 3)),
        node('value', {}, bare(this.#preKeys.get(id).pubKey)),
      ]),
      node('skey', {}, [
        node('id', {}, number(SIGNED, 3)),
        node('value', {}, bare(this.#signedKey.pubKey)),
        node('signature', {}, signature),
      ]),
    ];
  }

  /** A message for one device, in the session with it or, with `anew`, in a new one beside the older
   * ones, in which the device may still answer; `takeBundle` gives its keys for that. */
  async encryptMessage(address, message, takeBundle, anew = false) {
    const plain = pad(Buffer.from(proto.Message.encode(message).finish()));
    if (anew || !this.#records.has(address)) {
      const builder = new libsignal.SessionBuilder(this.#storage(), this.#address(address));
      await builder.initOutgoing(takeBundle());
    }
    const { type, body } = await this.#cipher(address).encrypt(plain);
    return node('enc', { v: '2', type: type === 3 ? 'pkmsg' : 'msg' }, Buffer.from(body, 'binary'));
  }

  async decrypt(address, enc) {
    const cipher = this.#cipher(address);
    const bytes = Buffer.from(enc.content);
    const plain =
      enc.attrs.type === 'pkmsg'
        ? await cipher.decryptPreKeyWhisperMessage(bytes)
        : await cipher.decryptWhisperMessage(bytes);
    return proto.Message.decode(unpad(plain));
  }

  #address(address) {
    return libsignal.ProtocolAddress.from(address);
  }

  #cipher(address) {
    return new libsignal.SessionCipher(this.#storage(), this.#address(address));
  }

  #storage() {
    const records = this.#records;
    return {
      loadSession: async (id) =>
        records.has(id) ? libsignal.SessionRecord.deserialize(records.get(id)) : undefined,
      // A record goes on changing after it was stored; what is kept must not.
      storeSession: async (id, record) => {
        records.set(id, structuredClone(record.serialize()));
      },
      isTrustedIdentity: async () => true,
      loadPreKey: async (id) => this.#preKeys.get(Number(id)),
      removePreKey: async (id) => {
        this.#preKeys.delete(Number(id));
      },
      loadSignedPreKey: async () => this.#signedKey,
      getOurIdentity: async () => this.#identity,
      getOurRegistrationId: async () => this.#registration,
    };
  }
}

/** The keys that a client uploaded, as libsignal wants them; takes one pre-key away. */
export const takeBundle = (device) => {
  const [first] = device.preKeys;
  if (first) device.preKeys.delete(first[0]);
  return {
    registrationId: device.registration,
    identityKey: marked(device.identity),
    signedPreKey: device.signedKey,
    preKey: first ? { keyId: first[0], publicKey: marked(first[1]) } : undefined,
  };
};

/** The same from the keys that a client's retry encloses. */
export const enclosedBundle = (device, keys) => {
  const one = child(keys, 'key');
  return {
    registrationId: device.registration,
    identityKey: marked(child(keys, 'identity').content),
    signedPreKey: readSignedKey(child(keys, 'skey')),
    preKey: {
      keyId: Buffer.from(child(one, 'id').content).readUIntBE(0, 3),
      publicKey: marked(child(one, 'value').content),
    },
  };
};

export const readSignedKey = (skey) => ({
  keyId: Buffer.from(child(skey, 'id').content).readUIntBE(0, 3),
  publicKey: marked(child(skey, 'value').content),
  signature: Buffer.from(child(skey, 'signature').content),
});

export const randomId = () => `3EB0${randomBytes(9).toString('hex').toUpperCase()}`;
export { marked };
