// The page keeps all messages in a database of its own, and after a start it has in memory the last
// one of each chat only, as the real page. An event comes once; a listener that missed it can ask
// the database.
'use strict';
globalThis.__standinMessages = ({ Model, Collection, MsgKey, MsgModel, wid, Msgs, Chats, chatOf, own, tell }) => {
  let opened = null, count = 0;
  const database = () => (opened ||= new Promise((done, fail) => {
    const asked = indexedDB.open('standin-messages', 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore('messages', { keyPath: 'key' });
    asked.onerror = () => fail(asked.error);
    asked.onsuccess = () => done(asked.result);
  }));
  const run = async (mode, work) => {
    const change = (await database()).transaction('messages', mode);
    const asked = work(change.objectStore('messages'));
    return new Promise((done, fail) => {
      change.oncomplete = () => done(asked.result);
      change.onerror = change.onabort = () => fail(change.error);
    });
  };
  const rowOf = (key) => run('readonly', (box) => box.get(String(key)));
  const rowsOf = async (remote) => (await run('readonly', (box) => box.getAll()))
    .filter((each) => !remote || each.remote === String(remote)).sort((one, other) => one.n - other.n);
  const put = (row) => run('readwrite', (box) => box.put(row));
  const change = async (key, more) => {
    const row = await rowOf(key);
    if (row) await put({ ...row, ...more });
    return row;
  };

  const WIDS = ['from', 'to', 'author', 'quotedParticipant'], KEYS = ['latestEditMsgKey', 'protocolMessageKey'];
  const revive = ({ key, n, remote, reactions, votes, ...fields }) => {
    for (const name of WIDS) if (fields[name]) fields[name] = wid(fields[name]);
    for (const name of KEYS) fields[name] = fields[name] ? MsgKey.fromString(fields[name]) : undefined;
    if (fields.mentionedJidList) fields.mentionedJidList = fields.mentionedJidList.map(wid);
    return { hasReaction: false, ...fields, id: MsgKey.fromString(key) };
  };
  const plain = (raw) => {
    const row = {};
    for (const [name, value] of Object.entries(raw)) {
      if (WIDS.includes(name) && value) row[name] = String(value);
      else if (['string', 'number', 'boolean'].includes(typeof value)) row[name] = value;
    }
    return row;
  };
  const stored = (key, fields) => ({
    ...fields, key: String(key), remote: String(key.remote), n: Date.now() * 1000 + (count += 1) });
  const show = (row, isNewMsg) => {
    const message = new MsgModel({ ack: 0, ...revive(row), isNewMsg });
    const chat = chatOf(message.id.remote);
    chat.t = Math.max(chat.t || 0, row.t);
    chat.lastReceivedKey = message.id;
    chat.msgs.add(message);
    return Msgs.add(message);
  };

  // A message is the device's once it is in the database; until then the server keeps it.
  const took = (number) => { if (number !== undefined) tell({ do: 'took', number }) };
  const keyFor = ({ from, fromMe, id, participant }) => new MsgKey({
    fromMe: !!fromMe, remote: wid(from), id: id || MsgKey.newId(), participant: participant && wid(participant) });
  const plays = {
    message: async ({ from, body, type, id, fromMe, participant, t, number, quiet, fields }) => {
      const key = keyFor({ from, fromMe, id, participant });
      if (!(await rowOf(key))) {
        const row = stored(key, { from: fromMe ? own() : from, to: fromMe ? from : own(), author: participant, body,
          type: type || 'chat', t: t || Math.floor(Date.now() / 1000), self: fromMe ? 'out' : 'in',
          ack: fromMe ? 1 : 0, ...fields });
        await put(row);
        // A message that is `quiet` is in the database only, as after an event without a listener.
        if (quiet) chatOf(key.remote).set({ t: row.t, lastReceivedKey: key }); else show(row, true);
      }
      took(number);
    },
    forget: async () => {
      await run('readwrite', (box) => box.clear());
      tell({ do: 'forgot' });
    },
    decrypt: async ({ id, type, body }) => {
      const message = Msgs.models.find((each) => each.id.id === id);
      await change(message.id, { type, body });
      message.body = body;
      message.type = type;
    },
    edit: async ({ key, body, id, t, number }) => {
      const before = MsgKey.fromString(key), edited = new MsgKey({ ...before, id });
      await change(key, { body, latestEditMsgKey: String(edited), latestEditSenderTimestampMs: t * 1000 });
      const message = Msgs.get(key);
      if (message) {
        message.body = body;
        message.set({ latestEditSenderTimestampMs: t * 1000 });
        message.latestEditMsgKey = edited;
      }
      took(number);
    },
    revoke: async ({ key, by, id, number }) => {
      const parent = MsgKey.fromString(key), author = by && wid(by);
      await Msgs.processMultipleMessages(parent.remote, [{ type: 'protocol', subtype: 'sender_revoke',
        isNewMsg: true, id: new MsgKey({ ...parent, id }), from: author || parent.remote, to: wid(own()), author,
        protocolMessageKey: parent }]);
      took(number);
    },
    reaction: async ({ key, emoji, by, t, id, number }) => {
      const parent = MsgKey.fromString(key), own = new MsgKey({ fromMe: false, remote: parent.remote, id });
      await globalThis.importNamespace('WAWebReactionsMsgAction').addOrUpdateReactionsModelCollection([
        { id: String(own), reactionParentKey: key, reactionText: emoji, from: by, t, read: false, orphan: 0 }]);
      took(number);
    },
    vote: async ({ key, options, by, t, id, number }) => {
      const parent = MsgKey.fromString(key);
      await globalThis.importNamespace('WAWebPollsVotesDb').upsertVotesDb([{ ack: 1,
        msgKey: new MsgKey({ fromMe: false, remote: parent.remote, id }), parentMsgKey: parent,
        selectedOptionLocalIds: options, sender: wid(by), senderTimestampMs: t }]);
      took(number);
    },
    call: async ({ id, from, video, t, number }) => {
      calls.setActiveCall({ id, peerJid: wid(from), isVideo: video, isGroup: false, offerTime: t, outgoing: false });
      took(number);
    },
    receipt: async ({ ack, from, ids, participant, number }) => {
      const remote = wid(from), kind = participant ? 'handleGroupSimpleReceipt' : 'handleChatSimpleReceipt';
      for (const id of ids) {
        const row = (await rowsOf(from)).find((each) => each.self === 'out' && each.key.split('_')[2] === id);
        if (row && row.ack < ack) await put({ ...row, ack });
      }
      await globalThis.importNamespace('WAWebHandleSimpleReceipt')[kind]({ ack, ackString: 'delivery', from: remote,
        externalIds: ids, participant: participant && wid(participant) });
      took(number);
    },
  };

  Msgs.processMultipleMessages = async (_chat, messages) => {
    for (const { protocolMessageKey: key } of messages) {
      await change(key, { type: 'revoked', body: '', protocolMessageKey: String(key) });
      const message = Msgs.get(key);
      if (message) message.set({ type: 'revoked' });
    }
    return [];
  };

  class Calls extends Collection {
    setActiveCall(call) { this.activeCall = call }
  }
  const calls = new Calls();
  const find = async ({ anchor, count: most, direction }) => {
    const rows = await rowsOf(anchor.remote), at = rows.findIndex((each) => each.key === String(anchor));
    if (at < 0) return { messages: [], status: 404 };
    const found = direction === 'after' ? rows.slice(at + 1, at + 1 + most) : rows.slice(Math.max(0, at - most), at);
    return { messages: found.map((row) => ({ ...revive(row), isNewMsg: false })), status: 200 };
  };
  const modules = {
    WAWebDBMessageFindLocal: { msgFindByDirection: find,
      msgFindBefore: (asked) => find({ ...asked, direction: 'before' }),
      msgFindAfter: (asked) => find({ ...asked, direction: 'after' }) },
    WAWebQuotedMsgUtils: { getQuotedMsgObj: () => null },
    WAWebChatMessageSearch: { getSearchContext: ({ msgKey }) => {
      const collection = new Collection();
      collection.loadAroundPromise = rowOf(msgKey).then((row) => {
        if (row) collection.add(new MsgModel({ ...revive(row), isNewMsg: false }));
      });
      return { collection };
    } },
    WAWebReactionsMsgAction: { addOrUpdateReactionsModelCollection: async (told) => {
      for (const each of told) {
        const row = await rowOf(each.reactionParentKey);
        if (!row) continue;
        const others = (row.reactions || []).filter((other) => other.from !== each.from);
        await put({ ...row, hasReaction: true, reactions: [...others, each] });
      }
    } },
    WAWebReactionsCollectionQuery: { getReactions: async (key) => {
      const row = await rowOf(key);
      return { reactions: (row && row.reactions || []).map((each) => ({ aggregateEmoji: each.reactionText,
        senders: [{ msgKey: MsgKey.fromString(each.id), parentMsgKey: MsgKey.fromString(each.reactionParentKey),
          reactionText: each.reactionText, senderUserJid: each.from, timestamp: each.t }] })) };
    } },
    WAWebPollsVotesDb: { upsertVotesDb: async (votes) => {
      for (const { parentMsgKey, selectedOptionLocalIds, sender, senderTimestampMs } of votes) {
        const row = await rowOf(parentMsgKey), vote = { selectedOptionLocalIds, sender: String(sender), senderTimestampMs };
        if (row) await put({ ...row, votes: [...(row.votes || []), vote] });
      }
    } },
    WAWebPollsVotesQuery: { getVote: async () => null, getVotes: async ([key]) => {
      const row = await rowOf(key);
      return (row && row.votes || []).map((each) => ({ ...each, parentMsgKey: key, sender: wid(each.sender) }));
    } },
    WAWebCallCollection: { CallCollection: calls, CallCollectionImpl: Calls },
  };

  // A message that this page sent is sent again after a start, until the server has it.
  const send = async (message, told) => {
    if (!(await rowOf(message.id))) await put({ ...stored(message.id, plain(message.attributes)), told });
    tell(told);
  };
  /** Marks messages that came and were not seen yet; returns their ids. */
  const see = async (chat) => {
    const rows = (await rowsOf(chat)).filter((row) => row.self === 'in' && !row.seen);
    for (const row of rows) await put({ ...row, seen: true });
    return rows.map((row) => row.key.split('_')[2]);
  };
  const sent = (key) => change(key, { ack: 1, told: undefined });
  const load = async () => {
    const last = new Map(), waiting = [];
    for (const row of await rowsOf()) {
      last.set(row.remote, row);
      if (row.self === 'out' && !row.ack && row.told) waiting.push(row);
    }
    for (const row of last.values()) show(row, false);
    for (const row of waiting) { if (!Msgs.get(row.key)) show(row, false); tell(row.told) }
  };
  return { modules, plays, send, sent, see, load };
};
