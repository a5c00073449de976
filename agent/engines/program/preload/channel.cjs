"use strict";
// Lines of JSON to the worker, and its questions. It never keeps the program alive, and never fails it.
const { Socket } = require("node:net");

const MOST_WAITING = 1 << 20;
// An answer says that the program's loop turns; before its library is there it can say no more.
const WORKS = { turn() {} };

class Channel {
  #socket;
  #rest = "";
  #works = WORKS;
  #ready = false;

  constructor(fd) {
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on("error", () => {});
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (text) => this.#take(text));
    this.#socket.unref();
    this.tell("preloaded", { pid: process.pid });
  }

  /** The functions that answer the worker's questions: those of the library that is used, and `more` of what it can. */
  serve(works, more = {}) {
    this.#works = { ...WORKS, ...works };
    if (!this.#ready) this.tell("ready", more);
    this.#ready = true;
  }

  tell(event, more) {
    this.#write({ event, ...more });
  }

  #write(line) {
    // A worker that does not read costs the program no memory.
    if (this.#socket.destroyed || this.#socket.writableLength > MOST_WAITING) return;
    this.#socket.write(JSON.stringify(line) + "\n");
  }

  #take(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) void this.#answer(JSON.parse(line));
  }

  async #answer(call) {
    try {
      const work = this.#works[call.do];
      if (!work) throw Object.assign(new Error("not supported"), { code: "not_supported" });
      this.#write({ answer: call.id, ok: (await work(call)) ?? {} });
    } catch (error) {
      const message = String(error?.message ?? error).slice(0, 200);
      this.#write({ answer: call.id, error: { code: String(error?.code ?? "program"), message } });
    }
  }
}

module.exports = { Channel };
