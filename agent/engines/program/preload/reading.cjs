"use strict";
// Hooks of modules on Node 20 run in a thread of their own, which costs 14 MiB and 60 ms of
// processor time. Where the program has none itself, its modules are read by fs.promises.readFile:
// there Baileys' index is answered instead.
const { promises, readFileSync } = require("node:fs");
const Module = require("node:module");
const { handing } = require("./bundled.cjs");
const { isIndex, sourceOf } = require("./hooks.cjs");

const LOADERS = /--(?:import|loader|experimental-loader)\b/;

const isModule = (url) =>
  JSON.parse(readFileSync(new URL("../package.json", url))).type === "module";

/** False where it cannot be done so: on another Node, or where the program has its own hooks. */
function answerReads(options, registerOurs) {
  const hasOwn = LOADERS.test([...process.execArgv, options].join(" "));
  if (!process.version.startsWith("v20.") || hasOwn) return false;
  const [read, register] = [promises.readFile, Module.register];
  const readFile = async (path, ...more) => {
    try {
      const isIt = path instanceof URL && isIndex(path.href) && isModule(path);
      if (isIt) return Buffer.from(sourceOf(path.href));
    } catch {
      // It is read as it is.
    }
    const found = await Reflect.apply(read, promises, [path, ...more]);
    const text = path instanceof URL && Buffer.isBuffer(found) ? handing(found) : null;
    return text === null ? found : Buffer.from(text);
  };
  // Hooks that the program makes later are asked after ours, as they would be from the start.
  const registerAfterOurs = (...its) => {
    [promises.readFile, Module.register] = [read, register];
    Module.syncBuiltinESMExports();
    registerOurs();
    return Reflect.apply(register, Module, its);
  };
  promises.readFile = Object.defineProperty(readFile, "length", { value: read.length });
  Module.register = Object.defineProperty(registerAfterOurs, "name", { value: register.name });
  Module.syncBuiltinESMExports();
  return true;
}

module.exports = { answerReads };
