// The client's store alone, on a disk that fills up: arguments PACKAGES FOLDER CONTROL. At every
// operation in turn: what was acknowledged is on the disk, each file is whole (old or new), and
// once there is room again a new store goes on. Prints how many operations it went through, once
// for an operation that fails alone, once for a disk that stays full.
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { client, folder as root, lib, more } from "./opened.mjs";

const [control] = more;
const { Store } = await client("store.mjs");

const value = (round, name) => ({ round, name, bytes: Buffer.alloc(300, round) });
const batch = (round) => {
  const names = Object.fromEntries(["a", "b", "c"].map((name) => [name, value(round, name)]));
  // One record more, and one that goes away.
  return { session: { ...names, [`new${round}`]: value(round, "new") }, "pre-key": { [`${round - 1}`]: null, [`${round}`]: value(round, "key") } };
};
const read = (folder, file) => JSON.parse(readFileSync(join(folder, file), "utf8"), lib.BufferJSON.reviver);

async function begin(folder, paired) {
  const failures = [];
  const store = new Store(folder, lib, (error) => failures.push(error.code));
  return { store, state: await store.open(paired), failures };
}

// Two rounds of keys and credentials: which of them were acknowledged.
async function work(folder) {
  const { store, state, failures } = await begin(folder, true);
  const acknowledged = { keys: 1, creds: 1 };
  for (const round of [2, 3]) {
    state.creds.nextPreKeyId = round;
    const keys = state.keys.set(batch(round)).then(() => (acknowledged.keys = round), () => {});
    const creds = store.saveCreds(state.creds).then(() => (acknowledged.creds = round), () => {});
    await Promise.all([keys, creds]);
    const read = { session: { a: value(round, "a") } };
    await state.keys.setNow(read, Promise.resolve()).catch(() => {});
  }
  // All of it is on the disk, or it says that it is not: it never waits for what will not come.
  await (failures.length ? assert.rejects(store.settled(), { code: "storage_failed" }) : store.settled());
  return { acknowledged, failures };
}

function check(folder, acknowledged) {
  for (const file of readdirSync(folder).filter((name) => !name.startsWith("."))) read(folder, file);
  const { nextPreKeyId, me } = read(folder, "creds.json");
  assert.equal(me.id, "5511900000001:1@s.whatsapp.net");
  assert.ok(nextPreKeyId >= acknowledged.creds, "acknowledged credentials are on the disk");
  for (const name of ["a", "b", "c"]) {
    const { round } = read(folder, `session-${name}.json`);
    assert.ok(round >= acknowledged.keys && round <= 3, "acknowledged keys are on the disk");
  }
}

const first = join(root, "first");
mkdirSync(first);
{
  const { store, state } = await begin(first, false);
  Object.assign(state.creds, { me: { id: "5511900000001:1@s.whatsapp.net" }, nextPreKeyId: 1 });
  await Promise.all([state.keys.set(batch(1)), store.saveCreds(state.creds)]);
}
async function fails(how, at) {
  const folder = join(root, `${how}${at}`);
  cpSync(first, folder, { recursive: true });
  writeFileSync(control, `${at} ${how}`);
  const { acknowledged, failures } = await work(folder);
  rmSync(control);
  if (failures.length) assert.deepEqual(failures, ["storage_failed"], "it is said once");
  check(folder, acknowledged);
  // There is room again: nothing is left of the failure, and all goes on.
  const again = await work(folder);
  assert.deepEqual(again, { acknowledged: { keys: 3, creds: 3 }, failures: [] });
  check(folder, again.acknowledged);
  assert.deepEqual(readdirSync(folder).filter((name) => name.endsWith(".tmp")), []);
  return failures.length > 0;
}
for (const how of ["once", "always"]) {
  let at = 0;
  while (await fails(how, at)) at += 1;
  console.log(at);
}
