// The client's process: commands come as JSON lines on one inherited pipe, events go out on
// another. It ends when its worker does: the end of the command pipe is the end of this process.
import async_hooks from "node:async_hooks";
import { createReadStream, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { boundInflation, TooLarge } from "./inflate.mjs";
import { silenceConsole, toldOf } from "./log.mjs";
import { Session } from "./session.mjs";
import { keepUntriedSessions, queueEachSession, waitBeforeKeys } from "./signal.mjs";

const [commands, events] = process.argv.slice(2, 4).map(Number);
const packages = process.argv[4];
const LONGEST = 2048; // characters of one text in a line: a contact chooses some of them

// libsignal prints its sessions, private keys included, with console.*: nothing of it leaves here.
silenceConsole();

const short = (_, value) =>
  typeof value === "string" ? value.slice(0, LONGEST).toWellFormed() : value;

function emit(line) {
  // Records are bounded where they are made, and pieces of files: their texts are kept whole.
  const whole = line.event === "keep" || line.ok?.data !== undefined;
  let rest = Buffer.from(JSON.stringify(line, whole ? undefined : short) + "\n");
  while (rest.length) {
    try {
      rest = rest.subarray(writeSync(events, rest));
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      process.exit(0); // the worker is gone
    }
  }
}

const kindOf = (error) => ({ name: error?.name ?? "Error", code: error?.code ?? "" });
// Names and places of an error, without what it quotes: a key or a text may stand in its message.
function fatal(error) {
  const lines = String(error?.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line));
  emit({ event: "fatal", ...kindOf(error), stack: lines.slice(0, 8).join("\n") });
  process.exit(70);
}
process.on("uncaughtException", fatal);
process.on("unhandledRejection", (error) => {
  const words = error instanceof TooLarge ? error.message : "";
  emit({ event: "stray", ...kindOf(error), words });
});

// The library has a storage for each connection, and Node hands each on with every promise: with
// fifty of them that was most of a message's cost. One carries them all; a run hides the others'.
const storage = new async_hooks.AsyncLocalStorage();
class Storage {
  run = (store, work) => storage.run({ of: this, store }, work);
  getStore = () => (storage.getStore()?.of === this ? storage.getStore().store : undefined);
}
Object.defineProperty(async_hooks, "AsyncLocalStorage", { value: Storage });
boundInflation(); // and what imports a builtin module from here on has both
// A module that lies among the packages finds them by their names.
const { load } = await import(pathToFileURL(packages + "/load.mjs"));
// Not its index: that would read names of telemetry as well, a tenth of all that a start reads.
const PARTS = ["lib/Socket", "lib/Utils", "lib/WABinary", "lib/Defaults", "WAProto"];
const parts = PARTS.map((part) => load(`baileys/${part}/index.js`));
const [socket] = await Promise.all(parts);
const library = Object.assign({ makeWASocket: socket.default }, ...(await Promise.all(parts)));
const libsignal = (await load("libsignal")).default;
keepUntriedSessions(libsignal);
waitBeforeKeys(libsignal, await load("baileys/lib/Signal/Group/index.js"));
queueEachSession(libsignal);
const sessions = new Map(); // by the name that an order gives; a worker's own client has one, ""

// Each event of a session of a pack carries the session's name.
const markOf = ({ session }) => (session ? { session } : {});

function sessionOf(order) {
  const { session: name = "" } = order;
  const tell = (event) => emit({ ...event, ...markOf(order) });
  if (!sessions.has(name)) sessions.set(name, new Session(library, load, tell));
  return sessions.get(name);
}

// A session's methods, which orders name with _.
const WORKS = new Set([
  ...["open", "connect", "disconnect", "look", "pairingCode", "uploadPreKeys", "logout", "save"],
  ...["send", "read", "presence", "filePart", "fileOpen", "fileNext", "fileClose", "kept"],
]);

// About the whole process: nothing here begins a session.
const OWN_WORKS = {
  free: () => globalThis.gc?.(),
  tick: () => ({ rss: process.memoryUsage.rss() }),
  // Hang up, and wait until all is on the disk; what a broken store refused is its own report.
  async forget({ name }) {
    const session = sessions.get(name);
    session?.unwatched();
    await session?.disconnect().catch(() => {});
    sessions.delete(name);
  },
};

// A quiet session fills its first heap in hours: it would look like a leak.
setInterval(OWN_WORKS.free, 600_000);

async function work(order) {
  if (Object.hasOwn(OWN_WORKS, order.do)) return OWN_WORKS[order.do](order);
  const method = order.do.replace(/_./g, (part) => part[1].toUpperCase());
  if (WORKS.has(method)) return sessionOf(order)[method](order);
  throw Object.assign(new Error("no such command"), { code: "invalid_request" });
}

async function take(line) {
  const order = JSON.parse(line);
  try {
    emit({ answer: order.id, ok: (await work(order)) ?? {}, ...markOf(order) });
  } catch (error) {
    const told = { code: error.code ?? "engine", message: toldOf(error) };
    emit({ answer: order.id, ...markOf(order), error: told });
  }
}

const input = createReadStream(null, { fd: commands, encoding: "utf8" });
const lines = createInterface({ input });
lines.on("line", (line) => void take(line));
lines.on("close", () => process.exit(0));
emit({ event: "ready", node: process.version });
