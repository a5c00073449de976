// The store alone, whose credentials break on the disk while a session is connected: arguments
// PACKAGES FOLDER.
import assert from "node:assert/strict";
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { client, folder, lib } from "./opened.mjs";

const { Store } = await client("store.mjs");

const told = [];
const own = join(folder, "session");
mkdirSync(own);
const store = new Store(own, lib, (error) => assert.fail(error.message), (event) => told.push(event));
const { creds } = await store.open(false);
await store.saveCreds(creds);
const file = join(own, "creds.json");
const whole = readFileSync(file, "utf8");

// Whole ones stay as they are, also where an operator put others there, which is said once.
await store.mendCreds(creds);
assert.deepEqual(told, []);
for (const others of ['{"of":"another"}', JSON.stringify(lib.initAuthCreds(), lib.BufferJSON.replacer), '{"noiseKey":5,"me":[]}']) {
  writeFileSync(file, others);
  await store.mendCreds(creds);
  await store.mendCreds(creds);
  assert.equal(readFileSync(file, "utf8"), others);
  assert.deepEqual(told.splice(0), [{ event: "creds_replaced" }]);
  writeFileSync(file, whole);
  await store.mendCreds(creds);
  assert.deepEqual(told, []);
}

const aside = join(own, "removed-keys", "unreadable");
const breaks = {
  cut: () => writeFileSync(file, whole.slice(0, 99)),
  empty: () => writeFileSync(file, ""),
  link: () => symlinkSync(join(folder, "nowhere"), file),
  folder: () => mkdirSync(join(file, "inner"), { recursive: true }),
  gone: () => {},
};
for (const [how, damage] of Object.entries(breaks)) {
  unlinkSync(file);
  damage();
  await store.mendCreds(creds);
  assert.equal(readFileSync(file, "utf8"), whole, how);
  assert.deepEqual(told.splice(0), [{ event: "creds_mended", gone: how === "gone" }]);
}
assert.deepEqual(readdirSync(aside), ["creds.json", "creds.json.1", "creds.json.2", "creds.json.3"]);
assert.equal(readFileSync(join(aside, "creds.json"), "utf8"), whole.slice(0, 99));
assert.ok(lstatSync(join(aside, "creds.json.2")).isSymbolicLink());
assert.ok(existsSync(join(aside, "creds.json.3", "inner")));

// Also where the next write of the credentials meets it first.
unlinkSync(file);
mkdirSync(file);
await store.saveCreds(creds);
assert.equal(readFileSync(file, "utf8"), whole);
assert.ok(lstatSync(join(aside, "creds.json.4")).isDirectory());

// Nothing is written into a folder that took the place of this one.
renameSync(own, join(folder, "moved"));
await store.mendCreds(creds);
mkdirSync(own);
await store.mendCreds(creds);
assert.ok(!existsSync(file));
assert.deepEqual(told, []);
process.exit(0);
