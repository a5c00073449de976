// Polls with their votes, and marks of a session's own ids, need no session. Arguments PACKAGES.
import assert from "node:assert/strict";
import { createCipheriv, createHash, createHmac, randomBytes } from "node:crypto";
import { client, lib } from "./opened.mjs";

const [{ Polls }, { idOf, isOwn, newId }, { recordsOf }] = await Promise.all(["polls.mjs", "own_ids.mjs", "incoming.mjs"].map(client));

// A vote as WhatsApp's programs seal it.
function seal(names, secret, id, creator, voter) {
  const selectedOptions = names.map((name) => createHash("sha256").update(name).digest());
  const plain = lib.proto.Message.PollVoteMessage.encode({ selectedOptions }).finish();
  const sign = Buffer.concat([id, creator, voter, "Poll Vote"].map((word) => Buffer.from(word)).concat(Buffer.from([1])));
  const first = createHmac("sha256", Buffer.alloc(32)).update(secret).digest();
  const key = createHmac("sha256", first).update(sign).digest();
  const encIv = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, encIv);
  cipher.setAAD(Buffer.from(`${id}\0${voter}`));
  return { encPayload: Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]), encIv };
}

const me = { id: "5511:3@s.whatsapp.net", lid: "15511:3@lid" };
const polls = new Polls(lib, () => me);
const [secret, group] = [randomBytes(32), "1@g.us"];
const options = ["now", "then"].map((optionName) => ({ optionName }));
const message = { pollCreationMessageV3: { name: "When?", options }, messageContextInfo: { messageSecret: secret } };
const voter = { from_me: false, sender: "5512@s.whatsapp.net", alias: "15512@lid" };
const read = (id, vote, who = voter) => polls.read({ pollCreationMessageKey: { id }, vote }, who);

polls.note({ key: { remoteJid: group, id: "P1", fromMe: true }, message });
polls.note({ key: { remoteJid: group, id: "P2", participant: "15513@lid", participantAlt: "5513@s.whatsapp.net" }, message });
assert.deepEqual(read("P1", seal(["then"], secret, "P1", "5511@s.whatsapp.net", "5512@s.whatsapp.net")), ["then"]);
assert.deepEqual(read("P1", seal(["now", "then"], secret, "P1", "15511@lid", "15512@lid")), ["now", "then"]);
assert.deepEqual(read("P2", seal(["now"], secret, "P2", "15513@lid", "15511@lid"), { from_me: true }), ["now"]);
assert.deepEqual(read("P1", seal([], secret, "P1", "5511@s.whatsapp.net", "5512@s.whatsapp.net")), []);
const other = createHash("sha256").update("never").digest("hex");
assert.deepEqual(read("P1", seal(["never"], secret, "P1", "5511@s.whatsapp.net", "5512@s.whatsapp.net")), [other]);
// A vote sealed by another person, or in a poll that is not known here, is not read.
assert.equal(read("P1", seal(["now"], secret, "P1", "5511@s.whatsapp.net", "5519@s.whatsapp.net")), undefined);
assert.equal(read("P9", seal(["now"], secret, "P9", "5511@s.whatsapp.net", "5512@s.whatsapp.net")), undefined);
assert.equal(read("P1", undefined), undefined);
for (let at = 0; at < 300; at += 1) polls.note({ key: { remoteJid: group, id: `Q${at}`, fromMe: true }, message });
assert.equal(read("P1", seal(["then"], secret, "P1", "5511@s.whatsapp.net", "5512@s.whatsapp.net")), undefined);

