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
const MEDIA = /^(image|video|ptv|audio|document|sticker)Message$/;
// Content that WhatsApp's apps do not show.
const SILENT = new Set([
  ...["senderKeyDistributionMessage", "fastRatchetKeySenderKeyDistributionMessage", "call"],
  ...["protocolMessage", "messageContextInfo", "deviceSentMessage"],
]);

const isText = (value) => typeof value === "string";
const cut = (value, most = LONGEST_WORD) =>
  isText(value) && value ? value.slice(0, most).toWellFormed() : undefined;
const numberOf = (value) =>
  value !== null && Number.isFinite(Number(value)) ? Number(value) : undefined;
const encoded = (bytes, how = "base64") =>
  bytes?.length ? Buffer.from(bytes).toString(how) : undefined;
const without = (object) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
const shownIn = (content) =>
  Object.entries(content).find(([key, value]) => !SILENT.has(key) && value) ?? [];
const secondsOf = (at) =>
  Number(at) > 0 && Number(at) < 4e9 ? Number(at) : Math.floor(Date.now() / 1000);

// The record's id; a long one ends in its hash, so that no contact makes it longer.
export function recordId(...parts) {
  const whole = parts.join(":").toWellFormed();
  if (whole.length <= LONGEST_ID) return whole;
  return `${parts[0]}:${createHash("sha256").update(whole).digest("hex")}`;
}

// The fields of every record; `key` as the library makes it of a stanza.
export function commonOf(lib, key, at, me = {}) {
  const named = (jid) => (jid ? cut(lib.jidNormalizedUser(jid) || jid) : "");
  const chat = named(key.remoteJid);
  const sender = named(key.fromMe ? me.id : key.participant || key.remoteJid);
  const alias = named(key.fromMe ? me.lid : (key.participantAlt ?? key.remoteJidAlt));
  const mine = key.fromMe === true;
  const said = { chat, from_me: mine, sender, alias, message_id: cut(key.id) ?? "" };
  return { common: { at: secondsOf(at), ...said }, by: mine ? "me" : sender };
}

// The records of a message, most often one; none of what WhatsApp's programs tell each other.
// `votes` reads a vote in a poll. A message of a form that is not expected here is a message still.
export function recordsOf(lib, message, how) {
  try {
    return readRecords(lib, message, how);
  } catch {
    const { common, by } = commonOf(lib, message.key, message.messageTimestamp, how.me);
    const id = recordId("m", common.chat, by, common.message_id);
    return [{ kind: "message", id, ...common, type: "other", fresh: how.fresh }];
  }
}

function readRecords(lib, { key, message, messageTimestamp: at, pushName }, { me, fresh, votes }) {
  const content = lib.extractMessageContent(message?.deviceSentMessage?.message ?? message);
  if (!content) return [];
  const { common, by } = commonOf(lib, key, at, me);
  const about = (kind, target, last, more) => {
    const id = recordId(kind[0], common.chat, by, target, ...last);
    const record = { ...common, message_id: cut(target) ?? "", ...more };
    return [fitted({ kind: `message_${kind}`, id, ...record })];
  };
  const id = common.message_id;
  const { protocolMessage: told, reactionMessage: reaction, pollUpdateMessage: vote } = content;
  const target = told?.key?.id;
  if (told?.type === REVOKE && isText(target)) return about("delete", target, [], {});
  if (told?.type === EDIT && isText(target)) {
    const { text = "" } = plainOf(lib, told.editedMessage);
    return about("edit", target, [id], { text });
  }
  if (reaction && isText(reaction.key?.id)) {
    return about("reaction", reaction.key.id, [id], { emoji: cut(reaction.text) ?? "" });
  }
  const poll = vote?.pollCreationMessageKey?.id;
  if (isText(poll)) {
    const options = votes(vote, common);
    return about("vote", poll, [id], options ? { options } : {});
  }
  if (!shownIn(content).length) return [];
  const name = cut(pushName);
  const plain = plainOf(lib, content);
  // A phone that shall give a file again knows its message by these.
  const place = without({ chat: cut(key.remoteJid), by: cut(key.participant) });
  if (plain._media) Object.assign(plain._media, place);
  const record = { kind: "message", id: recordId("m", common.chat, by, id), ...common, ...plain };
  return [fitted({ ...record, fresh, ...(name && !common.from_me ? { name } : {}) })];
}

// Returns the content of a message as fields of a record, without its sender.
function plainOf(lib, message) {
  const content = lib.extractMessageContent(message) ?? {};
  const [name, part] = shownIn(content);
  const context = part?.contextInfo;
  const [quote, mentions] = [quoteOf(lib, context), mentionsOf(context)];
  return without({ ...ofType(name, part), quote, mentions });
}

function ofType(name, part) {
  const [, media] = MEDIA.exec(name) ?? [];
  if (media) return mediaOf(media === "ptv" ? "video" : media, part);
  const textOf = (text) => ({ type: "text", text: cut(text, LONGEST_TEXT) });
  if (name === "conversation") return textOf(part);
  switch (name) {
    case "extendedTextMessage":
      return textOf(part.text);
    case "buttonsResponseMessage":
    case "templateButtonReplyMessage":
      return textOf(part.selectedDisplayText);
    case "listResponseMessage":
      return textOf(part.title);
    case "locationMessage":
    case "liveLocationMessage":
      return locationOf(part, textOf(part.comment ?? part.caption));
    case "contactMessage":
      return { type: "contact", contacts: [cardOf(part)] };
    case "contactsArrayMessage":
      return { type: "contact", contacts: (part.contacts ?? []).slice(0, MOST_PARTS).map(cardOf) };
  }
  const isPoll = /^pollCreationMessage/.test(name) && part.name !== undefined;
  return isPoll ? { type: "poll", poll: pollOf(part) } : { type: "other" };
}

function mediaOf(type, part) {
  const media = without({
    mimetype: cut(part.mimetype),
    size: numberOf(part.fileLength),
    sha256: encoded(part.fileSha256, "hex")?.slice(0, 64),
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

const locationOf = (part, said) => {
  const [latitude, longitude] = [part.degreesLatitude, part.degreesLongitude].map(numberOf);
  const place = { latitude, longitude, name: cut(part.name), address: cut(part.address) };
  return { ...said, type: "location", location: without(place) };
};
const cardOf = (part) =>
  without({ name: cut(part?.displayName), vcard: cut(part?.vcard, LONGEST_CARD) });
const pollOf = ({ name, options, selectableOptionsCount: most }) => {
  const names = (options ?? []).slice(0, MOST_PARTS).map(({ optionName }) => cut(optionName) ?? "");
  return without({ question: cut(name), options: names, several: most !== 1 });
};

function quoteOf(lib, context) {
  if (!isText(context?.stanzaId) || !context.stanzaId) return undefined;
  const quoted = lib.extractMessageContent(context.quotedMessage) ?? {};
  const text = cut(ofType(...shownIn(quoted)).text, LONGEST_QUOTE);
  return without({ message_id: cut(context.stanzaId), sender: cut(context.participant), text });
}

function mentionsOf(context) {
  const named = (context?.mentionedJid ?? []).filter(isText).slice(0, MOST_PARTS);
  return named.length ? named.map((jid) => cut(jid)) : undefined;
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
