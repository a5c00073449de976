"use strict";
// These exports of a library are wrapped, so that its sessions are noticed when they are made.
const { quietly } = require("./channel.cjs");

const BAILEYS = /(?:^|[\\/])[^\\/]*baileys[^\\/]*(?:[\\/]lib[\\/]index\.js)?$/;
const WWEBJS = /(?:^|[\\/])whatsapp-web\.js(?:[\\/]index\.js)?$/;

const isBaileys = (request) => BAILEYS.test(request);
const isWwebjs = (request) => WWEBJS.test(request);
/** As programs beside the library require it: the examples of its own package do. */
const mayBeWwebjs = (request, parent) =>
  /^\.{1,2}(?:[\\/]|$)/.test(request) && /whatsapp-web\.js/.test(parent?.filename);

class Libraries {
  #channel;
  #wrapped = new WeakMap();
  #noted = new WeakMap();
  #making = { count: 0 };

  constructor(channel) {
    this.#channel = channel;
  }

  /** The same function for everybody who looks at it; what it makes is watched. */
  wrapMaker(maker) {
    const known = typeof maker !== "function" || this.#wrapped.has(maker);
    if (known) return this.#wrapped.get(maker) ?? maker;
    const [channel, making] = [this.#channel, this.#making];
    const wrapped = new Proxy(maker, {
      apply(target, self, args) {
        making.count++;
        let made;
        try {
          made = Reflect.apply(target, self, args);
        } finally {
          making.count--;
        }
        watch(made, channel);
        return made;
      },
    });
    this.#wrapped.set(maker, wrapped).set(wrapped, wrapped);
    return wrapped;
  }

  /** A socket whose library has no name that we know. */
  noteSocket(made) {
    if (!this.#making.count) watch(made, this.#channel);
  }

  /** Baileys 6 is CommonJS; some of its exports cannot be changed: a new object replaces them. */
  noteBaileys(exports, name) {
    if (this.#noted.has(exports)) return this.#noted.get(exports);
    if (typeof exports?.makeWASocket !== "function") return exports;
    if (exports[Symbol.toStringTag] === "Module") return exports;
    const all = Object.getOwnPropertyDescriptors(exports);
    for (const key of ["makeWASocket", "default"]) {
      if (typeof exports[key] !== "function") continue;
      const value = this.wrapMaker(exports[key]);
      all[key] = { value, enumerable: true, configurable: true, writable: true };
    }
    const anew = Object.create(Object.getPrototypeOf(exports), all);
    this.#noted.set(exports, anew).set(anew, anew);
    if (require.cache[name]?.exports === exports) require.cache[name].exports = anew;
    return anew;
  }

  noteWwebjs(exports) {
    const isIt = typeof exports?.Client?.prototype?.initialize === "function";
    if (isIt) require("./wwebjs.cjs").note(exports, this.#channel);
  }
}

const watch = (made, channel) => quietly(() => require("./baileys.cjs").watch(made, channel));

module.exports = { Libraries, isBaileys, isWwebjs, mayBeWwebjs };
