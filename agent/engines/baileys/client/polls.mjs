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

  // Of each message that comes or goes.
  note({ key, message }) {
    const content = this.#lib.normalizeMessageContent(message?.deviceSentMessage?.message ?? message);
    const secret = content?.messageContextInfo?.messageSecret ?? message?.messageContextInfo?.messageSecret;
    const poll = content && Object.entries(content).find(([name, value]) => /^pollCreationMessage/.test(name) && value?.options)?.[1];
    if (!poll || !secret?.length || typeof key.id !== "string") return;
    const options = poll.options.slice(0, MOST_OPTIONS).map(({ optionName }) => optionName ?? "");
    const names = new Map(options.map((name) => [createHash("sha256").update(name).digest("hex"), name.slice(0, 1024).toWellFormed()]));
    const creators = key.fromMe ? this.#own() : [key.participant || key.remoteJid, key.participantAlt ?? key.remoteJidAlt];
    this.#seen.delete(key.id);
    this.#seen.set(key.id, { secret, names, creators: this.#named(creators) });
    if (this.#seen.size > MOST) this.#seen.delete(this.#seen.keys().next().value);
  }

  // The chosen options; undefined where the poll is not known here.
  read({ pollCreationMessageKey, vote }, { from_me, sender, alias }) {
    const poll = this.#seen.get(pollCreationMessageKey.id);
    if (!poll || !vote?.encPayload) return undefined;
    const voters = this.#named(from_me ? this.#own() : [sender, alias]);
    for (const pollCreatorJid of poll.creators) {
      for (const voterJid of voters) {
        try {
          const told = { pollCreatorJid, pollMsgId: pollCreationMessageKey.id, pollEncKey: poll.secret, voterJid };
          const { selectedOptions } = this.#lib.decryptPollVote(vote, told);
          const hashes = selectedOptions.slice(0, MOST_OPTIONS).map((hash) => Buffer.from(hash).toString("hex").slice(0, 64));
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
