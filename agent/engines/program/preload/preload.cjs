"use strict";
// Loaded into somebody's own Node program before the program itself. It notices that a library for
// WhatsApp is there, and changes nothing that the program could see.
const { readlinkSync } = require("node:fs");
const Module = require("node:module");
const { join } = require("node:path");
const { fileURLToPath, pathToFileURL } = require("node:url");

// Which descriptor leads to the worker, and which socket that is: a child may have another under its number.
const [number, socket] = (process.env.WA_PROGRAM_FD_IS ?? "").split(" ");
const given = process.env.WA_PROGRAM_NODE_OPTIONS;

function isOurs() {
  try {
    return Boolean(socket) && readlinkSync(`/proc/self/fd/${number}`) === socket;
  } catch {
    return false;
  }
}

// The program's own children are none of ours, and find the environment as it was meant for them.
function forgetIn(environment) {
  delete environment.WA_PROGRAM_FD_IS;
  delete environment.WA_PROGRAM_NODE_OPTIONS;
  if (given) environment.NODE_OPTIONS = given;
  else delete environment.NODE_OPTIONS;
}

if (isOurs()) {
  forgetIn(process.env);
  const { Channel } = require("./channel.cjs");
  require("./whole_files.cjs").keepWhole();
  const { Libraries, isBaileys, isWwebjs } = require("./libraries.cjs");
  const wants = (process.env.WA_PROGRAM_MESSAGES ?? "").split(" ").filter(Boolean);
  const libraries = new Libraries(new Channel(Number(number)), wants);
  Object.defineProperty(globalThis, Symbol.for("wa-agent.makers"), {
    value: Object.freeze({ wrapMaker: (maker, lib, url) => libraries.wrapMaker(maker, lib, fileURLToPath(url)) }),
  });

  const load = Module._load;
  Module._load = function _load(request, parent, isMain) {
    const exports = Reflect.apply(load, this, arguments);
    try {
      if (isBaileys(request)) return libraries.noteBaileys(exports, nameOf(request, parent));
      if (isWwebjs(request)) libraries.noteWwebjs(exports);
    } catch {
      // What is not as expected stays as it is.
    }
    return exports;
  };

  if (Module.registerHooks) Module.registerHooks(require("./hooks.cjs"));
  else if (Module.register) {
    const register = () => Module.register(pathToFileURL(join(__dirname, "hooks.cjs")));
    if (!require("./reading.cjs").answerReads(given ?? "", register)) register();
  }
} else if (number) {
  forgetIn(process.env);
}

function nameOf(request, parent) {
  return Module._resolveFilename(request, parent, false);
}
