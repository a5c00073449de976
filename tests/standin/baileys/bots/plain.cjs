// The same bot on Baileys 6, which is CommonJS.
const { default: makeWASocket, makeWASocket: same, DisconnectReason, useMultiFileAuthState } = require("baileys-6");

const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };

async function start() {
  const { state, saveCreds } = await useMultiFileAuthState("auth_info_baileys");
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: process.env.WHATSAPP });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("messages.upsert", ({ messages }) => messages.forEach(({ key }) => console.log(`got 1 of ${key.id}`)));
  socket.ev.on("connection.update", ({ connection, lastDisconnect }) => {
    if (connection === "close" && lastDisconnect?.error?.output?.statusCode !== DisconnectReason.loggedOut)
      setTimeout(() => void start(), 200);
  });
}

console.log(`the same ${makeWASocket === same}`);
void start();
