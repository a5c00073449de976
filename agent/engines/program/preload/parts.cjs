"use strict";
// Parts of the program that may have the library: Node processes that it starts (as tsx, ts-node
// and cluster do) and its threads. Each gets a stream to the process that has the worker's.
const { ChildProcess } = require("node:child_process");
const { subscribe } = require("node:diagnostics_channel");
const { EventEmitter } = require("node:events");
const { basename, join } = require("node:path");
const { BroadcastChannel, parentPort, threadId } = require("node:worker_threads");
const { getEnvironmentData, setEnvironmentData } = require("node:worker_threads");

const CHILD = "child";
const NAME = "wa-agent";
const OURS = /^(?:NODE_OPTIONS|WA_PROGRAM_FD_IS|WA_PROGRAM_NODE_OPTIONS)=/;

/** Every Node process that the program starts gets a socket more, which only our module sees. */
function watchChildren(channel) {
  const spawn = ChildProcess.prototype.spawn;
  const wrapped = function (options) {
    const place = placeIn(options);
    const result = Reflect.apply(spawn, this, [place ? withSocket(options, place) : options]);
    if (place) {
      const socket = this.stdio?.[place];
      if (this.stdio) this.stdio.length = lengthOf(options);
      if (socket && !result) {
        socket.unref();
        channel.relay(socket);
      }
    }
    return result;
  };
  Object.defineProperty(wrapped, "name", { value: spawn.name });
  ChildProcess.prototype.spawn = wrapped;
}

const lengthOf = ({ stdio }) => (Array.isArray(stdio) ? stdio.length : 3);

/** The number of that socket; 0 for a child that is none of ours. */
function placeIn(options) {
  const isNode = options?.file === process.execPath || basename(String(options?.file)) === "node";
  if (!isNode || !Array.isArray(options.envPairs) || options.detached) return 0;
  return Math.max(lengthOf(options), 3);
}

function withSocket(options, place) {
  const { stdio } = options;
  const streams = Array.isArray(stdio) ? [...stdio] : Array(3).fill(stdio || "pipe");
  while (streams.length < place) streams.push("ignore");
  streams[place] = "pipe";
  const given = options.envPairs.find((pair) => pair.startsWith("NODE_OPTIONS="))?.slice(13) ?? "";
  const envPairs = options.envPairs.filter((pair) => !OURS.test(pair));
  if (given) envPairs.push(`WA_PROGRAM_NODE_OPTIONS=${given}`);
  const own = `--require ${JSON.stringify(join(__dirname, "preload.cjs"))}`;
  envPairs.push(`NODE_OPTIONS=${`${given} ${own}`.trim()}`, `WA_PROGRAM_FD_IS=${place} ${CHILD}`);
  return { ...options, stdio: streams, envPairs };
}

/** A thread that has the program's environment loads our module as the program did. */
function watchThreads(channel) {
  setEnvironmentData(NAME, true);
  subscribe("worker_threads", ({ worker }) => {
    const stream = new ThreadStream(worker.threadId, 0);
    worker.once("exit", () => stream.close());
    channel.relay(stream);
  });
}

/** This thread's stream to the program's main thread; undefined where that one has no worker, and
 *  in Node's own thread of hooks, which has no port to the program. */
const streamOfThread = () =>
  getEnvironmentData(NAME) && parentPort ? new ThreadStream(threadId, 1) : undefined;

/** Texts between the main thread (side 0) and another one, as the channel uses a socket. */
class ThreadStream extends EventEmitter {
  destroyed = false;
  writableLength = 0;
  #side;
  #ways;

  constructor(thread, side) {
    super();
    this.#side = side;
    this.#ways = [0, 1].map((from) => new BroadcastChannel(`${NAME}-${thread}-${from}`));
    this.#ways[1 - side].onmessage = ({ data }) => this.emit("data", data);
    this.unref();
  }

  unref() {
    for (const way of this.#ways) way.unref();
  }

  setEncoding() {}

  write(text) {
    this.#ways[this.#side].postMessage(text);
  }

  close() {
    this.destroyed = true;
    for (const way of this.#ways) way.close();
    this.emit("close");
  }
}

module.exports = { CHILD, watchChildren, watchThreads, streamOfThread };
