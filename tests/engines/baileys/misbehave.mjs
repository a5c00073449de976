// Loaded before the client (`node --import`): it misbehaves once a file's first word says so.
import { readFileSync, unlinkSync, writeSync } from "node:fs";

const [control, events] = [process.env.MISBEHAVE, Number(process.argv[3])];
const kept = [];

const WAYS = {
  hang() {
    for (;;);
  },
  leak() {
    setInterval(() => kept.push(Buffer.alloc(8 << 20, 1)), 100);
  },
  flood() {
    const lines = Buffer.from('{"event":"message","type":"text"}\n'.repeat(1000));
    setInterval(() => writeSync(events, lines), 1);
  },
  garbage() {
    writeSync(events, "this\nis no\nJSON\n");
  },
};

const timer = setInterval(() => {
  let way;
  try {
    way = readFileSync(control, "utf8").trim();
    if (!way) return; // it is being written
    unlinkSync(control);
  } catch {
    return;
  }
  clearInterval(timer);
  WAYS[way]();
}, 50);
timer.unref();
