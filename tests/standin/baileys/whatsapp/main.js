// Stands in for WhatsApp's server: ws://127.0.0.1:PORT/ws/chat for clients, http for commands.
// Arguments: [HOST:]PORT [KEY CERTIFICATE], the last two where it takes files, too.
// Prints its address when it listens; ends when its standard input does.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { Connection } from './connection.js';
import { files } from './files.js';
import { makeCertificates } from './noise.js';
import { stanzaOf } from './stanza.js';
import { WhatsApp } from './whatsapp.js';

let whatsapp = new WhatsApp();
let kept = null;
const certificates = makeCertificates();
const [listen = '0', ...tls] = process.argv.slice(2);
const [port, host = '127.0.0.1'] = listen.split(':').reverse();
if (tls.length) await whatsapp.media.open(...tls.map((file) => readFileSync(file)));
/** The WebSockets of all clients. */
let sockets;

const showDevice = (device) => ({
  user: device.user,
  device: device.number,
  connected: device.connection !== null,
  logins: device.logins,
  pre_keys: device.preKeys.size,
  unconfirmed: device.kept.size,
  receipts: device.receipts,
});

const showPerson = ({ user, lid, heard, unread, retries, screen }) => ({
  ...{ user, lid, heard, unread, retries },
  screen: screen.shown(),
});

const COMMANDS = {
  'GET /state': () => ({
    ambush: whatsapp.ambush !== null,
    devices: [...whatsapp.devices.values()].map(showDevice),
    people: [...whatsapp.people.values()].map(showPerson),
    logins: whatsapp.logins,
  }),
  // `user` may be several users: their phones scan one code at once.
  'POST /scan': ({ qr, user }) => [user].flat().map((each) => whatsapp.scan(qr, each)).at(-1),
  'POST /enter_code': ({ user }) => whatsapp.enterCode(user),
  'POST /say': async ({ from, to, text, message, ...more }) => ({
    id: await whatsapp.say(from, to, message ?? { conversation: text }, more),
  }),
  /** A contact sends a file. */
  'POST /say_file': async ({ from, to, kind, fields, ...told }) => {
    const part = { ...(await files.make({ kind, ...told })), ...fields };
    const id = await whatsapp.say(from, to, { [`${kind}Message`]: part });
    return { id, part, sha256: Buffer.from(part.fileSha256, 'base64').toString('hex') };
  },
  'POST /files': async () => {
    await files.listen();
    return { url: files.url, asked: files.asked, again: files.again };
  },
  'POST /group': ({ group, members }) => whatsapp.groups.make(group, members),
  'POST /say_in_group': async ({ from, to, group, text }) => ({
    id: await whatsapp.groups.say(from, to, group, text),
  }),
  'POST /put': ({ user, stanza }) => {
    for (const device of whatsapp.linked(user)) whatsapp.put(device, stanzaOf(stanza));
  },
  /** To the connections that are there, or to the next that comes to that stage. */
  'POST /ambush': ({ user, ...told }) => {
    whatsapp.ambush = null;
    if (told.stage === 'now') for (const { connection } of whatsapp.linked(user)) connection?.suffer(told);
    else if (told.stage) whatsapp.ambush = told;
  },
  'POST /trouble': (told) => whatsapp.trouble(told.user, told),
  'POST /keep': () => {
    kept = whatsapp.copy();
  },
  /** As if this server had just begun: no client is connected, and it knows none but those kept. */
  'POST /anew': async (told) => {
    whatsapp = told.kept ? kept.copy() : new WhatsApp();
    const gone = [...sockets.clients].map((each) => once(each, 'close'));
    for (const each of sockets.clients) each.terminate();
    await Promise.all(gone);
  },
  'POST /person': ({ user, ...told }) => {
    const names = ['answers', 'asks', 'passkey', 'takesKeys', 'corrupts'];
    for (const name of names) if (name in told) whatsapp.person(user)[name] = told[name];
  },
};

const body = async (request) => {
  const read = [];
  for await (const chunk of request) read.push(chunk);
  return read.length ? JSON.parse(Buffer.concat(read)) : {};
};

const server = createServer(async (request, response) => {
  const reply = (status, told) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(told));
  const command = COMMANDS[`${request.method} ${request.url}`];
  if (!command) return reply(404, { error: 'no such command' });
  try {
    reply(200, (await command(await body(request))) ?? {});
  } catch (error) {
    reply(409, { error: error.message });
  }
});

/** A status instead of a WebSocket, where an ambush says so. */
const verifyClient = (_, answer) => {
  const { ambush } = whatsapp;
  if (ambush?.stage !== 'upgrade') return answer(true);
  whatsapp.ambush = null;
  answer(false, ambush.code, 'ambush');
};

sockets = new WebSocketServer({ server, path: '/ws/chat', verifyClient });
sockets.on('connection', (socket, request) => {
  new Connection(socket, request.socket.remoteAddress, whatsapp, certificates);
});

server.listen(Number(port), host, () => {
  console.log(`http://${host}:${server.address().port}`);
});
process.stdin.resume().on('end', () => process.exit(0));
