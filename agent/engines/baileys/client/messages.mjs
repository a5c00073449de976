// A message as the agent gives it → as the library wants it; and what an event may say of one.

// An error with a code that the worker knows.
export const refuse = (code, words) => Object.assign(new Error(words), { code });

export function jidOf(to) {
  const text = String(to).trim().replace(/^\+/, "");
  if (/^[0-9]{5,20}$/.test(text)) return text + "@s.whatsapp.net";
  const isId = /^[0-9-]{5,40}@(s\.whatsapp\.net|g\.us|lid|c\.us)$/.test(text);
  if (isId) return text.replace("@c.us", "@s.whatsapp.net");
  throw refuse("invalid_wid", "the receiver is neither a number nor a chat's id");
}

// The library would read any other address from this machine's disk: its own keys, too.
function fileOf(message, uploads) {
  if (message.upload !== undefined) return uploads.whole(message);
  if (message.content !== undefined) return Buffer.from(message.content, "base64");
  if (/^https:\/\//i.test(String(message.url))) return { url: message.url };
  throw refuse("invalid_request", "the file's url is not https");
}

function media(message, uploads) {
  const content = fileOf(message, uploads);
  const { mimetype, caption } = message;
  const [, kind = "document"] = /^(image|video|audio)\//.exec(mimetype) ?? [];
  const named = kind === "document" ? { fileName: message.filename ?? "file" } : {};
  return { [kind]: content, mimetype, ...named, ...(caption ? { caption } : {}) };
}

function contact({ name, phone }) {
  const plain = name.replace(/[\r\n]/g, " ");
  const digits = phone.replace(/\D/g, "");
  const number = `TEL;type=CELL;waid=${digits}:+${digits}`;
  const vcard = `BEGIN:VCARD\nVERSION:3.0\nFN:${plain}\n${number}\nEND:VCARD`;
  return { contacts: { displayName: plain, contacts: [{ displayName: plain, vcard }] } };
}

const placeOf = ({ latitude, longitude, name, address }) => {
  return { degreesLatitude: latitude, degreesLongitude: longitude, name, address };
};

const reactionOf = (jid, { emoji, message_id: id, sender }) => {
  return { react: { text: emoji, key: keyOf(jid, id, sender) } };
};

const ME = "me";

// The key of an earlier message in that chat. Who wrote it must be known in a group: phones look a
// message up by its writer, too. In a chat of two it is the other one, unless it is said.
function keyOf(jid, id, writer) {
  if (writer === ME) return { remoteJid: jid, id, fromMe: true };
  if (!jid.endsWith("@g.us")) return { remoteJid: jid, id, fromMe: false };
  const unknown = "who wrote the message that this one is about is not known here";
  if (!writer) throw refuse("message_not_found", unknown);
  return { remoteJid: jid, id, fromMe: false, participant: jidOf(writer) };
}

const CAPTIONED = ["image", "video", "document"];
const BARE = ["audio", "sticker"];

// The receiver's phone shows this content if it does not have the message replied to.
function quotedContentOf({ quote_text: text = "", quote_type: type = "text" }) {
  if (CAPTIONED.includes(type)) return { [`${type}Message`]: { caption: text } };
  if (BARE.includes(type)) return { [`${type}Message`]: {} };
  return { conversation: text };
}

// Returns the options of the library's sendMessage: the message that is quoted, if one is.
export function optionsOf(message, jid) {
  if (!message.quote) return {};
  const key = keyOf(jid, message.quote, message.quote_from);
  return { quoted: { key, message: quotedContentOf(message) } };
}

export function contentOf(message, jid, uploads) {
  const named = message.mentions?.length ? { mentions: message.mentions.map(jidOf) } : {};
  switch (message.type ?? "text") {
    case "text":
      return { text: message.text, ...named };
    case "media":
      return { ...media(message, uploads), ...named };
    case "edit":
      return { text: message.text, edit: keyOf(jid, message.message_id, ME) };
    case "delete":
      return { delete: keyOf(jid, message.message_id, message.sender ?? ME) };
    case "location":
      return { location: placeOf(message) };
    case "contact":
      return contact(message);
    case "reaction":
      return reactionOf(jid, message);
    default:
      throw refuse("invalid_request", "no such type of message");
  }
}

const FILES = ["image", "video", "audio", "document", "sticker"];
const TYPES = [...FILES, "location", "contact", "reaction"];

export const typeOf = (message) => TYPES.find((type) => message?.[`${type}Message`]) ?? "text";

// Who wrote a message, and where: in a group its keys are others than those to this session.
export function senderOf(key, self = {}) {
  const { remoteJid = "", remoteJidAlt, participant, participantAlt, fromMe } = key;
  const group = /@(g\.us|broadcast)$/.test(remoteJid) ? remoteJid : "";
  if (fromMe) return { peer: self.id ?? "", alias: self.lid ?? "", group };
  return { peer: participant || remoteJid, alias: participantAlt ?? remoteJidAlt ?? "", group };
}

const ACKS = { 0: "error", 1: "pending", 2: "server", 3: "delivered", 4: "read", 5: "played" };
export const ackOf = (status) => ACKS[status] ?? "unknown";
