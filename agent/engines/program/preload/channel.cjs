"use strict";
// Lines of JSON to the worker, and its questions. It neither keeps the program alive nor fails it.
const MOST_WAITING = 1 << 20;
// A session is lost where the thread or process that had the library has ended.
const lost = (raw) => ({ reason: "connection_lost", raw });
const OTHER_ACCOUNT = lost("one of several accounts of this program was logged out");
const GONE = { look: () => ({ open: false, frame_age: null }) };

class Channel {
  #stream;
  #works = {};
  #ready = false;
  #teller;

  /** `stream` leads to the worker, or to the process that has it. */
  constructor(stream) {
    this.#stream = stream;
    readLines(stream, (call) => void this.#take(call));
    stream.unref();
  }

  /** The functions that answer the worker's questions: those of the library that is used. */
  serve(works) {
    this.#works = works;
    this.#teller = undefined;
    if (!this.#ready) this.tell("ready");
    this.#ready = true;
  }

  tell(event, more) {
    this.#write(this.#stream, { event, ...more });
  }

  /** A thread or a process of the program: the newest that has the library counts. */
  relay(stream) {
    readLines(stream, (line) => {
      if (line.event === "ready") {
        this.#teller = stream;
        this.#ready = true;
      }
      if (this.#teller === stream) this.#write(this.#stream, line);
    });
    stream.on("close", () => {
      if (this.#teller !== stream) return;
      this.#teller = undefined;
      this.#works = GONE;
      this.tell("close", lost("the part of the program that had the library ended"));
    });
  }

  #write(stream, line) {
    // A worker that does not read costs the program no memory.
    if (stream.destroyed || stream.writableLength > MOST_WAITING) return;
    stream.write(JSON.stringify(line) + "\n");
  }

  async #take(call) {
    if (this.#teller) return this.#write(this.#teller, call);
    try {
      const work = this.#works[call.do];
      if (!work) throw Object.assign(new Error("not supported"), { code: "not_supported" });
      this.#write(this.#stream, { answer: call.id, ok: (await work(call)) ?? {} });
    } catch (error) {
      const message = String(error?.message ?? error).slice(0, 200);
      const told = { code: String(error?.code ?? "program"), message };
      this.#write(this.#stream, { answer: call.id, error: told });
    }
  }
}

function readLines(stream, take) {
  let rest = "";
  stream.on("error", () => {});
  stream.setEncoding("utf8");
  stream.on("data", (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      // A line that is no JSON was written there by the program itself, and is left out.
      const said = quietly(() => JSON.parse(line));
      if (said) take(said);
    }
  });
}

/** The program goes on, whatever becomes of our part. */
function quietly(work) {
  try {
    return work();
  } catch {
    return undefined;
  }
}

module.exports = { Channel, OTHER_ACCOUNT, quietly };
