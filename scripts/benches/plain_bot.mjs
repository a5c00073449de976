// A Baileys bot as its users write one: useMultiFileAuthState, reconnect, nothing else.
// Arguments: PACKAGES FOLDER URL. What happens to it goes to FOLDER/../status, a JSON line each.
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [packages, folder, url] = process.argv.slice(2);
const { load } = await import(pathToFileURL(join(packages, "load.mjs")));
const { makeWASocket, useMultiFileAuthState } = await load("baileys");
const tell = (line) => appendFileSync(join(folder, "..", "status"), JSON.stringify(line) + "\n");
const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };

async function start() {
  const { state, saveCreds } = await useMultiFileAuthState(folder);
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: url });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("connection.update", ({ connection, qr }) => {
    if (qr) tell({ qr });
    if (connection === "open") tell({ open: true, seconds: (Date.now() - performance.timeOrigin) / 1000 });
    if (connection === "close") void start();
  });
}
await start();
