"use strict";
// Baileys as a module of ECMAScript: its index exports everything of the original, and a maker that
// tells. In a thread of hooks (Node 20) nothing but this text can reach the program.
const { handing } = require("./bundled.cjs");

const INDEX = /\/node_modules\/(?:@[^/]+\/)?[^/]*baileys[^/]*\/lib\/index\.js$/;
const MARK = "?wa-agent";

const isIndex = (url) => INDEX.test(url);

function load(url, context, next) {
  if (url.endsWith(MARK)) return next(url.slice(0, -MARK.length), context);
  const found = next(url, context);
  const isPromise = typeof found?.then === "function";
  return isPromise ? found.then((its) => answer(url, its)) : answer(url, found);
}

function answer(url, found) {
  if (found.format !== "module") return found;
  if (!isIndex(url)) {
    const source = handing(found.source);
    return source === null ? found : { ...found, source };
  }
  return { format: "module", shortCircuit: true, source: sourceOf(url) };
}

function sourceOf(url) {
  const original = JSON.stringify(url + MARK);
  return `
export * from ${original};
import * as original from ${original};
const { wrapMaker } = globalThis[Symbol.for("wa-agent.makers")] ?? { wrapMaker: (maker) => maker };
const own = wrapMaker(original.makeWASocket ?? original.default);
export { own as makeWASocket, own as default };
`;
}

module.exports = { load, isIndex, sourceOf };
