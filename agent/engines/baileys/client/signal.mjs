// Signal's sessions with contacts, where the library would lose messages of this session's own.
//
// A chain's key is used once: a contact drops what comes under a used one. So what a message
// changes in its session is on the disk before it leaves, and nothing older is written over it.

const OWN_QUEUE = ["session", "sender-key"]; // libsignal works on one record at a time

// The library writes at the end of a transaction, which is after the frame, and then writes what it
// had read before: also over what came of another message meanwhile. `stored`: the store itself.
export function repositoryOf(lib, stored) {
  return ({ creds, keys }, ...more) => {
    const through = {
      ...keys,
      get: (type, ids) => (OWN_QUEUE.includes(type) ? stored.get(type, ids) : keys.get(type, ids)),
      async set(data) {
        const all = Object.entries(data);
        const now = Object.fromEntries(all.filter(([type]) => OWN_QUEUE.includes(type)));
        const later = Object.fromEntries(all.filter(([type]) => !OWN_QUEUE.includes(type)));
        if (Object.keys(now).length) await stored.setNow(now, allowedBy(now));
        if (Object.keys(later).length) await keys.set(later);
      },
    };
    const { makeSignalRepository } = lib.DEFAULT_CONNECTION_CONFIG;
    return byOneName(makeSignalRepository({ creds, keys: through }, ...more));
  };
}

// A contact's number and its LID are one record, and two queues: what is written to the number
// while a message of the LID is read would be of an older step, and the contact could not read it.
function byOneName(repository) {
  for (const name of ["encryptMessage", "decryptMessage", "injectE2ESession"]) {
    const work = repository[name];
    repository[name] = async ({ jid, ...more }) => {
      const lid = await repository.lidMapping.getLIDForPN(jid);
      return work.call(repository, { jid: lid ?? jid, ...more });
    };
  }
  return repository;
}

// ciphertext → what must be done with its plaintext before its key counts as used.
const waiting = new WeakMap();
// content as which a session's record is stored → that work, which is under way by then.
const working = new WeakMap();

const allowedBy = ({ session = {} }) =>
  Object.values(session).map((content) => working.get(content)).find(Boolean);

// `keep` gets the padded plaintext; where it fails, the message stays as if it had not been read.
export const beforeItsKeyIsUsed = (ciphertext, keep) => waiting.set(ciphertext, keep);

// Both ciphers store what a message changed after they read it. A cipher is made for one message,
// so it knows by the bytes that it was given which one it reads.
export function waitBeforeKeys({ SessionCipher }, { GroupCipher }) {
  const remember = (prototype, name) => {
    const decrypt = prototype[name];
    prototype[name] = function (bytes) {
      this.taken = bytes;
      return decrypt.call(this, bytes);
    };
  };
  const cipher = SessionCipher.prototype;
  remember(cipher, "decryptWhisperMessage");
  remember(cipher, "decryptPreKeyWhisperMessage");
  const { doDecryptWhisperMessage: read, storeRecord } = cipher;
  cipher.doDecryptWhisperMessage = async function (...told) {
    return (this.plain = await read.apply(this, told));
  };
  // The record is written beside the one on the disk while the work goes on: both wait for a disk.
  cipher.storeRecord = async function (record) {
    const work = this.taken && waiting.get(this.taken)?.(this.plain);
    if (!work) return storeRecord.call(this, record);
    work.catch(() => {}); // who stores the record hears of it
    const { serialize } = record;
    record.serialize = function () {
      const content = serialize.call(this);
      working.set(content, work);
      return content;
    };
    try {
      await storeRecord.call(this, record);
    } finally {
      delete record.serialize;
    }
    await work;
  };
  remember(GroupCipher.prototype, "decrypt");
  const { getPlainText } = GroupCipher.prototype;
  GroupCipher.prototype.getPlainText = async function (...told) {
    const plain = await getPlainText.apply(this, told);
    await waiting.get(this.taken)?.(plain);
    return plain;
  };
}

// libsignal queues by the contact alone: sessions of one process that write with the same contact
// would wait for each other's disk, and for a worker that stands still.
export function queueEachSession({ SessionCipher, SessionBuilder }) {
  const { queueJob } = SessionCipher.prototype;
  const queue = ({ storage, addr }, job) => {
    const own = storage.getOurIdentity().pubKey.toString("base64");
    return queueJob.call({ addr: `${own} ${addr}` }, job);
  };
  SessionCipher.prototype.queueJob = function (job) {
    return queue(this, job);
  };
  const { initOutgoing } = SessionBuilder.prototype;
  SessionBuilder.prototype.initOutgoing = function (device) {
    return queue(this, () => initOutgoing.call(this, device));
  };
}

// libsignal tries a message in each session with its sender, and steps a session's ratchet before
// it knows whose message it is. Kept like this, it writes what the contact cannot read.
//
// The library drops a first message under a used key, told by the error's text. Its key is used
// before its receipt leaves: an end between the two would lose it; by another text it comes again.
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
