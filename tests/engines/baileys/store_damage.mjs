// The client's store alone, on records that cannot be read: arguments PACKAGES FOLDER.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { client, folder, lib } from "./opened.mjs";

const { Store } = await client("store.mjs");
const { fileOf } = await client("record.mjs");

const told = [];
const store = new Store(folder, lib, (error) => assert.fail(error.message), (event) => told.push(event));
const { creds, keys } = await store.open(false);
await store.saveCreds(creds);

const bytes = Buffer.from("[]");
const whole = {
  "pre-key": { public: bytes, private: bytes },
  session: { _sessions: {}, version: "v1" },
  "sender-key": bytes,
  "sender-key-memory": { "5511900000002:0@s.whatsapp.net": true },
  "app-state-sync-version": { version: 1, hash: bytes, indexValueMap: {} },
  "lid-mapping": "15511900000002",
  "device-list": ["0"],
  tctoken: { token: bytes },
  "identity-key": bytes,
};
const half = (text) => text.slice(0, text.length / 2);
const damages = { empty: () => "", cut: half, zeros: (text) => "\0".repeat(text.length), null: () => "null", nan: () => "NaN", number: () => "5", bom: (text) => "\ufeff" + text };
const others = { "sender-key": ["{}", '[{"senderKeyId":1}]', '"no keys"'], "lid-mapping": ["{}"], "device-list": ["{}"] };
const kept = [];
for (const [type, value] of Object.entries(whole)) {
  const text = JSON.stringify(value, lib.BufferJSON.replacer);
  const texts = [...Object.values(damages).map((damage) => damage(text)), ...(others[type] ?? [])];
  for (const [at, damaged] of texts.entries()) {
    const id = `${at}@g.us::5511900000002::0`;
    writeFileSync(join(folder, fileOf(`${type}-${id}`)), damaged);
    assert.deepEqual(await Promise.all([keys.get(type, [id]), keys.get(type, [id])]), [{ [id]: null }, { [id]: null }]);
    kept.push([fileOf(`${type}-${id}`), damaged]);
    await keys.set({ [type]: { [id]: value } });
    assert.deepEqual((await keys.get(type, [id]))[id], value);
  }
}
assert.deepEqual(told.map(({ event, file }) => [event, file]), kept.map(([file]) => ["key_unreadable", file]), "each is told once");
const aside = join(folder, "removed-keys", "unreadable");
for (const [file, text] of kept) assert.equal(readFileSync(join(aside, file), "utf8"), text);

// The same record again: the first one stays. A folder in its place is none, and moves as well.
const again = fileOf("session-0@g.us::5511900000002::0");
mkdirSync(join(folder, "session-folder.0.json"));
writeFileSync(join(folder, again), "again");
const set = { _sessions: {}, version: "v1" };
await keys.get("session", ["0@g.us::5511900000002::0", "folder.0"]);
await keys.set({ session: { "folder.0": set } });
assert.equal(readFileSync(join(aside, `${again}.1`), "utf8"), "again");
assert.deepEqual(await keys.get("session", ["folder.0"]), { "folder.0": set });
assert.ok(readdirSync(aside).includes("session-folder.0.json"));

// A link leads elsewhere and a pipe would be waited for: both move aside, what they lead to stays.
// More than the memory has: nothing of it is read.
writeFileSync(join(folder, "session-huge.0.json"), "");
truncateSync(join(folder, "session-huge.0.json"), 50 * 2 ** 30);
assert.deepEqual(await keys.get("session", ["huge.0"]), { "huge.0": null });
symlinkSync(join(folder, "creds.json"), join(folder, "session-link.0.json"));
execFileSync("mkfifo", [join(folder, "session-pipe.0.json")]);
assert.deepEqual(await keys.get("session", ["link.0", "pipe.0"]), { "link.0": null, "pipe.0": null });
assert.ok(readdirSync(aside).includes("session-link.0.json") && readdirSync(aside).includes("session-pipe.0.json"));
assert.ok(JSON.parse(readFileSync(join(folder, "creds.json"), "utf8")).noiseKey);
process.exit(0);
