// Polls that were seen lately: a vote is sealed with the secret that came with its poll.
import { createHash } from "node:crypto";

const MOST = 200;
const MOST_OPTIONS = 256;

export class Polls {
  #lib;
  #me;
  #seen = new Map(); // id → {secret, names: hash → option, creators}

  constructor(lib, me) {
    this.#lib = lib;
    this.#me = me;
  }

  // Must get each message that comes or goes: it notes the polls among them.
  note({ key, message }) {
    const sent = message?.deviceSentMessage?.message ?? message;
    const content = this.#lib.normalizeMessageContent(sent);
    const [inner, outer] = [content?.messageContextInfo, message?.messageContextInfo];
    const secret = inner?.messageSecret ?? outer?.messageSecret;
    const isPoll = ([name, value]) => /^pollCreationMessage/.test(name) && value?.options;
    const poll = Object.entries(content ?? {}).find(isPoll)?.[1];
    if (!poll || !secret?.length || typeof key.id !== "string") return;
    const options = poll.options.slice(0, MOST_OPTIONS).map(({ optionName }) => optionName ?? "");
    const hashOf = (name) => createHash("sha256").update(name).digest("hex");
    const shown = (name) => name.slice(0, 1024).toWellFormed();
    const names = new Map(options.map((name) => [hashOf(name), shown(name)]));
    const { participant, participantAlt, remoteJid, remoteJidAlt } = key;
    const theirs = [participant || remoteJid, participantAlt ?? remoteJidAlt];
    const creators = key.fromMe ? this.#own() : theirs;
    this.#seen.delete(key.id);
    this.#seen.set(key.id, { secret, names, creators: this.#named(creators) });
    if (this.#seen.size > MOST) this.#seen.delete(this.#seen.keys().next().value);
  }

  // The chosen options; undefined where the poll is not known here.
  read({ pollCreationMessageKey, vote }, { from_me, sender, alias }) {
    const { id: pollMsgId } = pollCreationMessageKey;
    const poll = this.#seen.get(pollMsgId);
    if (!poll || !vote?.encPayload) return undefined;
    const voters = this.#named(from_me ? this.#own() : [sender, alias]);
    for (const pollCreatorJid of poll.creators) {
      for (const voterJid of voters) {
        try {
          const told = { pollCreatorJid, pollMsgId, pollEncKey: poll.secret, voterJid };
          const { selectedOptions } = this.#lib.decryptPollVote(vote, told);
          const hexOf = (hash) => Buffer.from(hash).toString("hex").slice(0, 64);
          const hashes = selectedOptions.slice(0, MOST_OPTIONS).map(hexOf);
          return hashes.map((hash) => poll.names.get(hash) ?? hash);
        } catch {} // sealed under another name of theirs
      }
    }
    return undefined;
  }

  #own() {
    const { id, lid } = this.#me() ?? {};
    return [id, lid];
  }

  #named(jids) {
    return jids.filter(Boolean).map((jid) => this.#lib.jidNormalizedUser(jid));
  }
}
