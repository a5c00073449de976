"use strict";
// A key file of Baileys' own store is whole at any instant: a program killed while it writes one
// leaves the former content, and no file that looks like no pairing at its next start. One that
// ends by process.exit meanwhile, as bots do right after a scan, leaves the new content.
const { chmodSync, lstatSync, promises, renameSync, rmSync, writeFileSync } = require("node:fs");
const Module = require("node:module");
const { basename } = require("node:path");

const KINDS = "pre-key|session|identity-key|sender-key|app-state-sync-(?:key|version)";
const KEY_FILE = new RegExp(`^(?:creds|(?:${KINDS}|lid-mapping|device-list|tctoken)-.+)\\.json$`);
const BESIDE = ".wa-agent-new";
const AT_THE_END = ".wa-agent-end";
// The folder takes no new file or no name of that length: the program's own way is left.
const NOT_BESIDE = ["EACCES", "EPERM", "ENAMETOOLONG"];

function keepWhole() {
  const write = promises.writeFile;
  const last = new Map();
  const wanted = new Map();
  process.on("exit", () => {
    for (const [file, { data, options }] of wanted) replaceNow(file, data, options);
  });
  promises.writeFile = function writeFile(file, data, options) {
    if (!isKeyFile(file, options)) return Reflect.apply(write, this, arguments);
    const before = last.get(file) ?? Promise.resolve();
    const written = before.then(() => replace(write, file, data, options));
    const done = written.catch(() => {}).then(() => {
      if (last.get(file) === done) [last, wanted].forEach((its) => its.delete(file));
    });
    last.set(file, done);
    if (typeof data === "string" || ArrayBuffer.isView(data)) wanted.set(file, { data, options });
    return written;
  };
  Module.syncBuiltinESMExports();
}

const isKeyFile = (file, options) => {
  const isPlain = typeof options !== "object" || !(options?.flag ?? options?.signal);
  return isPlain && typeof file === "string" && KEY_FILE.test(basename(file));
};

async function replace(write, file, data, options) {
  const before = await promises.lstat(file).catch(() => null);
  // A link, or a file of several names, is written in place: it stays one file everywhere.
  if (before && (!before.isFile() || before.nlink > 1)) return write(file, data, options);
  const beside = file + BESIDE;
  try {
    await write(beside, data, options);
    if (before) await promises.chmod(beside, before.mode & 0o7777);
    await promises.rename(beside, file);
  } catch (error) {
    await promises.unlink(beside).catch(() => {});
    if (NOT_BESIDE.includes(error.code)) return write(file, data, options);
    throw Object.assign(error, { path: file });
  }
}

/** A thread of Node's may still write what `replace` began: that file goes, its rename fails. */
function replaceNow(file, data, options) {
  const beside = file + AT_THE_END;
  try {
    const before = lstatSync(file, { throwIfNoEntry: false });
    if (before && (!before.isFile() || before.nlink > 1)) return;
    rmSync(file + BESIDE, { force: true });
    writeFileSync(beside, data, options);
    if (before) chmodSync(beside, before.mode & 0o7777);
    renameSync(beside, file);
  } catch {
    rmSync(beside, { force: true }); // as if the program had been killed
  }
}

module.exports = { keepWhole };
