// A bot with two accounts: each has its store and its socket, and reconnects by itself. It knows nothing of wa-agent.
import { writeFileSync } from "node:fs";
import makeWASocket, { DisconnectReason, useMultiFileAuthState } from "baileys";

const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };

async function start(folder) {
  const { state, saveCreds } = await useMultiFileAuthState(folder);
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: process.env.WHATSAPP, qrTimeout: Number(process.env.LASTS) || undefined });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("connection.update", ({ connection, lastDisconnect, qr }) => {
    if (qr) writeFileSync(`${folder}.qr`, qr);
    if (connection) console.log(`${folder} ${connection}`);
    if (connection !== "close" || lastDisconnect?.error?.output?.statusCode === DisconnectReason.loggedOut) return;
    setTimeout(() => void start(folder), 200);
  });
}

for (const folder of process.argv.slice(2)) await start(folder);
