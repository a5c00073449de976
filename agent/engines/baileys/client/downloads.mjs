// Files of messages that came: fetched from WhatsApp's media servers and decrypted on the way, some
// at a time, in pieces that the worker asks for. The sender of the message chose all of it: the
// address, the keys, the size.
import { createDecipheriv, createHash, createHmac, hkdfSync } from "node:crypto";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { refuse } from "./messages.mjs";

const HOME = "https://mmg.whatsapp.net";
const ORIGIN = "https://web.whatsapp.com";
const STILL = 30_000; // without a byte, and for the whole head of an answer
const LEAST = 8 << 10; // bytes a second, over each STILL
const KEPT = 120_000; // without a question of the worker
const AT_ONCE = 4;
const PIECE = 192 << 10;
const MAC = 10;
const BLOCK = 16;
const LARGEST = 2 ** 31;
const PICTURES = { image: "Image", sticker: "Image" };
const KINDS = { ...PICTURES, video: "Video", audio: "Audio", document: "Document" };

// Where the file is; only ever at WhatsApp, or at the server of `base` that stands in for it. A
// path may hold what makes another host of it, so what counts is the address that comes out.
export function addressOf({ path, url }, base = "") {
  const home = new URL(base || HOME);
  let found;
  try {
    found = path ? new URL(path, home) : new URL(url);
  } catch {
    throw refuse("media_refused", "the address of the file is none");
  }
  const { origin, protocol, port, hostname, username, password } = found;
  const isWhatsApp = protocol === "https:" && !port && hostname.endsWith(".whatsapp.net");
  const ours = origin === home.origin || (!base && isWhatsApp);
  if (username || password || !ours) {
    throw refuse("media_refused", "the address of the file is not WhatsApp's");
  }
  return found;
}

function keysOf({ key }, type) {
  const secret = Buffer.from(key ?? "", "base64");
  const kind = KINDS[type];
  if (secret.length !== 32 || !kind) throw refuse("no_media", "the message has no key of its file");
  const use = `WhatsApp ${kind} Keys`;
  const all = Buffer.from(hkdfSync("sha256", secret, Buffer.alloc(0), use, 112));
  return { iv: all.subarray(0, 16), cipher: all.subarray(16, 48), mac: all.subarray(48, 80) };
}

function refusalOf(status) {
  const isGone = [404, 410].includes(status);
  if (isGone) return refuse("media_gone", "WhatsApp does not have the file any more");
  // Where it would lead, WhatsApp's own servers are no more.
  const leads = "WhatsApp's media server leads to another address";
  if (status >= 300 && status < 400) return refuse("media_refused", leads);
  return refuse("media_unreachable", `WhatsApp's media server answered ${status}`);
}

function answerOf(address, agent, still) {
  return new Promise((resolve, reject) => {
    const ask = address.protocol === "http:" ? requestHttp : requestHttps;
    const asked = ask(address, { agent, headers: { Origin: ORIGIN }, timeout: still }, (answer) => {
      clearTimeout(late);
      if (answer.statusCode === 200) return resolve(answer);
      asked.destroy();
      reject(refusalOf(answer.statusCode));
    });
    const giveUp = () => asked.destroy(refuse("ETIMEDOUT", "nothing came"));
    // A head that comes byte by byte, or informational answers without an end, are never silent.
    const late = setTimeout(giveUp, still);
    asked.on("timeout", giveUp);
    asked.on("error", (error) => {
      clearTimeout(late);
      reject(refuse("media_unreachable", `WhatsApp's media server: ${error.code ?? "no answer"}`));
    });
    asked.end();
  });
}

// Yields the chunks of `answer` while they come fast enough. Only the waiting for the server
// counts: a worker that is slow to take a piece is not the server's fault.
async function* inTime(answer, still) {
  let [waited, bytes, since] = [0, 0, performance.now()];
  for await (const chunk of answer) {
    waited += performance.now() - since;
    bytes += chunk.length;
    if (waited > still) {
      const words = "WhatsApp's media server gives the file too slowly";
      if (bytes < (LEAST * waited) / 1000) throw refuse("media_unreachable", words);
      [waited, bytes] = [0, 0];
    }
    yield chunk;
    since = performance.now();
  }
}

