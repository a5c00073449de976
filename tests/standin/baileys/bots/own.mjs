// A bot of somebody's own on Baileys, as its argument says: {library, stores, part, at, stdin, child, data}.
import { Worker, isMainThread, workerData } from "node:worker_threads";
import { fork, spawn } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const told = isMainThread ? process.argv[2] : workerData;
const shape = JSON.parse(told);
const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {}, fatal() {} };

async function library() {
  if (shape.library === "baileys") return import("baileys");
  return createRequire(import.meta.url)("baileys-6");
}

async function start(store) {
  const { makeWASocket, DisconnectReason, useMultiFileAuthState } = await library();
  const { state, saveCreds } = await useMultiFileAuthState(store);
  const socket = makeWASocket({ auth: state, logger, waWebSocketUrl: process.env.WHATSAPP });
  socket.ev.on("creds.update", saveCreds);
  socket.ev.on("messages.upsert", ({ messages }) => {
    for (const { message } of messages) {
      const [word, size] = (message?.conversation ?? "").split(" ");
      if (word === "print") process.stdout.write(`${"x".repeat(Number(size))}\n`);
    }
  });
  socket.ev.on("connection.update", ({ connection, lastDisconnect, qr }) => {
    if (qr) writeFileSync(`code of ${store.replaceAll("/", " ")}`, qr);
    if (connection !== "close" || lastDisconnect?.error?.output?.statusCode === DisconnectReason.loggedOut) return;
    if (shape.at === "at_once") process.exit(1);
    setTimeout(() => (shape.at === "ends" ? process.exit(1) : void start(store)), 200);
  });
}

if (isMainThread && !process.argv[3]) {
  process.title = "somebody's bot";
  if (shape.at === "ignores") process.on("SIGTERM", () => {});
  if (shape.stdin) createInterface({ input: process.stdin }).on("close", () => process.exit(0));
  if (shape.sends) process.send("ready");
  if (shape.data && !existsSync("orders.sqlite")) writeFileSync("orders.sqlite", "all orders of the shop");
  const env = shape.child === "bare" ? { PATH: process.env.PATH } : process.env;
  if (shape.child) spawn("sleep", ["1000"], { detached: true, stdio: "ignore", env, cwd: process.cwd() }).unref();
}
if (shape.part === "fork" && !process.argv[3]) fork(process.argv[1], [told, "part"]);
else if (shape.part === "thread" && isMainThread) new Worker(new URL(import.meta.url), { workerData: told });
else for (const store of shape.stores) await start(store);
