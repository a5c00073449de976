// WhatsApp's media servers: they take encrypted files and know nothing of what is in them.
import { createDecipheriv, createHash, createHmac, hkdfSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:https';
import { node } from './stanza.js';

const KINDS = { imageMessage: 'Image', videoMessage: 'Video', audioMessage: 'Audio', documentMessage: 'Document' };
const MAC = 10;

export class Media {
  host = '';
  #files = new Map();

  /** Listens on loopback with this key and certificate. */
  async open(key, cert) {
    const server = createServer({ key, cert }, async (request, response) => {
      const read = [];
      for await (const chunk of request) read.push(chunk);
      const direct_path = `/v/${randomUUID()}`;
      this.#files.set(direct_path, Buffer.concat(read));
      response.end(JSON.stringify({ url: `https://${this.host}${direct_path}`, direct_path }));
    });
    await new Promise((listens) => server.listen(0, '127.0.0.1', listens));
    this.host = `127.0.0.1:${server.address().port}`;
  }

  /** The answer to a client that asks where to put its files. */
  connection() {
    if (!this.host) return [];
    const hosts = [node('host', { hostname: this.host, maxContentLengthBytes: '104857600' })];
    return [node('media_conn', { auth: 'stand-in', ttl: '3600' }, hosts)];
  }

  /** Reads a message with a file as its receiver does; null for one without. */
  read(message) {
    const [name, kind] = Object.entries(KINDS).find(([each]) => message[each]) ?? [];
    if (!name) return null;
    const { mediaKey, directPath, mimetype, caption, fileName } = message[name];
    const keys = Buffer.from(hkdfSync('sha256', mediaKey, Buffer.alloc(0), `WhatsApp ${kind} Keys`, 112));
    const [iv, cipherKey, macKey] = [keys.subarray(0, 16), keys.subarray(16, 48), keys.subarray(48, 80)];
    const stored = this.#files.get(directPath);
    const sealed = stored.subarray(0, -MAC);
    const mac = createHmac('sha256', macKey).update(iv).update(sealed).digest().subarray(0, MAC);
    if (!mac.equals(stored.subarray(-MAC))) throw new Error('the file was changed on its way');
    const cipher = createDecipheriv('aes-256-cbc', cipherKey, iv);
    const hash = createHash('sha256');
    const size = [cipher.update(sealed), cipher.final()].reduce((sum, part) => {
      hash.update(part);
      return sum + part.length;
    }, 0);
    return { kind: kind.toLowerCase(), size, sha256: hash.digest('hex'), mimetype, caption, filename: fileName };
  }
}
