// Signal's sessions on the store, with a contact that reads what this session writes: arguments
// PACKAGES FOLDER.
import assert from "node:assert/strict";
import { client, folder, lib, load } from "./opened.mjs";

const [{ silenceConsole }, { keepUntriedSessions, repositoryOf }, { Store }] = await Promise.all(["log.mjs", "signal.mjs", "store.mjs"].map(client));
silenceConsole();
keepUntriedSessions((await load("libsignal")).default);

const [OURS, THEIRS, GROUP] = ["1000@lid", "2000@lid", "3000@g.us"];
const logger = { level: "silent", child: () => logger, trace() {}, debug() {}, info() {}, warn() {}, error() {} };
const transactions = (stored) => lib.addTransactionCapability(stored, logger, { maxCommitRetries: 1, delayBetweenTriesMs: 1 });

// This session as Node has it, and as the next Node finds it where that one is killed now.
async function open() {
  const store = new Store(folder, lib, (error) => assert.fail(error.message));
  const { creds, keys: stored } = await store.open(false);
  await store.saveCreds(creds);
  const keys = transactions(stored);
  return { keys, signal: repositoryOf(lib, stored)({ creds, keys }, logger, async () => []) };
}

const kept = {};
const memory = {
  get: async (type, ids) => Object.fromEntries(ids.map((id) => [id, kept[type]?.[id]])),
  set: async (data) => Object.entries(data).forEach(([type, values]) => (kept[type] = { ...kept[type], ...values })),
};
const theirCreds = lib.initAuthCreds();
const contact = lib.DEFAULT_CONNECTION_CONFIG.makeSignalRepository({ creds: theirCreds, keys: transactions(memory) }, logger, async () => []);

let nextPreKey = 1;
async function bundle() {
  const [keyId, pair] = [nextPreKey++, lib.Curve.generateKeyPair()];
  await memory.set({ "pre-key": { [keyId]: pair } });
  const { signedIdentityKey, signedPreKey, registrationId } = theirCreds;
  const shown = (key) => lib.generateSignalPubKey(key);
  const signed = { keyId: signedPreKey.keyId, publicKey: shown(signedPreKey.keyPair.public), signature: signedPreKey.signature };
  return { registrationId, identityKey: shown(signedIdentityKey.public), signedPreKey: signed, preKey: { keyId, publicKey: shown(pair.public) } };
}

const write = (from, jid, text) => from.encryptMessage({ jid, data: Buffer.from(text) });
const read = async (by, jid, message) => String(await by.decryptMessage({ jid, ...message }));
const hears = async (text, message) => assert.equal(await read(contact, OURS, message), text);
const writeToGroup = (from, text) => from.encryptGroupMessage({ group: GROUP, meId: OURS, data: Buffer.from(text) });
const hearsInGroup = async (text, { ciphertext }) => assert.equal(String(await contact.decryptGroupMessage({ group: GROUP, authorJid: OURS, msg: ciphertext })), text);

const { keys, signal } = await open();
await signal.injectE2ESession({ jid: THEIRS, session: await bundle() });
await hears("hello", await write(signal, THEIRS, "hello"));
assert.equal(await read(signal, THEIRS, await write(contact, OURS, "hello yourself")), "hello yourself");
await hears("how are you", await write(signal, THEIRS, "how are you"));

// A message that crosses a new session of ours is read in the old one, and the new one goes on.
const crossing = await write(contact, OURS, "crossing");
await signal.injectE2ESession({ jid: THEIRS, session: await bundle() });
assert.equal(await read(signal, THEIRS, crossing), "crossing");
await hears("in the new session", await write(signal, THEIRS, "in the new session"));
await hears("again", await write(signal, THEIRS, "again"));

// The same contact by its number, written to while a message of its LID is read.
const NUMBER = "2999@s.whatsapp.net";
await signal.lidMapping.storeLIDPNMappings([{ lid: THEIRS, pn: NUMBER }]);
for (let count = 0; count < 10; count += 1) {
  const [first, second] = [await write(contact, OURS, "first"), await write(contact, OURS, "second")];
  await read(signal, THEIRS, first);
  const [leaving] = await Promise.all([write(signal, NUMBER, "leaving"), read(signal, THEIRS, second)]);
  const next = await write(signal, NUMBER, "next");
  await hears("leaving", leaving);
  await hears("next", next);
}

// Node is killed after a frame left, in the transaction that sends it.
const { ciphertext, senderKeyDistributionMessage } = await writeToGroup(signal, "to all");
const item = { groupId: GROUP, axolotlSenderKeyDistributionMessage: senderKeyDistributionMessage };
await contact.processSenderKeyDistributionMessage({ item, authorJid: OURS });
await hearsInGroup("to all", { ciphertext });
await keys.transaction(async () => {
  await hears("before the kill", await write(signal, THEIRS, "before the kill"));
  await hearsInGroup("to all before it", await writeToGroup(signal, "to all before it"));
  const { signal: next } = await open();
  await hears("after the kill", await write(next, THEIRS, "after the kill"));
  await hearsInGroup("to all after it", await writeToGroup(next, "to all after it"));
}, "me");

// A message that is read while another one is on its way stays read.
const meanwhile = await write(contact, OURS, "meanwhile");
let leave;
const sending = keys.transaction(async () => {
  await hears("on its way", await write(signal, THEIRS, "on its way"));
  await new Promise((resolve) => (leave = resolve));
}, "me");
while (!leave) await new Promise(setImmediate);
assert.equal(await read(signal, THEIRS, meanwhile), "meanwhile");
leave();
await sending;
await assert.rejects(read(signal, THEIRS, meanwhile), /No matching sessions|Key used already/);
await hears("the end", await write(signal, THEIRS, "the end"));
process.exit(0);
