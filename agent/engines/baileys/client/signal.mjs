// Signal's sessions with contacts, where the library would lose messages of this session's own.
//
// A chain's key is used once: a contact drops what comes under a used one. So what a message changes
// in its session is on the disk before the message leaves, and nothing older is written over it.

const OWN_QUEUE = ["session", "sender-key"]; // libsignal works on one record at a time

const partOf = (data, wanted) => Object.fromEntries(Object.entries(data).filter(([type]) => OWN_QUEUE.includes(type) === wanted));

// The library writes at the end of a transaction, which is after the frame, and then writes what it
// had read before: also over what came of another message meanwhile. `stored`: the store itself.
export function repositoryOf(lib, stored) {
  return ({ creds, keys }, ...more) => {
    const through = {
      ...keys,
      get: (type, ids) => (OWN_QUEUE.includes(type) ? stored.get(type, ids) : keys.get(type, ids)),
      async set(data) {
        const [now, later] = [partOf(data, true), partOf(data, false)];
        if (Object.keys(now).length) await stored.setNow(now);
        if (Object.keys(later).length) await keys.set(later);
      },
    };
    return lib.DEFAULT_CONNECTION_CONFIG.makeSignalRepository({ creds, keys: through }, ...more);
  };
}

// libsignal tries a message in each session with its sender, and steps a session's ratchet before it
// knows that the message is of that session. Kept like this, it writes what the contact cannot read.
//
// The library drops a first message under a used key, told by the error's text. Its key is used before
// its receipt leaves, so what ends between the two would lose it: by another text, it is asked for again.
export function keepUntriedSessions({ SessionCipher }) {
  const { doDecryptWhisperMessage: read } = SessionCipher.prototype;
  SessionCipher.prototype.doDecryptWhisperMessage = async function (bytes, session) {
    const before = session?.serialize();
    try {
      return await read.call(this, bytes, session);
    } catch (error) {
      if (session) Object.assign(session, session.constructor.deserialize(before));
      if (error.name === "MessageCounterError") error.message = "a message under a used counter";
      throw error;
    }
  };
}
