// Receipts and calls, as WhatsApp's stanzas tell them → records.
import { commonOf, recordId } from "./incoming.mjs";
import { isOwn } from "./own_ids.mjs";

export const MOST_ACKS = 500; // of one receipt: a contact may list any number of ids in it

const STATES = { read: "read", played: "played", inactive: "delivered" };
const CALLS = new Set(["offer", "accept", "reject", "timeout", "terminate"]);

const isSame = (lib, jid, me = {}) =>
  [me.id, me.lid].some((own) => own && lib.areJidsSameUser(own, jid));

function ackRecord(lib, id, chat, who, state, at, me) {
  const { common } = commonOf(lib, { remoteJid: chat, id, fromMe: true }, at, me);
  const participant = who ? lib.jidNormalizedUser(who) : "";
  const name = recordId("a", id, participant || common.chat, state);
  return { kind: "message_ack", id: name, ...common, state, participant };
}

// Only of messages that this session sent: a contact could fill the disk with any others.
export function acksOf(lib, { attrs, content }, { me, noiseKey }) {
  const { type = "inactive" } = attrs; // none: it was delivered
  const state = Object.hasOwn(STATES, type) ? STATES[type] : undefined;
  if (!state || !attrs.from || isSame(lib, attrs.participant || attrs.from, me)) return [];
  const items = Array.isArray(content) ? content[0]?.content : undefined;
  const more = Array.isArray(items) ? items.slice(0, MOST_ACKS - 1) : [];
  const ids = [attrs.id, ...more.map((item) => item?.attrs?.id)];
  const own = [...new Set(ids)].filter((id) => isOwn(noiseKey.private, id));
  return own.map((id) => ackRecord(lib, id, attrs.from, attrs.participant, state, attrs.t, me));
}

// The server's own word on a message that was sent.
export function serverAckOf(lib, { attrs }, { me, noiseKey }) {
  if (attrs.class !== "message" || !attrs.from || !isOwn(noiseKey.private, attrs.id)) return [];
  const state = attrs.error ? "error" : "server";
  return [ackRecord(lib, attrs.id, attrs.from, "", state, attrs.t, me)];
}

export function callsOf(lib, { attrs, content }, { me }) {
  const told = Array.isArray(content) ? content[0] : undefined;
  const id = told?.attrs?.["call-id"];
  if (!id || !attrs.from) return [];
  const state = lib.getCallStatusFromNode(told);
  if (!CALLS.has(state)) return [];
  const from = told.attrs.from || told.attrs["call-creator"] || attrs.from;
  const who = { participant: from, participantAlt: told.attrs.caller_pn };
  const key = { remoteJid: attrs.from, id: "", ...who, fromMe: isSame(lib, from, me) };
  const { common } = commonOf(lib, key, attrs.t, me);
  const record = { kind: "call", id: recordId("c", id, state), ...common };
  const video = Array.isArray(told.content) && told.content.some(({ tag }) => tag === "video");
  const more = state === "offer" ? { video } : {};
  return [{ ...record, call_id: String(id).slice(0, 1024), state, ...more }];
}
