// This bounds the inflating of the library, which has no bound: a few KiB may hold gigabytes.
import { syncBuiltinESMExports } from "node:module";
import { Transform } from "node:stream";
import zlib from "node:zlib";

// The largest real frame lists all groups of an account: 200,000 members of them fit into this.
// The library's objects of a frame can take forty times as much memory.
const MOST_OF_A_FRAME = 8 << 20;
const MOST_OF_A_HISTORY = 64 << 20; // of one of the parts in which a phone sends it

export class TooLarge extends Error {
  constructor(what, most) {
    super(`WhatsApp sent a compressed ${what} of more than ${most >> 20} MiB: it is left out`);
    this.code = "too_large";
  }
}

// One at a time is in memory, however many come at once.
function inflate(compressed, done) {
  let whole;
  try {
    whole = zlib.inflateSync(compressed, { maxOutputLength: MOST_OF_A_FRAME });
  } catch (error) {
    const isLarge = error.code === "ERR_BUFFER_TOO_LARGE";
    return done(isLarge ? new TooLarge("frame", MOST_OF_A_FRAME) : error);
  }
  done(null, whole);
}

// A stream's output, as the history's that comes from a media server.
function push(chunk, ...more) {
  this.pushed = (this.pushed ?? 0) + (chunk?.length ?? 0);
  if (this.pushed <= MOST_OF_A_HISTORY) return Transform.prototype.push.call(this, chunk, ...more);
  this.destroy(new TooLarge("part of the history", MOST_OF_A_HISTORY));
  return false;
}

// To be called before the library loads: it keeps the functions that it finds.
export function boundInflation() {
  zlib.inflate = inflate;
  syncBuiltinESMExports();
  zlib.Inflate.prototype.push = push; // what makes such a stream cannot be replaced
}
