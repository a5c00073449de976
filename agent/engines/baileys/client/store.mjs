// The session's keys on the disk, one JSON file each, in the layout of the library's own folders.
//
// Every write goes to a temporary file, is flushed, renamed, and the folder is flushed; the library
// hears that it is done only then. Missing is not damaged: a file that cannot be read ends the
// session with its name and is left as it is; nothing here begins a new identity over an old one.
import { constants } from "node:fs";
import { open, readFile, readdir, rename, unlink } from "node:fs/promises";
import { join } from "node:path";

const CREDS = "creds.json";
const AT_ONCE = 8;

export class StoreError extends Error {
  constructor(code, file, cause) {
    super(`${file}: ${cause}`);
    this.code = code;
  }
}

export const fileOf = (name) => name.replace(/\//g, "__").replace(/:/g, "-") + ".json";

export class Store {
  #folder;
  #lib;
  #broken;
  #waiting = new Map(); // file → content, or null to remove it
  #resolvers = [];
  #writing = null;
  #failed = null;
  #closed = false;

  // `broken`: called once with a StoreError when the disk no longer takes what must be kept.
  constructor(folder, lib, broken) {
    this.#folder = folder;
    this.#lib = lib;
    this.#broken = broken;
  }

  // The state as the library wants it; `paired`: a pairing is known, so no new identity may begin.
  async open(paired) {
    const stored = await this.#read(CREDS);
    if (stored === null) {
      const others = (await readdir(this.#folder)).filter((name) => /^(session|pre-key|sender-key|app-state)/.test(name));
      if (paired || others.length) throw new StoreError("session_missing", CREDS, "it is gone");
    }
    const creds = stored ?? this.#lib.initAuthCreds();
    return { creds, keys: { get: (type, ids) => this.#get(type, ids), set: (data) => this.#set(data) } };
  }

  saveCreds(creds) {
    return this.#put(new Map([[CREDS, creds]]));
  }

  // What is given from now on is another machine's to write: it is dropped, and never done.
  close() {
    this.#closed = true;
  }

  // Resolves when all that was given so far is on the disk.
  async settled() {
    while (this.#writing || this.#waiting.size) await this.#writing;
    if (this.#failed) throw this.#failed;
  }

  async #get(type, ids) {
    const found = {};
    for (const id of ids) {
      let value = await this.#read(fileOf(`${type}-${id}`));
      if (type === "app-state-sync-key" && value) value = this.#lib.proto.Message.AppStateSyncKeyData.fromObject(value);
      found[id] = value;
    }
    return found;
  }

  #set(data) {
    const files = new Map();
    for (const [type, values] of Object.entries(data)) {
      for (const [id, value] of Object.entries(values)) files.set(fileOf(`${type}-${id}`), value ?? null);
    }
    return this.#put(files);
  }

  async #read(file) {
    if (this.#waiting.has(file)) return this.#revived(file, this.#waiting.get(file));
    let text;
    try {
      text = await readFile(join(this.#folder, file), "utf8");
    } catch (error) {
      if (error.code === "ENOENT") return null;
      throw this.#fail(new StoreError("storage_failed", file, error.code ?? error.message));
    }
    return this.#revived(file, text);
  }

  #revived(file, text) {
    if (text === null) return null;
    try {
      const value = JSON.parse(text, this.#lib.BufferJSON.reviver);
      if (value === null || (file === CREDS && typeof value !== "object")) throw new SyntaxError("no value");
      return value;
    } catch {
      throw this.#fail(new StoreError("session_damaged", file, text.length ? "it is no JSON" : "it is empty"));
    }
  }

  // Writes of one tick share one flush of the folder.
  #put(files) {
    if (this.#closed) return new Promise(() => {});
    if (this.#failed) return Promise.reject(this.#failed);
    for (const [file, value] of files) {
      this.#waiting.set(file, value === null ? null : JSON.stringify(value, this.#lib.BufferJSON.replacer));
    }
    return new Promise((resolve, reject) => {
      this.#resolvers.push({ resolve, reject });
      this.#writing ??= new Promise((next) => setImmediate(next)).then(() => this.#writeAll());
    });
  }

  async #writeAll() {
    while (this.#resolvers.length) {
      const [files, waiting] = [[...this.#waiting], this.#resolvers.splice(0)];
      try {
        for (let at = 0; at < files.length; at += AT_ONCE) {
          const commits = files.slice(at, at + AT_ONCE).map(([file, text]) => this.#commit(file, text));
          // Reject only after the other writes of this group have ended, too.
          const failed = (await Promise.allSettled(commits)).find(({ status }) => status === "rejected");
          if (failed) throw failed.reason;
        }
        await this.#flushFolder();
        // A newer value that came meanwhile is the next round's.
        for (const [file, text] of files) if (this.#waiting.get(file) === text) this.#waiting.delete(file);
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        const failure = this.#fail(error instanceof StoreError ? error : new StoreError("storage_failed", "the session's folder", error.code ?? "write"));
        for (const { reject } of [...waiting, ...this.#resolvers.splice(0)]) reject(failure);
      }
    }
    this.#writing = null;
  }

  async #commit(file, text) {
    const path = join(this.#folder, file);
    if (text === null) {
      await unlink(path).catch((error) => {
        if (error.code !== "ENOENT") throw new StoreError("storage_failed", file, error.code);
      });
      return;
    }
    const temporary = join(this.#folder, `.${file}.${process.pid}.tmp`);
    try {
      const handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW, 0o600);
      try {
        await handle.writeFile(text);
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw new StoreError("storage_failed", file, error.code ?? "write");
    }
  }

  async #flushFolder() {
    const handle = await open(this.#folder, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  #fail(error) {
    if (!this.#failed) {
      this.#failed = error;
      this.#broken(error);
    }
    return this.#failed;
  }
}
