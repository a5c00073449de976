// A stand-in for the library whatsapp-web.js: its Client with the doors that bots use, and no browser.
// Lines of JSON on the socket PHONE say what happens: {"emit": [event, ...]}, {"state": …, "info": …}.
const { EventEmitter } = require("node:events");
const { createServer } = require("node:net");
const { appendFileSync, rmSync } = require("node:fs");

class Client extends EventEmitter {
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

  async destroy() {
    appendFileSync(`${process.env.PHONE}.log`, "destroyed\n");
    this.server.close();
  }
}

module.exports = { Client };
