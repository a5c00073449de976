// Log lines of the library and libsignal are taken as data: counted and reported, never printed.

import { senderOf } from "./messages.mjs";

// libsignal says with console.error why each session record failed, before it throws one summary.
const lastError = { kind: "" };

export function silenceConsole() {
  for (const name of ["log", "info", "warn", "debug", "trace", "dir"]) console[name] = () => {};
  console.error = (...words) => {
    const text = words.map((word) => word?.message ?? String(word)).join(" ");
    if (text.startsWith("Session error:")) lastError.kind = kindOf({ message: text });
  };
}

const REFUSALS = [{ words: "error 463", code: 463 }, { words: "smax-invalid (479)", code: 479 }];
// The kind of a decryption failure, by the error's own words; nothing of the message itself.
export function kindOf(error) {
  const words = String(error?.message ?? "");
  if (/Bad MAC/i.test(words)) return "bad_mac";
  if (/Invalid PreKey|PreKey ID|SignedPreKey/i.test(words)) return "prekey";
  if (/No session record|No matching sessions|No session found/i.test(words)) return "no_session";
  if (/SenderKey|sender message key|sender key/i.test(words)) return "sender_key";
  if (/Over 2000/i.test(words)) return "behind";
  if (/counter|Key used already/i.test(words)) return "duplicate";
  if (/Message absent from node/i.test(words)) return "absent";
  return "undecryptable";
}

// An error's own words where they are ours; of the library's and WhatsApp's only its number and
// kind: their texts may repeat a contact's number, a key or a message.
export function toldOf(error) {
  if (typeof error?.code === "string") return String(error.message).slice(0, 300);
  const status = error?.data?.attrs?.code ?? error?.data ?? error?.output?.statusCode;
  const number = error?.isBoom && (Number(status) || error.output.statusCode);
  if (error?.isBoom) return `WhatsApp or the library refused it (error ${number})`;
  return `the library failed (${error?.name ?? "Error"})`;
}

// A text of WhatsApp without what may be a number or a key.
const SECRET = /\S{25,}|\S*@\S*|\d{5,}/g;
export const masked = (text) => String(text).replace(SECRET, "…").slice(0, 200);

// A logger as the library wants one: what says something about the session becomes an event.
export function makeLogger(emit) {
  let lastKey = null;
  const seen = (context, message) => {
    if (message === "failed to decrypt message") {
      // A message to a group comes in two encrypted parts: they are one that cannot be read.
      if (context.key && context.key === lastKey) return;
      lastKey = context.key;
      const summary = /No matching sessions/i.test(String(context.err?.message));
      const kind = summary && lastError.kind ? lastError.kind : kindOf(context.err);
      lastError.kind = "";
      const sender = senderOf(context.key ?? {});
      const [peer, id] = [context.author ?? sender.peer, String(context.key?.id ?? "")];
      return emit({ event: "undecryptable", kind, ...sender, peer, id });
    }
    const isIt = ({ words }) => typeof message === "string" && message.startsWith(words);
    const refusal = REFUSALS.find(isIt);
    if (refusal) emit({ event: "refused", code: refusal.code, id: String(context.msgId ?? "") });
  };
  const quiet = { level: "warn", child: () => logger, trace() {}, debug() {}, info() {} };
  const logger = { ...quiet, warn: seen, error: seen, fatal: seen };
  return logger;
}
