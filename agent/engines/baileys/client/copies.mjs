// Copies of the messages that were sent lately, beside the session's folder: a contact that could
// not read one asks for it again, maybe after this process ended. They are no part of the session:
// no snapshot and no archive has them. One older than a day goes with the next message or start.
import { appendFileSync, closeSync, constants, openSync } from "node:fs";
import { readFileSync, renameSync, writeFileSync } from "node:fs";

const LASTS = 24 * 3600 * 1000;
const LARGEST = 8 << 20; // of the file; the copies that count take a third of it
const LOOK = 3600 * 1000;

export class Copies {
  #path;
  #account; // whose messages these are, as it is now
  #most;
  #size = 0;
  #writtenAt = 0;
  #kept = new Map(); // id → its line, oldest first

  constructor(path, account, most) {
    this.#path = path;
    this.#account = account;
    this.#most = most;
  }

  // [{id, to, bytes}], oldest first; none of another account and none that is too old.
  load() {
    const found = [];
    for (const line of this.#lines()) {
      const copy = read(line);
      if (!copy || copy.account !== this.#account() || !isFresh(copy)) continue;
      this.#kept.set(copy.id, line);
      found.push({ id: copy.id, to: copy.to, bytes: Buffer.from(copy.bytes, "base64") });
    }
    this.#rewrite();
    return found;
  }

  // On a full disk there is none, as there was none before.
  add({ id, to, bytes: plain }) {
    const bytes = Buffer.from(plain).toString("base64");
    const line = JSON.stringify({ id, at: Date.now(), account: this.#account(), to, bytes });
    this.#kept.set(id, line);
    while (this.#kept.size > this.#most) this.#kept.delete(this.#kept.keys().next().value);
    const isOld = Date.now() - this.#writtenAt > LOOK;
    if (this.#size + line.length > LARGEST || isOld) return this.#rewrite();
    try {
      appendFileSync(this.#path, line + "\n", { mode: 0o600 });
      this.#size += line.length + 1;
    } catch {}
  }

  #lines() {
    let file;
    try {
      file = openSync(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const text = readFileSync(file, "utf8");
      this.#size = text.length;
      return text.length <= 2 * LARGEST ? text.split("\n") : [];
    } catch {
      return [];
    } finally {
      if (file !== undefined) closeSync(file);
    }
  }

  #rewrite() {
    for (const [id, line] of this.#kept) if (!isFresh(read(line))) this.#kept.delete(id);
    const text = [...this.#kept.values()].map((line) => line + "\n").join("");
    this.#writtenAt = Date.now();
    if (!text && !this.#size) return;
    try {
      writeFileSync(this.#path + ".new", text, { mode: 0o600 });
      renameSync(this.#path + ".new", this.#path);
      this.#size = text.length;
    } catch {}
  }
}

function read(line) {
  try {
    const copy = JSON.parse(line);
    const { id, bytes, to } = copy;
    const whole = typeof id === "string" && typeof bytes === "string" && Array.isArray(to);
    return whole ? copy : null;
  } catch {
    return null; // a kill tore it
  }
}

// A clock that was set back makes none younger than it can be.
const isFresh = ({ at }) => Math.abs(Date.now() - at) < LASTS;
