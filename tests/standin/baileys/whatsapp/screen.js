// A contact's phone shows one of the messages that come twice, and those changes that their writer
// may make, in a form that phones accept.
import { proto } from './packages.js';

const { Type } = proto.Message.ProtocolMessage;
const EDITED = '1';
const DELETED = '7';
const DELETED_BY_ADMIN = '8';
const LATEST_EDIT = 15 * 60_000;

const inner = (message) => message.extendedTextMessage ?? message.imageMessage ?? message.documentMessage;
const textOf = (message) => message?.conversation || inner(message ?? {})?.text || inner(message ?? {})?.caption || '';

export class Screen {
  /** Messages in the order in which they came; `from` is a user, "" = this phone's own. */
  messages = [];
  /** Ids of its own messages whose readers told of it, as often as they did. */
  read = [];
  /** Presences that others showed. */
  presences = [];
  /** Changes of messages that phones ignore. */
  ignored = 0;
  #ids = new Set();

  constructor(userOf) {
    this.userOf = userOf;
  }

  find(id) {
    return this.messages.find((each) => each.id === id);
  }

  wrote(id, chat, text) {
    this.messages.push({ id, from: '', chat, text: text ?? '', at: Date.now() });
  }

  /** `edit`: of the stanza, without which a phone takes no change. */
  take({ id, from, chat, edit }, message) {
    const { protocolMessage: told, reactionMessage: reaction } = message;
    const says = told || reaction || textOf(message) || inner(message);
    if (!says || this.#ids.has(id)) return;
    this.#ids.add(id);
    if (told?.type === Type.MESSAGE_EDIT && told.editedMessage) this.#change(this.#edit(told, { from, chat, edit }));
    else if (told?.type === Type.REVOKE && told.key) this.#change(this.#remove(told, { from, chat, edit }));
    else if (reaction) this.#change(this.#react(reaction, { from, chat }));
    else if (!edit && !told) this.messages.push(this.#shown({ id, from, chat }, message));
  }

  #shown(about, message) {
    const context = inner(message)?.contextInfo;
    const shown = { ...about, text: textOf(message), at: Date.now() };
    if (context?.mentionedJid?.length) shown.mentions = context.mentionedJid.map(this.userOf);
    if (context?.stanzaId) shown.quote = this.#quote(context);
    return shown;
  }

  /** A phone shows it as a reply only where it can say to whom. */
  #quote({ stanzaId, participant, quotedMessage }) {
    const original = this.find(stanzaId);
    const writer = participant ? this.userOf(participant) : null;
    if (!writer || !quotedMessage) return null;
    return { id: stanzaId, from: writer, text: original?.text ?? textOf(quotedMessage) };
  }

  #change(done) {
    if (!done) this.ignored += 1;
  }

  #edit({ key, editedMessage }, { from, chat, edit }) {
    const target = this.find(key?.id);
    const right = edit === EDITED && key.fromMe && target?.from === from && target.chat === chat;
    if (!right || target.deleted || Date.now() - target.at > LATEST_EDIT) return false;
    Object.assign(target, { text: textOf(editedMessage), edits: (target.edits ?? 0) + 1 });
    return true;
  }

  #remove({ key }, { from, chat, edit }) {
    const target = this.find(key.id);
    if (!target || target.chat !== chat) return false;
    const own = edit === DELETED && key.fromMe && target.from === from;
    const writer = key.participant ? this.userOf(key.participant) : null;
    const byAdmin = edit === DELETED_BY_ADMIN && !key.fromMe && chat.endsWith('@g.us');
    if (!own && !(byAdmin && writer === (target.from || this.self))) return false;
    Object.assign(target, { text: '', deleted: (target.deleted ?? 0) + 1 });
    return true;
  }

  /** By its id and who wrote it, seen from who reacts. */
  #react({ key, text }, { from, chat }) {
    const target = this.find(key.id);
    if (!target || target.chat !== chat) return false;
    const writer = key.fromMe ? from : this.userOf(key.participant || key.remoteJid);
    if (writer !== (target.from || this.self)) return false;
    target.reactions = { ...target.reactions, [from]: text };
    return true;
  }

  shown() {
    const messages = this.messages.map(({ at, ...more }) => more);
    return { messages, read: this.read, presences: this.presences, ignored: this.ignored };
  }
}
