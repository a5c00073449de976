// Files that are too long for one message of the agent: their parts, kept until the message comes.
import { Readable } from "node:stream";
import { refuse } from "./messages.mjs";

const LIMIT = 64 * 1024 * 1024;
const AT_ONCE = 4;
const KEPT = 120_000;

// Which side of a file failed: the library's own error says neither.
export function namingSides(socket, url) {
  let loaded = !url;
  const upload = async (...file) => {
    loaded = true;
    try {
      return await socket.waUploadToServer(...file);
    } catch {
      throw refuse("media_not_taken", "WhatsApp's media server did not take the file");
    }
  };
  const named = (error) => {
    if (loaded || error?.code) return error;
    return refuse("url_unreachable", "the file cannot be loaded from its url");
  };
  return { upload, named };
}

export class Uploads {
  #files = new Map();

  take({ upload, index, data }) {
    const now = Date.now();
    for (const [name, { at }] of this.#files) if (now - at > KEPT) this.#files.delete(name);
    const isName = typeof upload === "string" && /^[0-9a-f]{16,64}$/.test(upload);
    const isPart = isName && Number.isInteger(index) && typeof data === "string";
    if (!isPart) throw refuse("invalid_request", "this is no part of a file");
    const file = this.#files.get(upload) ?? { parts: [], size: 0 };
    const isNew = !file.parts.length;
    if (isNew && this.#files.size >= AT_ONCE) throw refuse("busy", "too many files at once");
    if (index !== file.parts.length) throw refuse("file_lost", "a part of the file is missing");
    const part = Buffer.from(data, "base64");
    file.at = now;
    file.size += part.length;
    if (file.size > LIMIT) {
      this.#files.delete(upload);
      throw refuse("file_too_large", "the file is too large");
    }
    file.parts.push(part);
    this.#files.set(upload, file);
    return { size: file.size };
  }

  // The file as a stream, once, so that it is in memory once; a file that is not whole is none.
  whole({ upload, size }) {
    const file = this.#files.get(upload);
    this.#files.delete(upload);
    const isWhole = file && file.size === size;
    if (!isWhole) throw refuse("file_lost", "the file is not whole here any more");
    return { stream: Readable.from(file.parts) };
  }
}
