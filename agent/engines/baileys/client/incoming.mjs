// A message of the protocol → the record that is kept of it. The contact chose everything in it:
// each part is bounded, and the record leaves out what this module does not understand.
import { createHash } from "node:crypto";

const LONGEST_TEXT = 65_536;
const LONGEST_WORD = 1024;
const LONGEST_CARD = 8192;
const LONGEST_QUOTE = 4096;
const LONGEST_ID = 200;
const MOST_PARTS = 256;
const LONGEST = 200 << 10; // bytes of a record: what its reader adds still fits

const REVOKE = 0;
const EDIT = 14;
const MEDIA = { imageMessage: "image", videoMessage: "video", ptvMessage: "video", audioMessage: "audio", documentMessage: "document", stickerMessage: "sticker" };
// Content that WhatsApp's apps do not show.
const SILENT = new Set(["protocolMessage", "senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage", "messageContextInfo", "deviceSentMessage", "call"]);

const isText = (value) => typeof value === "string";
const cut = (value, most = LONGEST_WORD) => (isText(value) && value ? value.slice(0, most).toWellFormed() : undefined);
const numberOf = (value) => (value !== null && value !== undefined && Number.isFinite(Number(value)) ? Number(value) : undefined);
const encoded = (bytes) => (bytes?.length ? Buffer.from(bytes).toString("base64") : undefined);
const without = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
const secondsOf = (at) => (Number(at) > 0 && Number(at) < 4e9 ? Number(at) : Math.floor(Date.now() / 1000));

// The record's id; a long one ends in its hash, so that no contact makes it longer.
export function recordId(...parts) {
  const whole = parts.join(":").toWellFormed();
  return whole.length <= LONGEST_ID ? whole : `${parts[0]}:${createHash("sha256").update(whole).digest("hex")}`;
}

// The fields of every record; `key` as the library makes it of a stanza.
export function commonOf(lib, key, at, me = {}) {
  const named = (jid) => (jid ? cut(lib.jidNormalizedUser(jid) || jid) : "");
  const chat = named(key.remoteJid);
  const [sender, alias] = key.fromMe ? [me.id, me.lid] : [key.participant || key.remoteJid, key.participantAlt ?? key.remoteJidAlt];
  const common = { at: secondsOf(at), chat, from_me: key.fromMe === true, sender: named(sender), alias: named(alias), message_id: cut(key.id) ?? "" };
  return { common, by: common.from_me ? "me" : common.sender };
}

// The records of a message, most often one; none of what WhatsApp's programs tell each other.
// `votes` reads a vote in a poll. A message of a form that is not expected here is a message still.
export function recordsOf(lib, message, how) {
  try {
    return readRecords(lib, message, how);
  } catch {
    const { common, by } = commonOf(lib, message.key, message.messageTimestamp, how.me);
    return [{ kind: "message", id: recordId("m", common.chat, by, common.message_id), ...common, type: "other", fresh: how.fresh }];
  }
}

function readRecords(lib, { key, message, messageTimestamp, pushName }, { me, fresh, votes }) {
  const content = lib.extractMessageContent(message?.deviceSentMessage?.message ?? message);
  if (!content) return [];
  const { common, by } = commonOf(lib, key, messageTimestamp, me);
  const about = (kind, letter, target, last, more) => [fitted({ kind, id: recordId(letter, common.chat, by, target, ...last), ...common, message_id: cut(target) ?? "", ...more })];
  const id = common.message_id;
  const { protocolMessage: told, reactionMessage: reaction, pollUpdateMessage: vote } = content;
  if (told?.type === REVOKE && isText(told.key?.id)) return about("message_delete", "d", told.key.id, [], {});
  if (told?.type === EDIT && isText(told.key?.id)) {
    const { text = "" } = plainOf(lib, told.editedMessage);
    return about("message_edit", "e", told.key.id, [id], { text });
  }
  if (reaction && isText(reaction.key?.id)) return about("message_reaction", "r", reaction.key.id, [id], { emoji: cut(reaction.text) ?? "" });
  if (vote && isText(vote.pollCreationMessageKey?.id)) {
    const options = votes(vote, common);
    return about("message_vote", "v", vote.pollCreationMessageKey.id, [id], options ? { options } : {});
  }
  if (!Object.keys(content).some((name) => !SILENT.has(name) && content[name])) return [];
  const name = cut(pushName);
  const plain = plainOf(lib, content);
  // A phone that shall give a file again knows its message by these.
  if (plain._media) Object.assign(plain._media, without({ chat: cut(key.remoteJid), by: cut(key.participant) }));
  const record = { kind: "message", id: recordId("m", common.chat, by, id), ...common, ...plain, fresh, ...(name && !common.from_me ? { name } : {}) };
  return [fitted(record)];
}

