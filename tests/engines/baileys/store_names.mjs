// The client's store alone, given the keys that a hostile contact names: arguments PACKAGES FOLDER.
// Prints one JSON object: what was told, and how many files there are.
import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { client, folder, lib } from "./opened.mjs";

const { Store } = await client("store.mjs");

const told = [];
const failed = (error) => assert.fail(`the store ended: ${error.message}`);
const open = () => new Store(folder, lib, failed, (event) => told.push(event));
const record = Buffer.from("[]");
const author = (group, user) => `${group}::${user}::0`;
const [user, other] = ["5511900000002", "5511900000003"];

let store = open();
let { creds, keys } = await store.open(false);
await store.saveCreds(creds);
const names = ["x".repeat(300), "x".repeat(240), "é".repeat(120), "a\0b", "a\nb", "\ud800", "/".repeat(120), "\x7f"].map((group) => author(group, user));
for (const id of names) {
  await keys.set({ "sender-key": { [id]: record }, session: { "5511900000003.0": { kept: id.length } } });
  assert.deepEqual(await keys.get("sender-key", [id]), { [id]: null });
  assert.deepEqual(await keys.get("session", ["5511900000003.0"]), { "5511900000003.0": { kept: id.length } }, "the rest of the batch");
}
// Names that are no more than strange are the library's own, and stay in the folder.
for (const group of ["..", "../../creds", "creds.json", "-", "%00"]) {
  const id = author(group, user);
  await keys.set({ "sender-key": { [id]: record } });
  assert.deepEqual((await keys.get("sender-key", [id]))[id], record);
}
await keys.set({ session: { [`${user}.0`]: { small: true } } });
await keys.set({ session: { [`${user}.0`]: { large: "x".repeat(3 << 20) } } });
assert.deepEqual(await keys.get("session", [`${user}.0`]), { [`${user}.0`]: { small: true } });

// As many groups as it likes to invent: ten thousand of them were written before.
for (let at = 0; at < 9_999; at += 1) writeFileSync(join(folder, `sender-key-${at}@g.us--${user}--0.json`), "{}");
store = open();
({ keys } = await store.open(true));
const many = Array.from({ length: 200 }, (_, at) => author(`new-${at}@g.us`, user));
await keys.set({ "sender-key": Object.fromEntries(many.map((id) => [id, record])) });
assert.deepEqual(Object.values(await keys.get("sender-key", many)).filter((value) => value), []);
const known = author("1@g.us", user);
await keys.set({ "sender-key": { [known]: record, [author("1@g.us", other)]: record } });
assert.deepEqual(await keys.get("sender-key", [known]), { [known]: record }, "a known group goes on");
assert.deepEqual(Object.values(await keys.get("sender-key", [author("1@g.us", other)])), [record], "so does another contact");
await store.settled();
console.log(JSON.stringify({ told, files: readdirSync(folder).length }));
process.exit(0);
