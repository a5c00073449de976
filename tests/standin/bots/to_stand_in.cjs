"use strict";
// Loaded into bots that have no setting for it: their way to WhatsApp's server ends at the stand-in
// at WHATSAPP, and no name leads off this machine.
const dns = require("node:dns");
const net = require("node:net");
const tls = require("node:tls");

const { port } = new URL(process.env.WHATSAPP);
const [connect, lookup] = [tls.connect, dns.lookup];

tls.connect = function (...args) {
  if (args[0]?.host === "web.whatsapp.com") return net.connect(Number(port), "127.0.0.1");
  return Reflect.apply(connect, this, args);
};

dns.lookup = function (name, ...more) {
  if (name === "localhost" || net.isIP(name)) return Reflect.apply(lookup, this, [name, ...more]);
  const error = Object.assign(new Error(`no name but this machine's own: ${name}`), { code: "ENOTFOUND" });
  process.nextTick(more.at(-1), error);
};