// What stands in a message, without who wrote it.
function plainOf(lib, message) {
  const content = lib.extractMessageContent(message) ?? {};
  const [name, part] = Object.entries(content).find(([key, value]) => !SILENT.has(key) && value) ?? [];
  const context = part?.contextInfo;
  return without({ ...ofType(name, part), quote: quoteOf(lib, context), mentions: mentionsOf(context) });
}

function ofType(name, part) {
  if (name === "conversation") return { type: "text", text: cut(part, LONGEST_TEXT) };
  if (Object.hasOwn(MEDIA, name ?? "")) return mediaOf(MEDIA[name], part);
  switch (name) {
    case "extendedTextMessage":
      return { type: "text", text: cut(part.text, LONGEST_TEXT) };
    case "buttonsResponseMessage":
    case "templateButtonReplyMessage":
      return { type: "text", text: cut(part.selectedDisplayText, LONGEST_TEXT) };
    case "listResponseMessage":
      return { type: "text", text: cut(part.title, LONGEST_TEXT) };
    case "locationMessage":
    case "liveLocationMessage":
      return { type: "location", text: cut(part.comment ?? part.caption, LONGEST_TEXT), location: locationOf(part) };
    case "contactMessage":
      return { type: "contact", contacts: [cardOf(part)] };
    case "contactsArrayMessage":
      return { type: "contact", contacts: (part.contacts ?? []).slice(0, MOST_PARTS).map(cardOf) };
    default:
      return /^pollCreationMessage/.test(name) && part.name !== undefined ? { type: "poll", poll: pollOf(part) } : { type: "other" };
  }
}

function mediaOf(type, part) {
  const media = without({
    mimetype: cut(part.mimetype),
    size: numberOf(part.fileLength),
    sha256: part.fileSha256?.length ? Buffer.from(part.fileSha256).toString("hex").slice(0, 64) : undefined,
    filename: cut(part.fileName),
    seconds: numberOf(part.seconds) || undefined,
    width: numberOf(part.width) || undefined,
    height: numberOf(part.height) || undefined,
  });
  const keys = without({
    key: encoded(part.mediaKey?.subarray(0, 64)),
    path: cut(part.directPath, LONGEST_QUOTE),
    url: cut(part.url, LONGEST_QUOTE),
    sealed: encoded(part.fileEncSha256?.subarray(0, 64)),
  });
  return { type, text: cut(part.caption, LONGEST_TEXT), media, _media: keys };
}

const locationOf = (part) => without({ latitude: numberOf(part.degreesLatitude), longitude: numberOf(part.degreesLongitude), name: cut(part.name), address: cut(part.address) });
const cardOf = (part) => without({ name: cut(part?.displayName), vcard: cut(part?.vcard, LONGEST_CARD) });
const optionsOf = (part) => (part.options ?? []).slice(0, MOST_PARTS).map(({ optionName }) => cut(optionName) ?? "");
const pollOf = (part) => without({ question: cut(part.name), options: optionsOf(part), several: part.selectableOptionsCount !== 1 });

function quoteOf(lib, context) {
  if (!isText(context?.stanzaId) || !context.stanzaId) return undefined;
  const quoted = lib.extractMessageContent(context.quotedMessage) ?? {};
  const [name, part] = Object.entries(quoted).find(([key, value]) => !SILENT.has(key) && value) ?? [];
  const { text } = ofType(name, part);
  return without({ message_id: cut(context.stanzaId), sender: cut(context.participant), text: cut(text, LONGEST_QUOTE) });
}

function mentionsOf(context) {
  const found = (context?.mentionedJid ?? []).filter(isText).slice(0, MOST_PARTS).map((jid) => cut(jid));
  return found.length ? found : undefined;
}

// A record that is too long loses what a reader misses least.
function fitted(record) {
  const isLong = () => Buffer.byteLength(JSON.stringify(record)) > LONGEST;
  for (const name of ["quote", "contacts", "mentions", "poll", "options", "_media"]) {
    if (!isLong()) return record;
    delete record[name];
  }
  if (isLong()) record.text = record.text?.slice(0, LONGEST_TEXT / 2).toWellFormed();
  return record;
}
