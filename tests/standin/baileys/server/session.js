// One real Baileys session with its folder, as the public whaticket-like servers hold it.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const AGAIN_AFTER = 2000;
const SETTLES = 100;
const MOST_CODES = 3;
/** WhatsApp wants no more of these credentials. */
const FINAL = new Set([401, 402, 403, 405, 406, 409, 411, 440]);
const RESTART = 515;

export class Session {
  status = 'DISCONNECTED';
  qrcode = '';
  retries = 0;
  updatedAt = new Date();

  #socket = null;
  #wanted = false;
  #codes = 0;
  #run = 0;
  #setting;
  #saving = Promise.resolve();

  constructor(id, name, setting) {
    this.id = id;
    this.name = name;
    this.#setting = setting;
  }

  get folder() {
    return join(this.#setting.folder, String(this.id));
  }

  show() {
    const { id, name, status, qrcode, retries, updatedAt } = this;
    return { id, name, status, qrcode, retries, updatedAt };
  }

  async start() {
    await this.stop();
    this.#wanted = true;
    this.#codes = 0;
    await this.#open();
  }

  /** Close the socket; the pairing stays. Returns when what was under way is saved. */
  async stop() {
    this.#wanted = false;
    this.#run += 1;
    const socket = this.#socket;
    this.#socket = null;
    await socket?.end(undefined);
    if (socket) await this.#saved();
    this.#tell('DISCONNECTED');
  }

  /** Resolves after the last save: the client may save once more after its socket is closed. */
  async #saved() {
    let seen;
    do {
      seen = this.#saving;
      await seen;
      await sleep(SETTLES);
    } while (seen !== this.#saving);
  }

  async logout() {
    if (!this.#socket) throw new Error('ERR_WAPP_NOT_INITIALIZED');
    this.#wanted = false;
    await this.#socket.logout();
  }

  /** Give the pairing up and show a new code. */
  async renew() {
    await this.stop();
    await rm(this.folder, { recursive: true, force: true });
    await this.start();
  }

  async send(number, body) {
    if (this.status !== 'CONNECTED') throw new Error('ERR_WAPP_NOT_INITIALIZED');
    const jid = number.includes('@') ? number : `${number}@s.whatsapp.net`;
    await this.#socket.sendMessage(jid, { text: body });
  }

  #tell(status, qrcode = '') {
    Object.assign(this, { status, qrcode, updatedAt: new Date() });
  }

  async #open() {
    const { baileys, url, logger, say } = this.#setting;
    const { makeWASocket, makeCacheableSignalKeyStore, useMultiFileAuthState } = baileys;
    const own = logger.child({ session: this.name });
    say(`Starting session ${this.name}`);
    this.#tell('OPENING');
    const run = ++this.#run;
    const { state, saveCreds } = await useMultiFileAuthState(this.folder);
    if (run !== this.#run) return;
    const keys = makeCacheableSignalKeyStore(state.keys, own);
    const socket = makeWASocket({
      auth: { creds: state.creds, keys },
      waWebSocketUrl: url,
      logger: own,
    });
    this.#socket = socket;
    socket.ev.on('creds.update', () => {
      this.#saving = this.#saving.then(saveCreds).catch((error) => own.error({ err: error }));
    });
    socket.ev.on('connection.update', (update) => {
      this.#follow(socket, update).catch((error) => own.error({ err: error }));
    });
  }

  async #follow(socket, { connection, lastDisconnect, qr }) {
    const error = lastDisconnect?.error;
    if (connection) {
      this.#setting.say(
        `Socket  ${this.name} Connection Update ${connection} ${error?.message ?? ''}`.trimEnd(),
      );
    }
    if (socket !== this.#socket) return;
    if (qr) this.#show(socket, qr);
    if (connection === 'open') {
      this.retries = 0;
      this.#tell('CONNECTED');
      this.#setting.say(`Session: ${this.name} READY`);
    }
    if (connection === 'close') await this.#closed(error?.output?.statusCode);
  }

  #show(socket, qr) {
    this.#codes += 1;
    if (this.#codes > MOST_CODES) {
      this.stop();
      return;
    }
    this.#setting.say(`Session QRCode Generate ${this.name}`);
    this.#tell('qrcode', qr);
  }

  async #closed(code) {
    this.#socket = null;
    const { say, baileys } = this.#setting;
    const told = JSON.stringify({ session: this.name, statusCode: code });
    say(`DESCONECTOU REASON: ${baileys.DisconnectReason[code] ?? code} --> ${told}`);
    await this.#saving;
    if (!this.#wanted || FINAL.has(code)) {
      this.#tell('DISCONNECTED');
      return;
    }
    this.#tell(code === RESTART ? 'OPENING' : 'PENDING');
    if (code !== RESTART) {
      this.retries += 1;
      await sleep(AGAIN_AFTER);
    }
    if (this.#wanted && !this.#socket) await this.#open();
  }
}
