// A Baileys bot as its users write one: it keeps its session under a relative name and reconnects by
// itself. It knows nothing of wa-agent. WHATSAPP is the address of the stand-in; with SHOW_CODE it prints
// each code, as bots do that are paired by their terminal. It has a fault: a message "hang" ends its loop.
import makeWASocket, { DisconnectReason, useMultiFileAuthState } from "baileys";

const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };

async function start() {
  const { state, saveCreds } = await useMultiFileAuthState("auth_info_baileys");
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: process.env.WHATSAPP });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("messages.upsert", ({ messages }) => {
    console.log(`got ${messages.length} of ${messages[0].key.id}`);
    if (messages.some((its) => its.message?.conversation === "hang")) setTimeout(hang, 500);
  });
  socket.ev.on("connection.update", ({ connection, lastDisconnect, qr }) => {
    if (qr && process.env.SHOW_CODE) console.log(`scan ${qr}`);
    if (connection) console.log(`connection ${connection}`);
    if (connection !== "close") return;
    if (lastDisconnect?.error?.output?.statusCode === DisconnectReason.loggedOut) process.exit(7);
    setTimeout(() => void start(), 200);
  });
}

/** After its receipts, and the keys that they changed, are on their way. */
function hang() {
  console.log("hangs");
  for (;;);
}

console.log(`arguments ${JSON.stringify(process.argv.slice(2))} options ${process.env.NODE_OPTIONS ?? "none"}`);
await start();
