// A record of the store: its file's name, its bytes, and whether the library can use what they say.
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";

export const CREDS = "creds.json";
const ORDINARY = /^[\x20-\x7e]{1,200}$/; // every name of WhatsApp's own
const MOST_READ = 64 << 20; // bytes of any record: a larger one is none, and would fill the memory
export const NOT_PLAIN = "NOT_PLAIN";
const KINDS = "pre-key|session|sender-key-memory|sender-key|app-state-sync-(?:key|version)";
const KIND = new RegExp(`^(${KINDS}|lid-mapping|device-list|tctoken|identity-key)-`);

export class StoreError extends Error {
  constructor(code, file, cause) {
    // A record's name holds a contact's number.
    const [, kind] = KIND.exec(file) ?? [];
    super(`${kind ? `a ${kind} record` : file}: ${cause}`);
    this.code = code;
  }
}

// The library's own file name, also where it gives two keys the same one: a contact's address ends
// the names that it chooses, so it meets its own keys only. null: such a key is never stored.
export function fileOf(name) {
  const file = name.replace(/\//g, "__").replace(/:/g, "-") + ".json";
  return ORDINARY.test(file) ? file : null;
}

// A link leads to another session's file, and a pipe would be waited for. A thread costs far more.
export function readPlain(path) {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW);
  try {
    const found = fstatSync(fd);
    const isPlain = found.isFile() && found.size <= MOST_READ;
    if (!isPlain) throw Object.assign(new Error("no plain file"), { code: NOT_PLAIN });
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}

// True if the library can use the record. Another shape fails all messages of its contact or group.
export function isWhole(file, value) {
  const [, kind] = KIND.exec(file) ?? [];
  if (kind === "lid-mapping") return typeof value === "string";
  if (kind === "device-list") return Array.isArray(value);
  if (kind === "sender-key" && value !== null) {
    return Array.isArray(JSON.parse(Buffer.from(value).toString()));
  }
  return typeof value === "object" && value !== null && !(file === CREDS && Array.isArray(value));
}