const [mine, theirs] = [randomBytes(32), randomBytes(32)];
assert.equal(idOf(mine, "order 7"), idOf(mine, "order 7"));
assert.notEqual(idOf(mine, "order 7"), idOf(mine, "order 8"));
for (const id of [idOf(mine, "order 7"), newId(mine), newId(mine)]) {
  assert.match(id, /^3EB0[0-9A-F]{18}$/); // as WhatsApp Web's own
  assert(isOwn(mine, id));
  assert(!isOwn(theirs, id));
}
for (const id of [undefined, "", "3EB0", 7, `${newId(mine)}0`, lib.generateMessageIDV2("5511@s.whatsapp.net")]) assert(!isOwn(mine, id));
let guessed = 0;
for (let at = 0; at < 50_000; at += 1) guessed += isOwn(mine, "3EB0" + at.toString(16).toUpperCase().padStart(18, "0"));
assert(guessed < 10, `${guessed} of 50,000 guesses`);
// A message of an unexpected form is one of another type; content for no person is no message.
const key = { remoteJid: "15512@lid", remoteJidAlt: "5512@s.whatsapp.net", id: "M1", fromMe: false };
const records = (content) => recordsOf(lib, { key, message: content, messageTimestamp: 1_800_000_000 }, { me, fresh: true, votes: () => undefined });
const odd = { kind: "message", id: "m:15512@lid:15512@lid:M1", at: 1_800_000_000, chat: "15512@lid", from_me: false, sender: "15512@lid", alias: "5512@s.whatsapp.net", message_id: "M1", type: "other", fresh: true };
assert.deepEqual(records({ contactsArrayMessage: { contacts: 7 } }), [odd]);
assert.deepEqual(records({ imageMessage: { mediaKey: "no bytes" } }), [odd]);
for (const content of [null, {}, { senderKeyDistributionMessage: { groupId: "1@g.us" } }, { protocolMessage: { type: 5 } }, { messageContextInfo: {} }]) assert.deepEqual(records(content), []);

// Whatever a contact seals: bytes that are a message of the protocol make records in bounds, or none.
const samples = [
  { extendedTextMessage: { text: "hello", contextInfo: { stanzaId: "A", participant: "1@lid", quotedMessage: { conversation: "q" }, mentionedJid: ["1@lid"] } } },
  { imageMessage: { caption: "c", mimetype: "image/png", mediaKey: randomBytes(32), fileLength: 7, directPath: "/v" } },
  { contactsArrayMessage: { contacts: [{ displayName: "d", vcard: "v" }] } },
  { pollCreationMessage: { name: "n", options: [{ optionName: "o" }] }, messageContextInfo: { messageSecret: randomBytes(32) } },
  { pollUpdateMessage: { pollCreationMessageKey: { id: "P1" }, vote: { encPayload: randomBytes(40), encIv: randomBytes(12) } } },
  { reactionMessage: { key: { id: "R" }, text: "x" } },
  { protocolMessage: { type: 14, key: { id: "E" }, editedMessage: { conversation: "e" } } },
  { locationMessage: { degreesLatitude: 1, degreesLongitude: 2, name: "n" } },
  { viewOnceMessage: { message: { ephemeralMessage: { message: { conversation: "deep" } } } } },
].map((each) => Buffer.from(lib.proto.Message.encode(lib.proto.Message.fromObject(each)).finish()));
let [made, drawn] = [0, 1];
const below = (most) => (drawn = (drawn * 48_271) % 2_147_483_647) % most; // the same in each run
for (let round = 0; round < 2_000; round += 1) {
  const bytes = Buffer.concat([samples[round % samples.length], samples[(round * 7) % samples.length]]);
  for (let times = 1 + (round % 4); times; times -= 1) bytes[below(bytes.length)] = below(256);
  let content;
  try {
    content = lib.proto.Message.decode(bytes);
  } catch {
    continue;
  }
  polls.note({ key, message: content });
  const found = recordsOf(lib, { key, message: content, messageTimestamp: round, pushName: "\ud800" }, { me, fresh: true, votes: (vote, common) => polls.read(vote, common) });
  assert(found.length <= 1);
  made += found.length;
  for (const record of found) {
    assert(record.id.length > 0 && record.id.length <= 200 && record.id.isWellFormed());
    assert(Buffer.byteLength(JSON.stringify(record)) <= 256 << 10);
  }
}
assert(made > 100, `${made} were messages`);
process.exit(0);
