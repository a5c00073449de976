// One client's socket: frames, handshake, and then stanzas both ways.
import { setTimeout as sleep } from 'node:timers/promises';
import { Noise } from './noise.js';
import { node, openDialect, stanzaOf } from './stanza.js';

// A client that has sent ClientFinish still has to change its keys: what comes at once is lost. 6.x
// does so in a thread of its own, which a busy machine lets wait. By the version of its dictionary.
const BEFORE_THE_FIRST_STANZA = { 2: 600, 3: 200 };
const DROPPED_WITHIN = 1000;

export class Connection {
  dialect = null;
  device = null;
  /** The connection's row in `logins` of WhatsApp; null before its login. */
  login = null;
  /** The client has asked for what waits for it. */
  active = false;
  silent = false;

  #bytes = Buffer.alloc(0);
  #socket;
  #noise = null;
  #step = 'hello';
  #work = Promise.resolve();
  #whatsapp;
  #certificates;

  constructor(socket, address, whatsapp, certificates) {
    this.#socket = socket;
    this.address = address;
    this.#whatsapp = whatsapp;
    this.#certificates = certificates;
    // One after the other: the keys count frames.
    socket.on('message', (bytes) => {
      this.#work = this.#work.then(() => this.#take(bytes)).catch((error) => this.#fail(error));
    });
    socket.on('close', () => whatsapp.gone(this));
    socket.on('error', () => {});
  }

  get open() {
    return this.#socket.readyState === this.#socket.OPEN;
  }

  send(stanza) {
    if (this.silent || !this.open) return;
    this.#frame(this.#noise.seal(this.dialect.encode(stanza)));
  }

  /** Say a last word and hang up. */
  end(stanza) {
    this.send(stanza);
    this.#socket.close();
  }

  /** No last word: the client sees its connection end. A socket that is destroyed while it holds
   * unread bytes would reset the connection instead, which is another error over there. */
  drop() {
    this.silent = true;
    this.#whatsapp.gone(this);
    this.#socket._socket?.end();
    setTimeout(() => this.#socket.terminate(), DROPPED_WITHIN).unref();
  }

  /** Does a fault to this connection instead of what it waits for. True: nothing comes after it. */
  suffer({ kind, stanza, bytes = '', code }) {
    const raw = Buffer.from(bytes, 'base64');
    if (kind === 'raw') this.#socket.send(raw);
    else if (kind === 'half') this.#socket.send(Buffer.concat([Buffer.from([0, 255, 255]), raw]));
    else if (kind === 'silence') this.silent = true;
    else if (kind === 'close') this.#socket.close(code);
    else if (kind === 'drop' || this.#step !== 'stanzas') this.drop();
    else if (kind === 'sealed') this.#frame(this.#noise.seal(raw));
    else if (kind === 'last') this.end(stanzaOf(stanza));
    else {
      this.send(stanzaOf(stanza));
      return false;
    }
    return true;
  }

  #suffers(stage) {
    const ambush = this.#whatsapp.ambush;
    if (ambush?.stage !== stage) return false;
    this.#whatsapp.ambush = null;
    return this.suffer(ambush);
  }

  #fail(error) {
    if (this.open) console.error(`cannot serve a client: ${error.stack}`);
    this.drop();
  }

  #frame(bytes) {
    const length = Buffer.alloc(3);
    length.writeUIntBE(bytes.length, 0, 3);
    this.#socket.send(Buffer.concat([length, bytes]));
  }

  async #take(bytes) {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    if (!this.#noise && !(await this.#takeHeader())) return;
    while (this.#bytes.length >= 3) {
      const end = 3 + this.#bytes.readUIntBE(0, 3);
      if (this.#bytes.length < end) return;
      const frame = this.#bytes.subarray(3, end);
      this.#bytes = this.#bytes.subarray(end);
      await this.#takeFrame(frame);
    }
  }

  async #takeHeader() {
    let from = 0;
    if (this.#bytes.subarray(0, 2).toString() === 'ED') {
      if (this.#bytes.length < 7) return false;
      from = 7 + this.#bytes.readUIntBE(4, 3);
    }
    if (this.#bytes.length < from + 4) return false;
    const header = this.#bytes.subarray(from, from + 4);
    if (header.subarray(0, 3).toString('latin1') !== 'WA\x06') throw new Error('no client of ours');
    this.dialect = await openDialect(header[3]);
    this.#noise = new Noise(header, this.#certificates);
    this.#bytes = this.#bytes.subarray(from + 4);
    return true;
  }

  async #takeFrame(frame) {
    if (this.#step === 'hello') {
      if (this.#suffers('hello')) return;
      this.#frame(this.#noise.hello(frame));
      this.#step = 'finish';
    } else if (this.#step === 'finish') {
      const { noiseKey, wish } = this.#noise.finish(frame);
      this.#step = 'stanzas';
      await sleep(BEFORE_THE_FIRST_STANZA[this.dialect.version]);
      // A client that left meanwhile does not log in.
      if (this.open && !this.#suffers('finish')) this.#whatsapp.greet(this, noiseKey, wish);
    } else {
      const stanza = await this.dialect.decode(this.#noise.unseal(frame));
      if (this.login) this.login.last = Date.now();
      if (this.silent || this.#suffers('first')) return;
      await this.#whatsapp.take(this, stanza);
    }
  }
}

export const failure = (code) => node('failure', { reason: String(code), location: 'stand-in' });
export const streamError = (code) => node('stream:error', { code: String(code) });
export const conflict = (type) =>
  node('stream:error', type === 'device_removed' ? { code: '401' } : {}, [node('conflict', { type })]);
