// A stand-in for the library whatsapp-web.js: its Client with the doors that bots use, and no browser.
// Lines of JSON on the socket PHONE say what happens: {"emit": [event, ...]}, {"state": …, "info": …}.
const { EventEmitter } = require("node:events");
const { resolve } = require("node:path");
const { createServer } = require("node:net");
const { appendFileSync, rmSync } = require("node:fs");

class LocalAuth {
  userDataDir = resolve("./.wwebjs_auth/session");
}

class Client extends EventEmitter {
  pupPage = new EventEmitter();

  constructor({ authStrategy = new LocalAuth() } = {}) {
    super();
    this.authStrategy = authStrategy;
  }

  async getWWebVersion() {
    return "2.3000";
  }

  async initialize() {
    rmSync(process.env.PHONE, { force: true });
    this.server = createServer((line) => line.on("data", (text) => this.happens(JSON.parse(text))));
    this.server.listen(process.env.PHONE);
  }

  happens({ emit, state, info }) {
    if (state !== undefined) this.state = state;
    if (info) this.info = info;
    if (emit) this.emit(...emit);
  }

  async getState() {
    if (this.state === "hangs") await new Promise(() => {});
    return this.state ?? null;
  }

  async sendMessage(chat, content, options) {
    const log = JSON.stringify({ chat, content, made: content.constructor.name, options });
    appendFileSync(`${process.env.PHONE}.sent`, log + "\n");
    return { id: { fromMe: true, remote: chat, id: `SENT${(this.count = (this.count ?? 0) + 1)}` }, ack: 0 };
  }

  async destroy() {
    appendFileSync(`${process.env.PHONE}.log`, "destroyed\n");
    this.server.close();
  }
}

module.exports = { Client, LocalAuth };
