// The client's store alone, with what must be done before a record may be replaced: arguments PACKAGES FOLDER.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { client, folder, lib } from "./opened.mjs";

const { Store } = await client("store.mjs");
const store = new Store(folder, lib, (error) => assert.fail(error.message));
const { keys } = await store.open(false);
const onDisk = () => JSON.parse(readFileSync(join(folder, "session-a.json"), "utf8")).round;
const beside = () => readdirSync(folder).filter((name) => name.endsWith(".tmp"));
const put = (round, allowed) => keys.setNow({ session: { a: { round } } }, allowed);

await put(1);
let allow;
const second = put(2, new Promise((resolve) => (allow = resolve)));
while (!beside().some((name) => readFileSync(join(folder, name), "utf8").includes('"round":2'))) await new Promise(setImmediate);
assert.equal(onDisk(), 1, "it lies beside the old one, which stays");
await keys.setNow({ session: { b: { round: 1 } } });
assert.equal(onDisk(), 1, "others do not wait for it");
allow();
await second;
assert.deepEqual([onDisk(), beside()], [2, []]);

// A write that is refused leaves nothing, and the store goes on.
await assert.rejects(put(3, Promise.reject(new Error("not kept"))), /not kept/);
assert.deepEqual([onDisk(), beside()], [2, []]);
await put(4, Promise.resolve());
assert.deepEqual([onDisk(), beside()], [4, []]);
process.exit(0);
