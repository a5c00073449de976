// Loaded before the client (`node --import`): a disk that is full from the N-th operation on.
//
// While the file FULL_DISK names exists, its number says how many operations on files still
// succeed; each later one fails with ENOSPC, a write after half of its text; with "N once" only the
// next one; with "N kill" the process is killed at it. Beside it, FILE.count says how many there
// were. Without the file nothing is counted or fails.
import { appendFileSync, constants, readFileSync } from "node:fs";
import promises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";

const control = process.env.FULL_DISK;
let done = 0;

function take() {
  let words;
  try {
    words = readFileSync(control, "utf8").split(" ");
    if (!words[0]) throw new Error("it is being written");
  } catch {
    done = 0;
    return true;
  }
  appendFileSync(control + ".count", "x");
  done += 1;
  const room = Number(words[0]);
  if (words[1] === "kill" && done > room) process.kill(process.pid, "SIGKILL");
  return done <= room || (words[1] === "once" && done > room + 1);
}

function must() {
  if (!take()) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
}

const { open, rename } = promises;
promises.open = async (path, flags, ...more) => {
  // Reading needs no room; the store opens what it only reads without waiting for it.
  if (!Number.isInteger(flags) || flags & constants.O_NONBLOCK) return open(path, flags, ...more);
  must();
  const handle = await open(path, flags, ...more);
  const { writeFile, sync } = handle;
  handle.writeFile = async (text) => {
    const whole = take();
    await writeFile.call(handle, whole ? text : text.slice(0, text.length / 2));
    if (!whole) throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
  };
  handle.sync = async () => {
    must();
    await sync.call(handle);
  };
  return handle;
};
promises.rename = async (...paths) => {
  must();
  await rename(...paths);
};
syncBuiltinESMExports();
