// The session's keys on the disk, one JSON file each, in the layout of the library's own folders.
//
// Every write goes to a temporary file, is flushed, renamed, and the folder is flushed; the library
// hears that it is done only then. Missing is not damaged: credentials that cannot be read end the
// session and are left as they are; nothing here begins a new identity over an old one. Any other
// record that cannot be read is moved aside and absent from then on: it costs one contact a retry.
// A contact names sender keys, and makes records grow: what goes too far is refused alone.
import { constants } from "node:fs";
import { link, lstat, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { CREDS, NOT_PLAIN, StoreError, fileOf, isWhole, readPlain } from "./record.mjs";

const NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
const AT_ONCE = 8;
const GROWING = /^(session|sender-key)-/; // records that grow with what a contact sends
const LARGEST = 2 << 20; // characters of such a record
const SENDER_KEY = /^sender-key-.+--(.+)--\d+\.json$/;
const MOST_SENDER_KEYS = 10_000; // of one contact, or of the session itself: one for each group

const ASIDE = "removed-keys/unreadable";
const AWAY = Symbol("a file that cannot be read");

const contentsOf = (data) => {
  const filesOf = ([type, values]) =>
    Object.entries(values).map(([id, value]) => [fileOf(`${type}-${id}`), value]);
  return Object.entries(data).flatMap(filesOf);
};
// Puts a file on the disk, with this text if there is one; or a folder's names.
async function flush(path, flags, text) {
  const handle = await open(path, flags, 0o600);
  try {
    if (text !== undefined) await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const isRejected = ({ status }) => status === "rejected";
const isThere = (path) => lstat(path).then(() => true, () => false);

export class Store {
  #folder;
  #lib;
  #broken;
  #told;
  #refused = 0;
  #senderKeys = null; // author → how many
  #waiting = new Map(); // file → content, null to remove it, AWAY to move it aside
  #beside = new Map(); // file → {text, temporary}: on the disk already, to be renamed
  #count = 0;
  #resolvers = [];
  #writing = null;
  #failed = null;
  #othersTold = false; // that others' credentials stand in the place of its own
  #inode = 0; // of the folder: another one that takes its place is not this session's

  // `broken`: called once with a StoreError when the disk no longer takes what must be kept.
  // `told`: called with what a person should hear of.
  constructor(folder, lib, broken, told = () => {}) {
    this.#folder = folder;
    this.#lib = lib;
    this.#broken = broken;
    this.#told = told;
  }

  // The state as the library wants it; `paired`: a pairing is known, so no new identity may begin.
  async open(paired) {
    this.#inode = await this.#inodeNow();
    const stored = await this.#read(CREDS);
    if (stored === null) {
      const ours = /^(session|pre-key|sender-key|app-state)/;
      const others = (await readdir(this.#folder)).some((name) => ours.test(name));
      if (paired || others) throw new StoreError("session_missing", CREDS, "it is gone");
    }
    const creds = stored ?? this.#lib.initAuthCreds();
    const get = (type, ids) => this.#get(type, ids);
    const set = (data) => this.#set(data);
    const setNow = (data, allowed) => this.#setNow(data, allowed);
    return { creds, keys: { get, set, setNow } };
  }

  saveCreds(creds) {
    return this.#put(new Map([[CREDS, creds]]));
  }

  // For a connected session: these are the credentials that WhatsApp took. Where the file is gone
  // or cannot be read any more, it is written again; what stood there goes to the unreadable ones.
  async mendCreds(creds) {
    if (this.#failed || this.#waiting.has(CREDS)) return;
    const found = await this.#look(CREDS).catch(() => undefined); // the disk, not the file
    if (found === undefined || (await this.#inodeNow()) !== this.#inode) return;
    if (this.#waiting.has(CREDS)) return;
    if (found !== AWAY && found !== null) return this.#compare(found, creds);
    try {
      if (found === AWAY) await this.#keepAside(CREDS);
    } catch {
      return; // nothing is written over what cannot be kept
    }
    await this.saveCreds(creds);
    this.#told({ event: "creds_mended", gone: found === null });
  }

  // A file stays in its place until another replaces it; a folder cannot be replaced.
  async #keepAside(file) {
    const [from, to] = [join(this.#folder, file), await this.#shelfFor(file)];
    await link(from, to).catch((error) => {
      if (error.code !== "EPERM") throw error;
      return rename(from, to);
    });
  }

  // Whole ones stay as they are: an operator may have put them there. Said once for each change.
  #compare(found, creds) {
    const deviceOf = ({ noiseKey, me }) => this.#textOf([noiseKey?.private, me?.id]);
    const others = deviceOf(found) !== deviceOf(creds);
    if (others && !this.#othersTold) this.#told({ event: "creds_replaced" });
    this.#othersTold = others;
  }

  #inodeNow() {
    return stat(this.#folder).then(({ ino }) => ino, () => 0);
  }

  // Resolves when all that was given so far is on the disk.
  async settled() {
    while (!this.#failed && (this.#writing || this.#waiting.size)) await this.#writing;
    if (this.#failed) throw this.#failed;
  }

  async #get(type, ids) {
    const found = {};
    for (const id of ids) {
      const file = fileOf(`${type}-${id}`);
      let value = file && (await this.#read(file));
      if (type === "app-state-sync-key" && value) {
        value = this.#lib.proto.Message.AppStateSyncKeyData.fromObject(value);
      }
      found[id] = value;
    }
    return found;
  }

  #set(data) {
    const files = new Map();
    for (const [file, value] of contentsOf(data)) {
      if (file) files.set(file, value ?? null);
      else if (value) this.#refuse();
    }
    return this.#put(files);
  }

  // Also libsignal waits for it, with all that the session has for that contact. `allowed`: what
  // must be done before this takes the place of what is there; it is written beside that meanwhile.
  async #setNow(data, allowed) {
    const beside = allowed ? await this.#prepare(data, allowed) : [];
    for (const each of beside) this.#beside.set(each.file, each);
    return this.#set(data);
  }

  async #prepare(data, allowed) {
    const contents = contentsOf(data).filter(([file, value]) => file && value);
    const writes = contents.map(async ([file, value]) => {
      const text = this.#textOf(value);
      return { file, text, temporary: await this.#writeBeside(file, text) };
    });
    const answer = allowed.then(() => null, (error) => ({ error }));
    const [done, refused] = await Promise.all([Promise.allSettled(writes), answer]);
    const beside = done.flatMap(({ value }) => value ?? []);
    const failed = done.find(isRejected);
    if (!refused && !failed) return beside;
    await this.#drop(beside);
    throw refused?.error ?? this.#fail(failed.reason);
  }

  #drop(beside) {
    return Promise.all(beside.map(({ temporary }) => unlink(temporary).catch(() => {})));
  }

  // Said at the first, the tenth, the hundredth...: a contact may go on for ever.
  #refuse() {
    this.#refused += 1;
    const count = this.#refused;
    if (/^10*$/.test(String(count))) this.#told({ event: "key_refused", count });
  }

  async #read(file) {
    if (this.#waiting.has(file)) return this.#awaited(file);
    const value = await this.#stored(file);
    // Meanwhile a newer value may have come, or another reader may have found the same.
    if (value === AWAY && this.#waiting.has(file)) return this.#awaited(file);
    if (value !== AWAY) return value;
    if (file === CREDS) {
      throw this.#fail(new StoreError("session_damaged", CREDS, "it is no JSON object"));
    }
    await this.#put(new Map([[file, AWAY]]));
    return null;
  }

  #awaited(file) {
    const text = this.#waiting.get(file);
    return typeof text === "string" ? this.#parse(text) : null;
  }

  // Older versions of the library, and other programs, write bytes as a list.
  #parse(text) {
    return JSON.parse(text, (key, value) => {
      const isList = value?.type === "Buffer" && Array.isArray(value.data);
      return isList ? Buffer.from(value.data) : this.#lib.BufferJSON.reviver(key, value);
    });
  }

  async #stored(file) {
    try {
      return await this.#look(file);
    } catch (error) {
      throw this.#fail(new StoreError("storage_failed", file, error.code ?? error.message));
    }
  }

  // The value on the disk; null = there is none, AWAY = it cannot be read.
  async #look(file) {
    let text;
    try {
      text = readPlain(join(this.#folder, file));
    } catch (error) {
      if (error.code === "ENOENT") return null;
      if (error.code === "ELOOP" || error.code === NOT_PLAIN) return AWAY;
      throw error;
    }
    try {
      const value = this.#parse(text);
      return isWhole(file, value) ? value : AWAY;
    } catch {
      return AWAY;
    }
  }

  #textOf(value) {
    return JSON.stringify(value, this.#lib.BufferJSON.replacer);
  }

  // Writes of one tick share one flush of the folder.
  #put(files) {
    if (this.#failed) return Promise.reject(this.#failed);
    for (const [file, value] of files) {
      const text = value === null || value === AWAY ? value : this.#textOf(value);
      if (text?.length > LARGEST && GROWING.test(file)) this.#refuse();
      else this.#waiting.set(file, text);
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
          const group = files.slice(at, at + AT_ONCE);
          const commits = group.map(([file, text]) => this.#commit(file, text));
          // Reject only after the other writes of this group have ended, too.
          const failed = (await Promise.allSettled(commits)).find(isRejected);
          if (failed) throw failed.reason;
        }
        await flush(this.#folder, constants.O_RDONLY | constants.O_DIRECTORY);
        // A newer value that came meanwhile is the next round's.
        for (const [file, text] of files) {
          if (this.#waiting.get(file) === text) this.#waiting.delete(file);
        }
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        const word = error.code ?? "write";
        const own = new StoreError("storage_failed", "the session's folder", word);
        const failure = this.#fail(error instanceof StoreError ? error : own);
        for (const { reject } of [...waiting, ...this.#resolvers.splice(0)]) reject(failure);
      }
    }
    this.#writing = null;
  }

  async #commit(file, text) {
    const path = join(this.#folder, file);
    if (text === AWAY) return this.#moveAside(file, path);
    if (text === null) {
      await unlink(path).catch((error) => {
        if (error.code !== "ENOENT") throw new StoreError("storage_failed", file, error.code);
      });
      return;
    }
    if (await this.#isTooMany(file)) return this.#refuse();
    const ready = this.#beside.get(file);
    this.#beside.delete(file);
    const isIt = ready?.text === text;
    if (ready && !isIt) await this.#drop([ready]);
    const temporary = isIt ? ready.temporary : await this.#writeBeside(file, text);
    try {
      await rename(temporary, path).catch(async (error) => {
        if (error.code !== "EISDIR") throw error;
        await this.#keepAside(file);
        await rename(temporary, path);
      });
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw new StoreError("storage_failed", file, error.code ?? "rename");
    }
  }

  // The name of a file that has this content on the disk, and replaces the other one next.
  async #writeBeside(file, text) {
    const temporary = join(this.#folder, `.${file}.${process.pid}.${(this.#count += 1)}.tmp`);
    try {
      await flush(temporary, NEW, text);
    } catch (error) {
      await unlink(temporary).catch(() => {});
      throw new StoreError("storage_failed", file, error.code ?? "write");
    }
    return temporary;
  }

  // It is looked at again: a whole value may have been written since.
  async #moveAside(file, path) {
    if ((await this.#stored(file)) !== AWAY) return;
    try {
      await rename(path, await this.#shelfFor(file));
    } catch (error) {
      throw new StoreError("storage_failed", file, error.code ?? "rename");
    }
    this.#told({ event: "key_unreadable", file }); // once, however many readers found it
  }

  async #shelfFor(file) {
    const shelf = join(this.#folder, ASIDE);
    await mkdir(shelf, { recursive: true, mode: 0o700 });
    let target = join(shelf, file);
    for (let at = 1; await isThere(target); at += 1) target = join(shelf, `${file}.${at}`);
    return target;
  }

  async #isTooMany(file) {
    const [, author] = SENDER_KEY.exec(file) ?? [];
    if (!author) return false;
    if (await isThere(join(this.#folder, file))) return false;
    this.#senderKeys ??= readdir(this.#folder).then((names) => {
      const counts = new Map();
      for (const name of names) {
        const [, whose] = SENDER_KEY.exec(name) ?? [];
        if (whose) counts.set(whose, (counts.get(whose) ?? 0) + 1);
      }
      return counts;
    });
    const counts = await this.#senderKeys;
    const count = counts.get(author) ?? 0;
    if (count >= MOST_SENDER_KEYS) return true;
    counts.set(author, count + 1);
    return false;
  }

  #fail(error) {
    if (!this.#failed) {
      this.#failed = error;
      this.#broken(error);
    }
    return this.#failed;
  }
}
