// The client's process: commands come as JSON lines on one inherited pipe, events go out on another.
// It ends when its worker does: the end of the command pipe is the end of this process.
import { createReadStream, writeSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { silenceConsole } from "./log.mjs";
import { Session } from "./session.mjs";

const [commands, events, packages] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const LONGEST = 64 * 1024; // of an error's words

// libsignal prints its sessions, private keys included, with console.*: nothing of it leaves here.
silenceConsole();

function emit(line) {
  let rest = Buffer.from(JSON.stringify(line) + "\n");
  while (rest.length) {
    try {
      rest = rest.subarray(writeSync(events, rest));
    } catch (error) {
      if (error.code === "EAGAIN") continue;
      process.exit(0); // the worker is gone
    }
  }
}

// Names and places of an error, without what it quotes: a key or a text may stand in its message.
function fatal(error) {
  const stack = String(error?.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)).slice(0, 8);
  emit({ event: "fatal", name: error?.name ?? "Error", code: error?.code ?? "", stack: stack.join("\n").slice(0, LONGEST) });
  process.exit(70);
}
process.on("uncaughtException", fatal);
process.on("unhandledRejection", (error) => emit({ event: "stray", name: error?.name ?? "Error", code: error?.code ?? "" }));

// A module that lies among the packages finds them by their names.
const { load } = await import(pathToFileURL(packages + "/load.mjs"));
const session = new Session(await load("baileys"), load, emit);

const WORKS = {
  open: (order) => session.open(order),
  connect: () => session.connect(),
  disconnect: () => session.disconnect(),
  look: (order) => session.look(order),
  pairing_code: (order) => session.pairingCode(order),
  send: (order) => session.send(order),
  file_part: (order) => session.filePart(order),
  logout: () => session.logout(),
  save: () => session.save(),
  free: () => globalThis.gc?.(),
};

async function take(line) {
  const order = JSON.parse(line);
  try {
    const work = WORKS[order.do];
    if (!work) throw Object.assign(new Error("no such command"), { code: "invalid_request" });
    emit({ answer: order.id, ok: (await work(order)) ?? {} });
  } catch (error) {
    emit({ answer: order.id, error: { code: error.code ?? "engine", message: String(error.message).slice(0, 300) } });
  }
}

const lines = createInterface({ input: createReadStream(null, { fd: commands, encoding: "utf8" }) });
lines.on("line", (line) => void take(line));
lines.on("close", () => process.exit(0));
emit({ event: "ready", node: process.version });