// Yields the decrypted file. The file is the sender's only if this ends without an error.
async function* plainOf(answer, keys, sealed, most) {
  const [hash, mac] = [createHash("sha256"), createHmac("sha256", keys.mac).update(keys.iv)];
  const cipher = createDecipheriv("aes-256-cbc", keys.cipher, keys.iv);
  const damaged = (words) => refuse("media_damaged", words);
  let [tail, size] = [Buffer.alloc(0), 0];
  for await (const chunk of answer) {
    size += chunk.length;
    if (size > most) throw damaged("the file is larger than its message says");
    hash.update(chunk);
    const all = tail.length ? Buffer.concat([tail, chunk]) : chunk;
    const body = all.subarray(0, Math.max(0, all.length - MAC));
    tail = all.subarray(body.length);
    mac.update(body);
    yield cipher.update(body);
  }
  if (sealed && hash.digest("base64") !== sealed) throw damaged("the file was changed on its way");
  const isWhole = mac.digest().subarray(0, MAC).equals(tail);
  if (!isWhole) throw damaged("the file was changed or cut on its way");
  try {
    yield cipher.final();
  } catch {
    throw damaged("the file was not encrypted as WhatsApp's programs do");
  }
}

export class Downloads {
  #base;
  #still;
  #open = new Map(); // name → {answer, pieces, timer}
  #last = 0;

  constructor(base, still = STILL) {
    this.#base = base;
    this.#still = still;
  }

  // Begins with a file; `again` asks the phone for it where WhatsApp has it no more, and resolves
  // with its new path.
  async open({ type, size, media }, agent, again) {
    if (this.#open.size >= AT_ONCE) throw refuse("busy", "too many files are fetched already");
    const name = String((this.#last += 1));
    const file = { answer: null, pieces: null, timer: null };
    this.#open.set(name, file);
    try {
      const keys = keysOf(media, type);
      const answerAt = (place) => answerOf(addressOf(place, this.#base), agent, this.#still);
      file.answer = await answerAt(media).catch(async (error) => {
        if (error.code !== "media_gone") throw error;
        return answerAt({ path: await again() });
      });
      // Decrypted it is shorter by the rest of its last block and the checksum.
      const most = size > 0 ? Math.min(size, LARGEST) + BLOCK + MAC : LARGEST;
      file.pieces = plainOf(inTime(file.answer, this.#still), keys, media.sealed, most);
    } catch (error) {
      this.close(name);
      throw error;
    }
    this.#wait(name, file);
    return { download: name };
  }

  // The next piece; the last one is `done`.
  async next(name) {
    const file = this.#open.get(name);
    if (!file?.pieces) throw refuse("media_unreachable", "this file is not fetched any more");
    this.#wait(name, file);
    const [parts, begun] = [[], Date.now()];
    let [length, done] = [0, false];
    try {
      while (length < PIECE && !done && Date.now() - begun < STILL / 2) {
        const found = await file.pieces.next();
        done = found.done === true;
        if (!done && found.value.length) {
          parts.push(found.value);
          length += found.value.length;
        }
      }
    } catch (error) {
      this.close(name);
      if (error.code?.startsWith("media_")) throw error;
      const words = `the file did not come whole: ${error.code ?? "no answer"}`;
      throw refuse("media_unreachable", words);
    }
    if (done) this.close(name);
    return { data: Buffer.concat(parts).toString("base64"), done };
  }

  close(name) {
    const file = this.#open.get(name);
    this.#open.delete(name);
    clearTimeout(file?.timer);
    file?.answer?.destroy();
  }

  end() {
    for (const name of [...this.#open.keys()]) this.close(name);
  }

  // A worker that is gone, or forgets, leaves no connection open.
  #wait(name, file) {
    clearTimeout(file.timer);
    file.timer = setTimeout(() => this.close(name), KEPT);
    file.timer.unref();
  }
}
