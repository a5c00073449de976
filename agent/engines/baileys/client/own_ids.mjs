// WhatsApp's ids of the messages that this session sends. Each ends with a mark of its beginning,
// made with the session's own secret: a contact may name any ids in a receipt, and only marked ones
// are known as ours, also after a start and without a list of them.
import { createHmac, randomBytes } from "node:crypto";

// Hex digits before the mark: a million messages of a session differ in them. Of 65,000 ids that a
// contact invents, one is taken for ours.
const RANDOM = 14;

const hexOf = (bytes) => bytes.toString("hex").toUpperCase();
const hmac = (secret, text) => hexOf(createHmac("sha256", secret).update(text).digest());
const marked = (secret, start) =>
  "3EB0" + start + hmac(secret, `id ${start}`).slice(0, 18 - RANDOM);

// The same for the same key; no contact can guess it, for it would be sent that message again.
export const idOf = (secret, key) => marked(secret, hmac(secret, key).slice(0, RANDOM));

export const newId = (secret) => marked(secret, hexOf(randomBytes(RANDOM / 2)));

export function isOwn(secret, id) {
  return /^3EB0[0-9A-F]{18}$/.test(id) && marked(secret, id.slice(4, 4 + RANDOM)) === id;
}
