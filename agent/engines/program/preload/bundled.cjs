"use strict";
// A Baileys under a name of its own, or inside a file that a bundler made: no path tells that it is
// there. Its socket is handed to us where it is made. Names of properties are what every version
// and fork has, and what a minified file keeps.
const BEGINS = /\{\s*type\s*:\s*(["'`])md\1\s*,\s*ws\b/g;
const MARK = "sendRawMessage";

/** The module's text, changed so that it hands its socket over; null for one that makes none. */
function handing(source) {
  const read = typeof source === "string" ? source : Buffer.from(source ?? "");
  if (!read.includes(MARK)) return null;
  const text = read.toString();
  const symbol = (quote) => `Symbol.for(${quote}wa-agent.makers${quote})`;
  const toUs = (words, quote) => `(globalThis[${symbol(quote)}]??{}).socket=${words}`;
  const changed = text.replace(BEGINS, toUs);
  return changed === text ? null : changed;
}

module.exports = { handing };
