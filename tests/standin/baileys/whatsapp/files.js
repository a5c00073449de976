// WhatsApp's media servers as clients fetch from them: files that people sent, encrypted as theirs are.
import { createCipheriv, createHash, createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { proto } from './packages.js';
import { child, node } from './stanza.js';

const KINDS = { image: 'Image', video: 'Video', audio: 'Audio', document: 'Document', sticker: 'Image' };
const MIB = 1 << 20;

const derive = (key, info, size) => Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), info, size));
const sha256 = (bytes) => createHash('sha256').update(bytes).digest();

class Files {
  url = '';
  /** Path → {bytes, how}: `gone`: nothing there until the phone gives it again; `lost`: the phone has
   * it no more either; `held`: half of it comes, and no more. */
  #files = new Map();
  asked = 0;
  again = 0;

  /** Makes a file of `content`, or of `bytes` bytes; returns what a message says of it. */
  async make({ kind, content, bytes = 1000, how = '' }) {
    const some = randomBytes(Math.min(bytes, MIB));
    const plain = content ? Buffer.from(content, 'base64') : Buffer.alloc(bytes, some);
    const mediaKey = randomBytes(32);
    const keys = derive(mediaKey, `WhatsApp ${KINDS[kind]} Keys`, 112);
    const [iv, cipherKey, macKey] = [keys.subarray(0, 16), keys.subarray(16, 48), keys.subarray(48, 80)];
    const cipher = createCipheriv('aes-256-cbc', cipherKey, iv);
    const body = Buffer.concat([cipher.update(plain), cipher.final()]);
    const mac = createHmac('sha256', macKey).update(iv).update(body).digest().subarray(0, 10);
    const sealed = Buffer.concat([body, mac]);
    const directPath = `/v/${randomBytes(8).toString('hex')}?oh=1`;
    this.#files.set(directPath, { bytes: sealed, how });
    return {
      mediaKey: mediaKey.toString('base64'),
      directPath,
      url: `https://mmg.whatsapp.net${directPath}`,
      fileLength: plain.length,
      fileSha256: sha256(plain).toString('base64'),
      fileEncSha256: sha256(sealed).toString('base64'),
    };
  }

  /** The phone's answer to a client that cannot fetch a file any more. */
  retry(part, { id, content }) {
    this.again += 1;
    const file = this.#files.get(part.directPath);
    const rmr = child({ content }, 'rmr');
    const attrs = { id, from: rmr.attrs.jid, type: 'mediaretry', t: String(Math.floor(Date.now() / 1000)) };
    if (file?.how !== 'gone') return node('notification', attrs, [rmr, node('error', { code: '2' })]);
    const directPath = `${part.directPath}&again`;
    this.#files.set(directPath, { ...file, how: '' });
    const told = { stanzaId: id, directPath, result: 1 };
    const plain = proto.MediaRetryNotification.encode(told).finish();
    const key = derive(Buffer.from(part.mediaKey, 'base64'), 'WhatsApp Media Retry Notification', 32);
    const iv = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(id));
    const sealed = Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    const encrypt = node('encrypt', {}, [node('enc_p', {}, sealed), node('enc_iv', {}, iv)]);
    return node('notification', attrs, [rmr, encrypt]);
  }

  async listen() {
    if (this.url) return;
    const server = createServer(async (request, response) => {
      this.asked += 1;
      const { bytes, how } = this.#files.get(request.url) ?? { how: 'gone' };
      if (how === 'gone' || how === 'lost') return response.writeHead(404).end();
      response.writeHead(200, { 'content-length': bytes.length });
      if (how !== 'held') return response.end(bytes);
      response.write(bytes.subarray(0, bytes.length / 2));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.url = `http://127.0.0.1:${server.address().port}`;
  }
}

/** The files of all accounts: their address stays while WhatsApp begins again. */
export const files = new Files();
