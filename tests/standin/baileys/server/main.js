// A small whaticket-like server over real Baileys: the routes that the agent's preset "spec" asks.
// Arguments: one JSON object {package, folder, url, token, sessions: {id: name}}.
// The standard output is the log, as with the real ones: libsignal prints, Baileys' pino writes.
// The first line says where it listens; it ends when its standard input does.
import { webcrypto } from 'node:crypto';
import { createServer } from 'node:http';
import pino from 'pino';
import { Session } from './session.js';

// Node 18 has it under this name only; 6.17.16 needs it as a global there.
globalThis.crypto ??= webcrypto;

const told = JSON.parse(process.argv[2]);
const found = await import(told.package);
const say = (line) => console.log(`${new Date().toISOString()} INFO ${line}`);
const setting = {
  baileys: found.useMultiFileAuthState ? found : found.default,
  folder: told.folder,
  url: told.url,
  logger: pino({ level: 'error' }, pino.destination({ fd: 1, sync: true })),
  say,
};
const sessions = new Map(
  Object.entries(told.sessions).map(([id, name]) => [id, new Session(Number(id), name, setting)]),
);

class Refusal extends Error {
  constructor(status, word) {
    super(word);
    this.status = status;
  }
}

const find = (id) => {
  const session = sessions.get(id);
  if (!session) throw new Refusal(404, 'ERR_NO_WAPP_FOUND');
  return session;
};

const create = async (name) => {
  const id = Math.max(0, ...[...sessions.keys()].map(Number)) + 1;
  const session = new Session(id, name, setting);
  sessions.set(String(id), session);
  await session.start();
  return session.show();
};

const ROUTES = [
  ['GET', /^\/whatsapp\/?$/, () => [...sessions.values()].map((each) => each.show())],
  ['GET', /^\/whatsapp\/(\w+)$/, ([id]) => find(id).show()],
  [
    'PUT',
    /^\/whatsapp\/(\w+)\/disconnect$/,
    async ([id]) => {
      await find(id).stop();
      return { message: 'Session disconnected.' };
    },
  ],
  [
    'PUT',
    /^\/whatsapp\/(\w+)\/start-session$/,
    async ([id]) => {
      await find(id).start();
      return { message: 'Starting session.' };
    },
  ],
  [
    'PUT',
    /^\/whatsappsession\/(\w+)$/,
    async ([id]) => {
      await find(id).renew();
      return { message: 'Starting session.' };
    },
  ],
  [
    'DELETE',
    /^\/whatsappsession\/(\w+)$/,
    async ([id]) => {
      await find(id).logout();
      return { message: 'Session disconnected.' };
    },
  ],
  ['POST', /^\/whatsapp\/$/, (_, { name }) => create(name)],
  [
    'POST',
    /^\/api\/messages\/send$/,
    async (_, { number, body, whatsappId }) => {
      await find(String(whatsappId)).send(number, body);
      return { mensagem: 'Mensagem enviada' };
    },
  ],
];

const read = async (request) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return chunks.length ? JSON.parse(Buffer.concat(chunks)) : {};
};

const checkToken = (header) => {
  if (!header) throw new Refusal(401, 'ERR_SESSION_EXPIRED');
  if (header !== `Bearer ${told.token}`) {
    throw new Refusal(403, "Invalid token. We'll try to assign a new one on next request");
  }
};

const serve = async (request) => {
  checkToken(request.headers.authorization);
  for (const [verb, path, act] of ROUTES) {
    const match = verb === request.method && path.exec(request.url);
    if (match) return act(match.slice(1), await read(request));
  }
  throw new Refusal(404, 'Not Found');
};

const server = createServer(async (request, response) => {
  const reply = (status, content) =>
    response
      .writeHead(status, { 'content-type': 'application/json' })
      .end(JSON.stringify(content));
  try {
    reply(200, await serve(request));
  } catch (error) {
    if (!(error instanceof Refusal)) say(`cannot ${request.method} ${request.url}: ${error.message}`);
    reply(error.status ?? 500, { error: error.status ? error.message : 'Internal server error' });
  }
});

server.listen(0, '127.0.0.1', () => say(`listening on http://127.0.0.1:${server.address().port}`));
for (const session of sessions.values()) await session.start();
process.stdin.resume().on('end', async () => {
  // In order: a creds.json that is cut short is a lost pairing.
  for (const session of sessions.values()) await session.stop();
  process.exit(0);
});
