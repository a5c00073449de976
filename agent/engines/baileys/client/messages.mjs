// A message as the agent gives it → as the library wants it; and what an event may say of one.

export function jidOf(to) {
  const text = String(to).trim().replace(/^\+/, "");
  if (/^[0-9]{5,20}$/.test(text)) return text + "@s.whatsapp.net";
  if (/^[0-9-]{5,40}@(s\.whatsapp\.net|g\.us|lid|c\.us)$/.test(text)) return text.replace("@c.us", "@s.whatsapp.net");
  throw Object.assign(new Error("the receiver is neither a number nor a chat's id"), { code: "invalid_wid" });
}

const MEDIA = [["image/", "image"], ["video/", "video"], ["audio/", "audio"]];

// The library would read any other address from this machine's disk: its own keys, too.
function fileOf(message, uploads) {
  if (message.upload !== undefined) return uploads.whole(message);
  if (message.content !== undefined) return Buffer.from(message.content, "base64");
  if (/^https:\/\//i.test(String(message.url))) return { url: message.url };
  throw Object.assign(new Error("the file's url is not https"), { code: "invalid_request" });
}

function media(message, uploads) {
  const content = fileOf(message, uploads);
  const [, kind = "document"] = MEDIA.find(([start]) => message.mimetype.startsWith(start)) ?? [];
  const named = kind === "document" ? { fileName: message.filename ?? "file" } : {};
  return { [kind]: content, mimetype: message.mimetype, ...named, ...(message.caption ? { caption: message.caption } : {}) };
}

function contact({ name, phone }) {
  const plain = name.replace(/[\r\n]/g, " ");
  const digits = phone.replace(/\D/g, "");
  const vcard = `BEGIN:VCARD\nVERSION:3.0\nFN:${plain}\nTEL;type=CELL;waid=${digits}:+${digits}\nEND:VCARD`;
  return { contacts: { displayName: plain, contacts: [{ displayName: plain, vcard }] } };
}

export function contentOf(message, jid, uploads) {
  switch (message.type ?? "text") {
    case "text":
      return { text: message.text };
    case "media":
      return media(message, uploads);
    case "location":
      return { location: { degreesLatitude: message.latitude, degreesLongitude: message.longitude, name: message.name, address: message.address } };
    case "contact":
      return contact(message);
    case "reaction":
      return { react: { text: message.emoji, key: { remoteJid: jid, id: message.message_id, fromMe: message.from_me === true } } };
    default:
      throw Object.assign(new Error("no such type of message"), { code: "invalid_request" });
  }
}

const TYPES = [["imageMessage", "image"], ["videoMessage", "video"], ["audioMessage", "audio"], ["documentMessage", "document"], ["stickerMessage", "sticker"], ["locationMessage", "location"], ["contactMessage", "contact"], ["reactionMessage", "reaction"]];

export function typeOf(message) {
  return (TYPES.find(([name]) => message?.[name]) ?? [null, "text"])[1];
}

// Who wrote a message, and where: in a group its keys are others than those to this session alone.
export function senderOf(key, self = {}) {
  const { remoteJid = "", remoteJidAlt, participant, participantAlt, fromMe } = key;
  const group = /@(g\.us|broadcast)$/.test(remoteJid) ? remoteJid : "";
  if (fromMe) return { peer: self.id ?? "", alias: self.lid ?? "", group };
  return { peer: participant || remoteJid, alias: participantAlt ?? remoteJidAlt ?? "", group };
}

const ACKS = { 0: "error", 1: "pending", 2: "server", 3: "delivered", 4: "read", 5: "played" };
export const ackOf = (status) => ACKS[status] ?? "unknown";
