"use strict";
// Node loads this into a user's own program before the program itself. It notices that a library
// for WhatsApp is there, and changes nothing that the program could see.
const { readlinkSync } = require("node:fs");
const Module = require("node:module");
const { Socket } = require("node:net");
const { join } = require("node:path");
const { pathToFileURL } = require("node:url");
const { isMainThread } = require("node:worker_threads");
const { CHILD, watchChildren, watchThreads, streamOfThread } = require("./parts.cjs");

// Which descriptor leads to the worker, and which socket that is: a child may have another there.
const [number, socket] = (process.env.WA_PROGRAM_FD_IS ?? "").split(" ");
const given = process.env.WA_PROGRAM_NODE_OPTIONS;
const options = given ?? (isMainThread ? "" : (process.env.NODE_OPTIONS ?? ""));

function isOurs() {
  try {
    const open = readlinkSync(`/proc/self/fd/${number}`);
    return socket === CHILD ? open.startsWith("socket:") : Boolean(socket) && open === socket;
  } catch {
    return false;
  }
}

function findStream() {
  if (!isMainThread) return streamOfThread();
  return isOurs() ? new Socket({ fd: Number(number), readable: true, writable: true }) : undefined;
}

// Child processes do not load our module by themselves, and find the environment as it was given.
function forgetIn(environment) {
  delete environment.WA_PROGRAM_FD_IS;
  delete environment.WA_PROGRAM_NODE_OPTIONS;
  if (given) environment.NODE_OPTIONS = given;
  else delete environment.NODE_OPTIONS;
}

const stream = findStream();
if (stream) {
  if (isMainThread) forgetIn(process.env);
  const { Channel } = require("./channel.cjs");
  require("./whole_files.cjs").keepWhole();
  const { handing } = require("./bundled.cjs");
  const { Libraries, isBaileys, isWwebjs, mayBeWwebjs } = require("./libraries.cjs");
  const channel = new Channel(stream);
  const libraries = new Libraries(channel);
  watchChildren(channel);
  if (isMainThread) watchThreads(channel);
  Object.defineProperty(globalThis, Symbol.for("wa-agent.makers"), {
    value: Object.freeze({
      wrapMaker: (maker) => libraries.wrapMaker(maker),
      set socket(made) {
        libraries.noteSocket(made);
      },
    }),
  });

  const load = Module._load;
  Module._load = function _load(request, parent, isMain) {
    const exports = Reflect.apply(load, this, arguments);
    try {
      if (isBaileys(request)) return libraries.noteBaileys(exports, nameOf(request, parent));
      const isNamed = () => mayBeWwebjs(request, parent) && isWwebjs(nameOf(request, parent));
      if (isWwebjs(request) || isNamed()) libraries.noteWwebjs(exports);
    } catch {
      // Exports of an unexpected shape stay as they are.
    }
    return exports;
  };

  const compile = Module.prototype._compile;
  Module.prototype._compile = function _compile(content, ...more) {
    return Reflect.apply(compile, this, [handing(content) ?? content, ...more]);
  };

  if (Module.registerHooks) Module.registerHooks(require("./hooks.cjs"));
  else if (Module.register) {
    const register = () => Module.register(pathToFileURL(join(__dirname, "hooks.cjs")));
    if (!require("./reading.cjs").answerReads(options, register)) register();
  }
} else if (number) {
  forgetIn(process.env);
}

function nameOf(request, parent) {
  return Module._resolveFilename(request, parent, false);
}
