// The server's side of Noise_XX_25519_AESGCM_SHA256 as WhatsApp speaks it: handshake, then frames.
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { curve, proto } from './packages.js';

const MODE = Buffer.from('Noise_XX_25519_AESGCM_SHA256\0\0\0\0');
const NOTHING = Buffer.alloc(0);
const TAG = 16;

const bare = (key) => Buffer.from(key).subarray(-32);
const marked = (key) => Buffer.concat([Buffer.from([5]), bare(key)]);

export const makeKeys = () => {
  const { pubKey, privKey } = curve.generateKeyPair();
  return { open: bare(pubKey), secret: Buffer.from(privKey) };
};

const shared = (keys, open) => Buffer.from(curve.calculateAgreement(marked(open), keys.secret));
const nonce = (count) => {
  const iv = Buffer.alloc(12);
  iv.writeUInt32BE(count, 8);
  return iv;
};
const seal = (key, count, plain, also) => {
  const cipher = createCipheriv('aes-256-gcm', key, nonce(count)).setAAD(also);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
};
const unseal = (key, count, sealed, also) => {
  const cipher = createDecipheriv('aes-256-gcm', key, nonce(count)).setAAD(also);
  cipher.setAuthTag(sealed.subarray(-TAG));
  return Buffer.concat([cipher.update(sealed.subarray(0, -TAG)), cipher.final()]);
};

// The chain is well-formed and signed by a root of ours, which no client knows: rc14 looks at the
// signature but takes any, 6.17.16 does not look.
export const makeCertificates = () => {
  const [root, between, leaf] = [makeKeys(), makeKeys(), makeKeys()];
  const signed = (by, told) => {
    const details = proto.CertChain.NoiseCertificate.Details.encode(told).finish();
    return { details, signature: curve.calculateSignature(by.secret, Buffer.from(details)) };
  };
  const now = Math.floor(Date.now() / 1000);
  const valid = { notBefore: now - 3600, notAfter: now + 86400 };
  const chain = proto.CertChain.encode({
    intermediate: signed(root, { serial: 1, issuerSerial: 0, key: between.open, ...valid }),
    leaf: signed(between, { serial: 2, issuerSerial: 1, key: leaf.open, ...valid }),
  }).finish();
  return { keys: leaf, chain };
};

export class Noise {
  #hash = MODE;
  #salt = MODE;
  #key = MODE;
  #count = 0;
  #ephemeral = makeKeys();
  #ways = null;

  constructor(header, certificates) {
    this.#certificates = certificates;
    this.#authenticate(header);
  }

  #certificates;

  #authenticate(bytes) {
    this.#hash = createHash('sha256').update(this.#hash).update(bytes).digest();
  }

  #derive(bytes) {
    const both = Buffer.from(hkdfSync('sha256', bytes, this.#salt, NOTHING, 64));
    return [both.subarray(0, 32), both.subarray(32)];
  }

  #mix(bytes) {
    [this.#salt, this.#key] = this.#derive(bytes);
    this.#count = 0;
  }

  #sealed(plain) {
    const sealed = seal(this.#key, this.#count++, plain, this.#hash);
    this.#authenticate(sealed);
    return sealed;
  }

  #unsealed(sealed) {
    const plain = unseal(this.#key, this.#count++, sealed, this.#hash);
    this.#authenticate(sealed);
    return plain;
  }

  /** The ServerHello to a ClientHello. */
  hello(frame) {
    const theirs = proto.HandshakeMessage.decode(frame).clientHello.ephemeral;
    const { keys, chain } = this.#certificates;
    this.#authenticate(theirs);
    this.#authenticate(this.#ephemeral.open);
    this.#mix(shared(this.#ephemeral, theirs));
    const fixed = this.#sealed(keys.open);
    this.#mix(shared(keys, theirs));
    const payload = this.#sealed(chain);
    const serverHello = { ephemeral: this.#ephemeral.open, static: fixed, payload };
    return proto.HandshakeMessage.encode({ serverHello }).finish();
  }

  /** Who the client is and what it wants, from its ClientFinish; frames are sealed from here on. */
  finish(frame) {
    const { static: fixed, payload } = proto.HandshakeMessage.decode(frame).clientFinish;
    const noiseKey = this.#unsealed(fixed);
    this.#mix(shared(this.#ephemeral, noiseKey));
    const wish = proto.ClientPayload.decode(this.#unsealed(payload));
    const [theirs, ours] = this.#derive(NOTHING);
    this.#ways = { theirs, ours, heard: 0, said: 0 };
    return { noiseKey, wish };
  }

  seal(plain) {
    return this.#ways ? seal(this.#ways.ours, this.#ways.said++, plain, NOTHING) : plain;
  }

  unseal(sealed) {
    return this.#ways ? unseal(this.#ways.theirs, this.#ways.heard++, sealed, NOTHING) : sealed;
  }
}

export const randomRef = () => `2@${randomBytes(48).toString('base64')}`;
