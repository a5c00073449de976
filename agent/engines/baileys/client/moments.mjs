// Moments tell others what holds for a moment: the account read messages, or types.
import { jidOf, refuse } from "./messages.mjs";

const AGAIN = 10_000; // phones stop showing it by themselves a little later
const WIRE = { typing: "composing", recording: "recording", paused: "paused" };

export class Moments {
  #shown = new Map(); // chat → the timer of what is shown there

  // The receipts say what the account's privacy allows: maybe only its own devices hear.
  async read(socket, { chat, message_ids: ids, sender = "" }) {
    const remoteJid = jidOf(chat);
    const participant = remoteJid.endsWith("@g.us") ? jidOf(sender) : undefined;
    await socket.readMessages(ids.map((id) => ({ remoteJid, id, participant, fromMe: false })));
  }

  // `current`: whether the socket is still the session's.
  async show(socket, { state, chat = "", seconds = 0 }, current) {
    if (!Object.hasOwn(WIRE, state)) return this.#showAll(socket, state);
    const jid = jidOf(chat);
    clearTimeout(this.#shown.get(jid));
    this.#shown.delete(jid);
    await socket.sendPresenceUpdate(WIRE[state], jid);
    const until = Date.now() + seconds * 1000;
    if (state !== "paused" && seconds > 0) this.#goOn(socket, jid, WIRE[state], until, current);
  }

  #goOn(socket, jid, word, until, current) {
    const left = until - Date.now();
    const next = () => {
      this.#shown.delete(jid);
      if (!current()) return;
      const over = left <= AGAIN;
      // A connection that ends meanwhile ends what is shown, too.
      socket.sendPresenceUpdate(over ? "paused" : word, jid).catch(() => {});
      if (!over) this.#goOn(socket, jid, word, until, current);
    };
    this.#shown.set(jid, setTimeout(next, Math.min(left, AGAIN)).unref());
  }

  // Without the account's name the library would say nothing, and call that done.
  async #showAll(socket, state) {
    const nameless = "WhatsApp has not told the account's own name yet";
    if (!socket.authState.creds.me?.name) throw refuse("not_ready", nameless);
    await socket.sendPresenceUpdate(state);
  }
}
