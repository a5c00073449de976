// A Baileys bot as its users write one: useMultiFileAuthState, reconnect, what comes is a line of
// FOLDER/messages, and POST / {to, text} sends. Its phone scans each code at once; FOLDER/status
// has a line for each login. Arguments: PACKAGES FOLDER SOCKET WHATSAPP ACCOUNT PORT.
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [packages, folder, socketUrl, whatsapp, user, port] = process.argv.slice(2);
const { load } = await import(pathToFileURL(join(packages, "load.mjs")));
const { makeWASocket, useMultiFileAuthState } = await load("baileys");
const put = (name, line) => appendFileSync(join(folder, name), JSON.stringify(line) + "\n");
const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };
let socket;
let open = false;

async function start() {
  const { state, saveCreds } = await useMultiFileAuthState(join(folder, "auth"));
  socket = makeWASocket({ auth: state, logger, waWebSocketUrl: socketUrl });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("messages.upsert", ({ messages }) => {
    for (const { key, message } of messages) {
      const text = message?.conversation ?? message?.extendedTextMessage?.text;
      if (text && !key.fromMe) put("messages", { id: key.id, text });
    }
  });
  socket.ev.on("connection.update", ({ connection, qr }) => {
    if (qr) fetch(`${whatsapp}/scan`, { method: "POST", body: JSON.stringify({ qr, user }) }).catch(() => {});
    if (connection) open = connection === "open";
    if (open) put("status", { seconds: (Date.now() - performance.timeOrigin) / 1000 });
    if (connection === "close") setTimeout(() => void start(), 200);
  });
}

createServer(async (request, response) => {
  const read = [];
  for await (const chunk of request) read.push(chunk);
  try {
    if (!open) throw new Error("not connected");
    const { to, text } = JSON.parse(Buffer.concat(read));
    const sent = await socket.sendMessage(`${to}@s.whatsapp.net`, { text });
    response.end(JSON.stringify({ id: sent.key.id }));
  } catch (error) {
    response.writeHead(503).end(JSON.stringify({ error: String(error.message) }));
  }
}).listen(Number(port), "127.0.0.1");
await start();
