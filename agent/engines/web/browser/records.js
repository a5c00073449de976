// Arrivals in the page become records for the worker: from the page's events as they come, and by
// a comparison with the page's own stores. A contact's data are not trusted: each field is copied
// with a type and a bound of its own. Runs after observer.js; before `keptFrom` all is kept.
const __waRecords = (() => {
  const TEXT = 65536, WORD = 1024, LIST = 500, RECORD = 256 * 1024;
  const WAITING = 5000, WAITING_BYTES = 16 * 1024 * 1024, KNOWN = 5000;
  const BATCH = 200, BATCH_BYTES = 1024 * 1024;
  const CHATS = 2000, OF_CHAT = 5000, FOUND = 20000, PAGE = 100;

  const is_text = (value) => typeof value === 'string';
  const cut = (value, most) => (is_text(value) ? value.slice(0, most).toWellFormed() : '');
  const word = (value) => cut(typeof value === 'number' ? String(value) : value, WORD);
  const number = (value) => {
    const found = typeof value === 'string' && value ? Number(value) : value;
    return typeof found === 'number' && Math.abs(found) < 1e15 ? found : undefined;
  };
  const is_there = (each) => each !== null && each !== undefined;
  const list = (value) => (Array.isArray(value) ? value.slice(0, LIST).filter(is_there) : []);
  const seconds = (value) => {
    const found = number(value);
    return found > 1e11 ? found / 1000 : found > 0 ? found : 0;
  };
  const millis = (value) => Math.round(seconds(value) * 1000);
  const now = () => or(() => seconds(WPP.whatsapp.functions.unixTime())) || Date.now() / 1000;

  // Every engine names a person as WhatsApp's protocol does, whatever the page calls its domain.
  const jid = (value) => {
    const raw = or(() => (typeof value === 'string' ? value : String(value._serialized || value)));
    const parts = /^([0-9A-Za-z._-]{1,40})(?::\d{1,5})?@([a-z.]{1,24})$/.exec(raw || '');
    return parts ? `${parts[1]}@${parts[2].replace(/^c\.us$/, 's.whatsapp.net')}` : '';
  };
  const wid = (id) => or(() => (is_text(id) ? WPP.whatsapp.WidFactory.createWid(id) : id));
  const me = () => jid(or(() => WPP.conn.getMyUserWid()));
  const is_me = (id) => id === me() || id === jid(or(() => WPP.conn.getMyUserLid()));
  // A person has two names: the phone's number, and one that WhatsApp gave it (@lid). Records show
  // the number where the page knows it; their ids keep the name of the message's key.
  const page_wid = (id) => wid(id.replace('@s.whatsapp.net', '@c.us'));
  const cached = (how, id) => jid(or(() => WPP.whatsapp.lidPnCache[how](page_wid(id))));
  const number_of = (id) => (id.endsWith('@lid') ? cached('getPhoneNumber', id) || id : id);
  const person = (value) => number_of(jid(value));
  const alias = (id) => (number_of(id) !== id ? id
    : id.endsWith('@s.whatsapp.net') ? cached('getCurrentLid', id) : '');
  const keyOf = (key) => or(() => (is_text(key) ? WPP.whatsapp.MsgKey.fromString(key) : key));

  const id_of = (key) => word(or(() => key.id)).slice(0, 64);
  // Returns the fields that all records of a message have, and the name of its author in ids.
  const about = (value, at, doer) => {
    const key = keyOf(value), id = id_of(key), chat = jid(or(() => key.remote));
    if (!id || !chat || chat === 'status@broadcast') return null;
    const mine = or(() => key.fromMe) === true;
    const writer = or(() => key.participant) ||
      (chat.endsWith('@g.us') ? null : or(() => key.remote));
    const who = mine ? 'me' : jid(writer) || jid(doer);
    const other = doer || (mine ? null : writer), sender = other ? jid(other) : me();
    return {
      who: `${chat}:${who}:${id}`, by: `${chat}:${id}:${sender}`, chat,
      base: { v: 1, at: seconds(at) || now(), chat: number_of(chat),
        from_me: other ? is_me(sender) : mine,
        sender: number_of(sender), alias: alias(sender), message_id: id },
    };
  };

  const TYPES = { chat: 'text', image: 'image', video: 'video', ptv: 'video', gif: 'video',
    audio: 'audio', ptt: 'audio', document: 'document', sticker: 'sticker', location: 'location',
    vcard: 'contact', multi_vcard: 'contact', poll_creation: 'poll' };
  const NONE = new Set(['ciphertext', 'revoked', 'protocol', 'notification', 'gp2', 'call_log',
    'notification_template', 'e2e_notification', 'broadcast_notification', 'reaction',
    'newsletter_notification', 'groups_v4_notification', 'reaction_enc', 'poll_update',
    'keep_in_chat', 'pin_message', 'debug', 'unknown']);
  const FILES = new Set(['image', 'video', 'audio', 'document', 'sticker']);

  const hex = (base64) => or(() => Array.from(atob(word(base64)).slice(0, 64),
    (each) => each.charCodeAt(0).toString(16).padStart(2, '0')).join(''), '');
  const known_of = (fields) => Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== '' && value !== undefined));
  const parts = {
    media: (m) => known_of({ mimetype: word(m.mimetype), size: number(m.size),
      sha256: hex(m.filehash), filename: word(m.filename), seconds: number(m.duration),
      width: number(m.width), height: number(m.height) }),
    location: (m) => {
      const [name = '', ...address] = cut(m.loc, WORD).split('\n');
      return known_of({ latitude: number(m.lat), longitude: number(m.lng), name,
        address: address.join('\n') });
    },
    contacts: (m) => (m.type === 'vcard' ? [{ displayName: m.vcardFormattedName, vcard: m.body }]
      : list(m.vcardList)).map(
      (each) => ({ name: word(each.displayName), vcard: cut(each.vcard, 16384) })),
    poll: (m) => ({ question: word(m.pollName),
      options: list(m.pollOptions).map((each) => word(each.name)),
      several: m.pollSelectableOptionsCount !== 1 }),
    quote: (m) => ({ message_id: word(m.quotedStanzaID), sender: person(m.quotedParticipant),
      text: cut(or(() => said(m.quotedMsg)), 4096) }),
  };
  const type_of = (m) => (Object.hasOwn(TYPES, m.type) ? TYPES[m.type] : 'other');
  // The body of other kinds is a preview or a card. The bundle captions a file with its name.
  const said = (m) => {
    if (['text', 'other'].includes(type_of(m))) return cut(m.body, TEXT);
    return m.caption === m.filename ? '' : cut(m.caption, TEXT);
  };
  const author_of = (m) => or(() => (m.id.fromMe ? null : m.author));
  const message = (m, fresh) => {
    const raw = or(() => m.type);
    if (typeof raw !== 'string' || NONE.has(raw)) return null;
    const found = about(m.id, m.t, author_of(m));
    if (!found) return null;
    const type = type_of(m), record = { id: `m:${found.who}`, kind: 'message', ...found.base, type,
      text: or(() => said(m), ''), name: word(or(() => m.notifyName)), fresh };
    const has = { media: FILES.has(type), location: type === 'location',
      contacts: type === 'contact', poll: type === 'poll', quote: !!or(() => m.quotedStanzaID) };
    for (const name of Object.keys(parts)) {
      if (has[name]) record[name] = or(() => parts[name](m), undefined);
    }
    // The page finds the file by this key.
    if (record.media && record.media.sha256) record._media = { key: word(String(m.id)) };
    const mentions = list(or(() => m.mentionedJidList)).map(person).filter(Boolean);
    if (mentions.length) record.mentions = mentions;
    return record;
  };
  const edit = (m) => {
    const key = keyOf(or(() => m.latestEditMsgKey));
    const found = key && about(m.id, or(() => m.latestEditSenderTimestampMs), author_of(m));
    if (!found) return null;
    return { id: `e:${found.who}:${id_of(key)}`.slice(0, 200), kind: 'message_edit',
      ...found.base, text: or(() => said(m), '') };
  };
  const removal = (key, at, doer) => {
    const found = about(key, at, doer);
    return found && { id: `d:${found.who}`, kind: 'message_delete', ...found.base };
  };
  const STATES = { 1: 'server', 2: 'delivered', 3: 'read', 4: 'played' };
  const ack = (key, value, participant) => {
    const state = value < 0 ? 'error' : STATES[value], found = state && about(key, 0);
    if (!found || !found.base.from_me) return null;
    const whose = jid(participant);
    return { id: `a:${found.base.message_id}:${whose || found.chat}:${state}`, kind: 'message_ack',
      ...found.base, at: now(), state, participant: number_of(whose) };
  };
  const reaction = (parent, emoji, sender, at) => {
    const found = about(parent, at, sender);
    if (!found || !found.base.sender) return null;
    return { id: `r:${found.by}:${millis(at)}`, kind: 'message_reaction', ...found.base,
      emoji: cut(emoji, 64) };
  };
  const vote = (d, poll) => {
    const found = about(d.parentMsgKey, d.senderTimestampMs, d.sender);
    if (!found || !found.base.sender) return null;
    const options = list(or(() => poll.pollOptions));
    const names = new Map(options.map((each) => [each.localId, word(each.name)]));
    const chosen = list(d.selectedOptionLocalIds).map((each) => names.get(each) ?? word(each));
    return { id: `v:${found.by}:${millis(d.senderTimestampMs)}`, kind: 'message_vote',
      ...found.base, options: chosen };
  };
  const call = (c) => {
    const id = word(c.id).slice(0, 64), chat = jid(c.peerJid), sender = jid(c.sender) || chat;
    return id && chat ? { id: `c:${id}:offer`, kind: 'call', v: 1,
      at: seconds(c.offerTime) || now(), chat: number_of(chat), from_me: false,
      sender: number_of(sender), alias: alias(sender), message_id: '', call_id: id,
      state: 'offer', video: c.isVideo === true } : null;
  };

  // A record that is too long loses what is not its text.
  const sized = (record) => {
    const size = () => new TextEncoder().encode(JSON.stringify(record)).length;
    let found = size();
    for (const name of ['quote', 'contacts', 'mentions', 'poll', 'options', 'media']) {
      if (found <= RECORD) break;
      if (record[name] !== undefined) { delete record[name]; found = size() }
    }
    return found;
  };

  const document = crypto.randomUUID();
  const pending = [], known = new Set();
  let last = 0, bytes = 0, lost = 0, nudged = false;
  const know = (id) => {
    known.delete(id);
    known.add(id);
    if (known.size > KNOWN) known.delete(known.values().next().value);
  };
  const add = (record) => {
    if (!record || record.at < keptFrom || known.has(record.id)) return;
    const size = sized(record);
    // A record that does not fit is found by the next comparison, which the worker then asks for.
    if (pending.length >= WAITING || bytes + size > WAITING_BYTES) lost += 1;
    else { know(record.id); pending.push({ number: ++last, size, record }); bytes += size }
    if (!nudged) { nudged = true; __waAgent.tell('records') }
  };
  const hear = (make) => { add(or(make)) };

  // The next records after those up to `done`, which are kept; numbers count in their document.
  const take = (of, upto) => {
    const done = of === document ? upto : 0;
    while (pending.length && pending[0].number <= done) bytes -= pending.shift().size;
    const records = [];
    let size = 0, number = done;
    for (const each of pending) {
      if (records.length && (records.length >= BATCH || size + each.size > BATCH_BYTES)) break;
      records.push(each.record);
      size += each.size;
      number = each.number;
    }
    const told = lost;
    lost = 0;
    nudged = pending.length > 0;
    return { document, records, number, lost: told };
  };

  const at = (m) => seconds(or(() => m.t));
  // A chat's messages since then: those in memory, and those that only the page's database has.
  const messages_of = async (chat, since, found) => {
    const take_in = (models) => {
      const before = found.size;
      for (const m of models) if (at(m) >= since) found.set(String(m.id), m);
      return found.size > before;
    };
    take_in(or(() => chat.msgs.getModelsArray(), []));
    const anchor = or(() => String(chat.lastReceivedKey || chat.msgs.getModelsArray().at(-1).id));
    if (!anchor) return;
    const newest = or(() => WPP.whatsapp.MsgStore.get(anchor)) ||
      await limited(WPP.chat.getMessageById(anchor)).catch(() => null);
    if (newest) take_in([newest]);
    for (const direction of ['after', 'before']) {
      let id = anchor;
      for (let read = 0; read < OF_CHAT; read += PAGE) {
        const models = await limited(WPP.chat.getMessages(chat.id, { count: PAGE, direction, id }));
        const times = models.map(at), most = direction === 'after' ? Math.max : Math.min;
        const edge = most(...times);
        const next = models.length && String(models[times.indexOf(edge)].id);
        take_in(models);
        if (!next || next === id || (direction === 'before' && edge < since)) break;
        id = next;
      }
    }
  };
  let found = [], handed = [];
  // All of the page's messages since then, oldest first, for `next`.
  const compare = async (since, within) => {
    handed = [];
    const until = performance.now() + within * 1000, begun = now(), models = new Map();
    let failed = 0;
    const chats = WPP.whatsapp.ChatStore.getModelsArray().filter((chat) => at(chat) >= since);
    chats.sort((one, other) => at(other) - at(one));
    for (const chat of chats.slice(0, CHATS)) {
      if (performance.now() > until) throw new Error('timeout');
      if (models.size > FOUND) break;
      // One chat that the page cannot read must not hide the others.
      await messages_of(chat, since, models).catch(() => { failed += 1 });
    }
    found = [...models.values()].sort((one, other) => at(one) - at(other));
    const unread = found.filter((m) => or(() => m.type) === 'ciphertext').map(at);
    return { document, now: begun, failed, unread: unread.length ? unread[0] : null,
      cut: chats.length > CHATS || models.size > FOUND };
  };
  const all_of = async (m) => {
    const records = [message(m, false), edit(m)];
    if (or(() => m.type) === 'revoked') {
      const removed = or(() => m.protocolMessageKey) || m.id;
      records.push(removal(removed, or(() => m.revokeTimestamp) || m.t));
    }
    if (or(() => m.id.fromMe)) records.push(ack(m.id, or(() => m.ack)));
    const ask = async (name, given) => or(() => WPP.whatsapp.functions[name](given));
    if (or(() => m.hasReaction)) {
      const told = await limited(ask('getReactions', String(m.id))).catch(() => null);
      for (const group of list(or(() => told.reactions))) for (const d of list(group.senders)) {
        records.push(or(() =>
          reaction(d.parentMsgKey || m.id, d.reactionText, wid(d.senderUserJid), d.timestamp)));
      }
    }
    if (or(() => m.type) === 'poll_creation') {
      const told = await limited(ask('getVotes', [m.id])).catch(() => null);
      for (const each of list(told)) records.push(or(() => vote(each, m)));
    }
    return records.filter(Boolean);
  };
  // The next records of the comparison; those of before are kept.
  const next = async () => {
    handed.forEach(know);
    const records = [];
    let size = 0;
    while (found.length && records.length < BATCH && size < BATCH_BYTES) {
      for (const record of await all_of(found.shift())) {
        if (known.has(record.id)) continue;
        size += sized(record);
        records.push(record);
      }
    }
    handed = records.map((each) => each.id);
    return { document, records, left: found.length };
  };

  // The bundle's own events of these two leave out what is older than its own start.
  const listen_to = (names, look) => {
    const module = WPP.loader.search((m) => names.some((name) => m[name]));
    const name = names.find((each) => typeof or(() => module[each]) === 'function');
    if (!name) return;
    const own = module[name];
    or(() => {
      module[name] = function (...given) {
        or(() => look(...given));
        return Reflect.apply(own, this, given);
      };
    });
  };
  const voted = async (d) => {
    const poll = or(() => WPP.whatsapp.MsgStore.get(d.parentMsgKey)) ||
      await limited(WPP.chat.getMessageById(d.parentMsgKey)).catch(() => null);
    hear(() => vote(d, poll));
  };
  const watch = () => {
    const W = globalThis.WPP;
    if (!W) return;
    W.on('chat.new_message', (m) => hear(() => message(m, true)));
    W.on('chat.msg_edited', (e) => hear(() => edit(e.msg)));
    const doer_of = (r) => r.author || (r.refId.fromMe ? null : r.from);
    W.on('chat.msg_revoke', (r) => hear(() => removal(r.refId, r.t, doer_of(r))));
    W.on('chat.msg_ack_change', (a) => {
      for (const key of list(or(() => a.ids))) hear(() => ack(key, Number(a.ack), a.sender));
    });
    W.on('call.incoming_call', (c) => hear(() => call(c)));
    W.on('loader.full_ready', () => {
      listen_to(['upsertVotesDb', 'upsertVotes'], (votes) => { list(votes).forEach(voted) });
      listen_to(['addOrUpdateReactionsModelCollection'], (told) => {
        for (const d of Array.isArray(told) ? list(told) : [told]) {
          hear(() => reaction(d.parentMsgKey || d.reactionParentKey, d.reactionText,
            wid(d.senderUserJid || d.from), d.t ?? d.timestamp));
        }
      });
    });
  };
  return { watch, take, compare, next };
})();
__waAgent.records = __waRecords;
