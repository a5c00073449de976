// An Inbox holds records until the worker has them on its disk: one line of records is under way at
// a time, and records that come meanwhile go together in the next.
import { randomBytes } from "node:crypto";
import { refuse } from "./messages.mjs";

const WITHIN = 20_000; // a worker that stands still longer holds no message: WhatsApp keeps it
const LONGEST = 256 << 10; // characters of a line; one record alone may be as long

export class Inbox {
  #emit;
  #within;
  #waiting = []; // {records, length, resolve, reject}
  #under = null; // {n, entries, timer}
  #begun = randomBytes(6).toString("hex"); // an answer to another client's line is none to these
  #count = 0;
  #idle = [];

  // `within`: ms after which a line that was not answered is not kept.
  constructor(emit, within = WITHIN) {
    this.#emit = emit;
    this.#within = within;
  }

  // Resolves when the worker says that its disk has `records`; else rejects with `not_kept`.
  keep(records) {
    const length = JSON.stringify(records).length;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ records, length, resolve, reject });
      this.#next();
    });
  }

  // The worker's answer to a line.
  kept({ n, error }) {
    if (this.#under?.n !== n) return;
    this.#done(error && refuse("not_kept", String(error)));
  }

  // The worker is gone: all records that wait for its answer are `not_kept`.
  end() {
    const gone = refuse("not_kept", "the worker of this session is gone");
    for (const { reject } of this.#waiting.splice(0)) reject(gone);
    if (this.#under) this.#done(gone);
  }

  // Resolves when nothing waits any more, kept or not.
  async settled() {
    if (this.#under) await new Promise((resolve) => this.#idle.push(resolve));
  }

  #done(error) {
    const { entries, timer } = this.#under;
    clearTimeout(timer);
    this.#under = null;
    for (const { resolve, reject } of entries) error ? reject(error) : resolve();
    this.#next();
    if (!this.#under) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #next() {
    if (this.#under || !this.#waiting.length) return;
    let [count, length] = [0, 0];
    for (const each of this.#waiting) {
      if (count && length + each.length > LONGEST) break;
      length += each.length;
      count += 1;
    }
    const entries = this.#waiting.splice(0, count);
    const n = `${this.#begun}-${(this.#count += 1)}`;
    const late = refuse("not_kept", `the worker did not keep them within ${this.#within / 1000} s`);
    const timer = setTimeout(() => this.#done(late), this.#within);
    timer.unref();
    this.#under = { n, entries, timer };
    this.#emit({ event: "keep", n, records: entries.flatMap(({ records }) => records) });
  }
}
