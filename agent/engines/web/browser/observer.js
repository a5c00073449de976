// The worker sees the page by this: snapshots of WhatsApp's own state, and its events as words.
// Runs before every script of the page; the wa-js bundle follows, then watch().
const or = (read, other = null) => {
  let found;
  try { found = read() } catch (_) { return other }
  return found === undefined ? other : found;
};
const text = (value) => (value === null || value === undefined ? '' : String(value));
const refuse = (code, message) => { throw Object.assign(new Error(message), { code }) };
// The bundle waits for some answers without an end; here every wait has one.
const limited = (work, seconds = 10) => Promise.race([
  work, new Promise((_, fail) => setTimeout(() => fail(new Error('timeout')), seconds * 1000)),
]);
const __waAgent = (() => {
  const begun = performance.now();
  const words = [];
  let heard = null;
  let failure = '';
  let frames = 0, frameAt = 0, sockets = 0;
  let qr = null, qrAt = 0, qrNumber = 0;

  // The worker always has one question open, and the next words are its answer.
  const tell = (e, more) => {
    words.push({ e, ...more });
    if (words.length > 500) words.splice(0, 100);
    if (heard) { heard(words.splice(0)); heard = null }
  };
  const next = () => {
    if (heard) heard([]);
    heard = null;
    return words.length ? words.splice(0) : new Promise((done) => { heard = done });
  };

  // A frame of WhatsApp's own socket is the one proof that the connection lives.
  const Native = globalThis.WebSocket;
  if (Native) {
    globalThis.WebSocket = new Proxy(Native, {
      construct(target, given, as) {
        const socket = Reflect.construct(target, given, as);
        sockets += 1;
        socket.addEventListener('message', () => { frames += 1; frameAt = performance.now() });
        return socket;
      },
    });
  }

  const read = () => {
    const W = globalThis.WPP, now = performance.now();
    const auth = or(() => W.loader.isInjected && W.conn.isAuthenticated());
    if (auth) qr = null;
    const stream = or(() => W.conn.getStreamData(), {}) || {};
    return {
      age: (now - begun) / 1000,
      loaded: document.readyState === 'complete',
      failure,
      ready: or(() => W.isReady, false) === true,
      full: or(() => W.isFullReady, false) === true,
      auth,
      mode: text(stream.mode),
      info: text(stream.info),
      socket: or(() => W.loader.isInjected && text(W.whatsapp.Socket.state), ''),
      online: or(() => W.loader.isInjected && W.conn.isOnline()) !== false,
      update: or(() => W.loader.isInjected && W.conn.needsUpdate(), false) === true,
      account: or(() => (W.isReady ? text(W.conn.getMyUserId().user) : ''), ''),
      version: or(() => text(globalThis.Debug.VERSION), ''),
      progress: or(() => Number(
        require('WAWebOfflineHandler').OfflineMessageHandler.getOfflineDeliveryProgress())),
      sockets, frames,
      frame_age: frames ? (now - frameAt) / 1000 : null,
      qr, qr_age: qr ? (now - qrAt) / 1000 : null, qr_number: qrNumber,
    };
  };

  const changed = (e, d) => tell(e, { d: d === undefined ? null : d, s: read() });

  // A passkey is its owner's: the observer reports the page's call; the question goes to the person
  // at the window, and nowhere where there is none.
  const credentials = globalThis.CredentialsContainer && CredentialsContainer.prototype;
  for (const name of credentials ? ['get', 'create'] : []) {
    credentials[name] = new Proxy(credentials[name], {
      apply(target, self, given) {
        const { publicKey, mediation, signal } = given[0] || {};
        if (!publicKey) return Reflect.apply(target, self, given);
        if (mediation !== 'conditional') changed('passkey', name);
        if (hasPerson) return Reflect.apply(target, self, given);
        return new Promise((_, fail) => {
          const limit = Math.min(Number(publicKey.timeout) || 60000, 600000);
          const late = () => fail(new DOMException('The operation timed out.', 'NotAllowedError'));
          if (mediation !== 'conditional') setTimeout(late, limit);
          if (signal && signal.aborted) fail(signal.reason);
          else if (signal) signal.addEventListener('abort', () => fail(signal.reason));
        });
      },
    });
  }

  const take = (code) => {
    const next = code && code.fullCode ? code.fullCode : null;
    if (next !== qr) {
      qr = next;
      qrAt = performance.now();
      if (next) qrNumber += 1;
    }
  };

  const short = (id) => {
    // Whole ids hold phone numbers; the last part names the message within its chat.
    const parts = text(id && id._serialized || id).split('_');
    return parts.length > 2 ? parts[2] : parts[parts.length - 1];
  };

  const unread = new Set();

  const watch = () => {
    mark('');
    const W = globalThis.WPP;
    if (!W) { changed('failed'); return }
    for (const name of ['loader.injected', 'loader.ready', 'loader.full_ready', 'conn.main_init',
      'conn.main_loaded', 'conn.main_ready', 'conn.authenticated', 'conn.require_auth',
      'conn.qrcode_idle', 'conn.needs_update', 'conn.online', 'conn.stream_mode_changed',
      'conn.stream_info_changed', 'conn.logout', 'conn.link_code_expired']) {
      W.on(name, () => changed(name));
    }
    W.on('conn.logout_reason', (why) => changed('conn.logout_reason', text(why).slice(0, 64)));
    W.on('conn.auth_code_change', (code) => { take(code); changed('conn.auth_code_change') });
    const backend = ['account_temporarily_banned', 'unexpected_logout_modal',
      'storage_initialization_error', 'service_unavailable_503', 'socket_stream_disconnected'];
    W.on('conn.backend_event', (name, ...more) => {
      if (!backend.includes(name)) return;
      const end = more.map((each) => or(() => Number(each.expire ?? each.expires ?? each.expiry ??
        each.endTime))).find((each) => each > 0);
      tell('backend', { d: name, until: end || null, s: read() });
    });
    // Socket and progress have no event of their own in the bundle.
    W.on('loader.injected', () => {
      or(() => W.whatsapp.Socket.on('change:state', () => changed('socket')));
      or(() => W.whatsapp.Cmd.on('offline_progress_update_from_bridge', () => changed('progress')));
    });
    W.on('chat.new_message', (m) => {
      const id = text(or(() => m.id)), type = text(or(() => m.type)).slice(0, 32);
      // A message that could not be read at first comes once more when it can: it is reported.
      const known = unread.delete(id);
      if (type === 'ciphertext') unread.add(id);
      if (unread.size > 200) unread.delete(unread.values().next().value);
      if (known && type !== 'ciphertext') tell('read_later', { id: short(id) });
      if (known) return;
      tell('message', { direction: or(() => m.id.fromMe) ? 'out' : 'in', type, id: short(id) });
    });
    W.on('chat.msg_ack_change', (a) => tell('ack', {
      ack: Number(or(() => a.ack)), ids: or(() => a.ids.slice(0, 100).map(short), []),
    }));
    addEventListener('load', () => changed('load'));
    changed('watching');
  };

  const missing = () => {
    const W = globalThis.WPP, at = (name, found) => (or(found) ? null : name);
    return !W ? ['WPP'] : [
      at('Stream', () => W.whatsapp.Stream), at('Socket', () => W.whatsapp.Socket),
      at('Cmd', () => W.whatsapp.Cmd), at('Conn', () => W.whatsapp.Conn),
      at('MsgStore', () => W.whatsapp.MsgStore), at('ChatStore', () => W.whatsapp.ChatStore),
      at('isLoggedIn', () => typeof W.conn.isAuthenticated() === 'boolean'),
      at('UserPrefs', () => W.whatsapp.UserPrefs),
      at('BuildConstants', () => globalThis.Debug.VERSION),
      at('addAndSendMsgToChat', () => W.whatsapp.functions.addAndSendMsgToChat),
      at('findOrCreateLatestChat', () => W.whatsapp.functions.findOrCreateLatestChat),
      at('linkDeviceCode', () => W.whatsapp.functions.genLinkDeviceCodeForPhoneNumber),
    ].filter(Boolean);
  };

  const tried = async (work, seconds) => {
    try { return { ok: await limited(work(), seconds) } } catch (error) {
      // JavaScript's own errors tell people nothing: a part that is missing does.
      const broke = [TypeError, ReferenceError, RangeError].some((kind) => error instanceof kind);
      return { error: text(error && (error.code || error.name)).slice(0, 64),
        message: text(error && error.message || error).slice(0, 300),
        ...(broke && { broke: missing().slice(0, 8) }) };
    }
  };

  const refresh = (seconds) => tried(async () => {
    const code = await WPP.conn.refreshQR();
    take(code);
    changed('conn.auth_code_change');
    return code ? code.fullCode : null;
  }, seconds);

  const pairing_code = (phone, seconds) =>
    tried(() => WPP.conn.genLinkDeviceCodeForPhoneNumber(phone, true), seconds);

  const logout = (seconds) => tried(() => WPP.conn.logout(), seconds);

  // Asked for before the message is handed over, so that an answer which never comes still
  // leaves something that a later ack can be matched with.
  // An id that is `given` may have been used before: then the page knows how far that message is.
  const message_id = (to, given, seconds) => tried(async () => {
    // The chat with a number may have another name (…@lid), which is then in the message's key.
    const drawn = await WPP.chat.generateMessageID(await WPP.chat.find(to));
    const parts = text(drawn._serialized || drawn).split('_');
    if (!given) return { whole: parts.join('_'), id: parts[2], ack: null };
    parts[2] = given;
    const whole = parts.join('_');
    const known = await limited(WPP.chat.getMessageById(whole), 3).catch(() => null);
    return { whole, id: given, ack: known ? Number(known.ack) : null };
  }, seconds);
  const message_ack = (whole, seconds) => tried(async () => {
    const known = await WPP.chat.getMessageById(whole);
    const done = () => ({ ack: known.ack, result: known.ack < 0 ? 'ERROR_FAILED' : '' });
    return known.ack ? done() : new Promise((tell) => known.on('change:ack', () => tell(done())));
  }, seconds);

  // A file too long for one message of the worker's comes in parts; the browser keeps them.
  const uploads = new Map();
  const file_part = (id, index, data, limit, seconds) => tried(() => {
    const now = performance.now();
    for (const [name, each] of uploads) if (now - each.at > 120000) uploads.delete(name);
    const file = uploads.get(id) || { parts: [], size: 0 };
    if (index === 0 && uploads.size >= 4) refuse('busy', 'too many files at once');
    if (index !== file.parts.length) refuse('file_lost', 'a part of the file is missing');
    const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
    file.parts.push(new Blob([bytes]));
    file.size += bytes.length;
    file.at = now;
    uploads.set(id, file);
    if (file.size > limit) { uploads.delete(id); refuse('file_too_large', 'the file is too large') }
    return file.size;
  }, seconds);
  const whole_file = ({ upload, size }) => {
    const file = uploads.get(upload);
    uploads.delete(upload);
    if (!file || file.size !== size) refuse('file_lost', 'a part of the file is missing');
    return new Blob(file.parts);
  };

  // The names that a message of this chat may have in the page; in a group with its writer.
  const names_of = (chat, id, by) => {
    const own = ['getMyUserWid', 'getMyUserLid'].map((name) => text(or(() => WPP.conn[name]())));
    const key = (mine, writer) => `${mine}_${chat}_${id}${writer && `_${writer}`}`;
    const named = /@g\.us$/.test(chat) ? own.filter(Boolean) : [];
    const mine = ['', ...named].map((writer) => key(true, writer));
    if (by === 'me') return mine;
    const theirs = [...new Set(['', by || ''])].map((writer) => key(false, writer));
    return by ? theirs : [...theirs, ...mine];
  };
  const message_of = async (to, id, by) => {
    const chat = await WPP.chat.find(to);
    if (!chat) refuse('chat_not_found', 'Chat not found');
    const right = (each) => short(each.id) === id && (by !== 'me' || each.id.fromMe);
    const known = or(() => chat.msgs.getModelsArray().find(right));
    if (known) return known;
    for (const name of names_of(text(chat.id), id, by)) {
      try {
        return await limited(WPP.chat.getMessageById(name), 3);
      } catch (_) { /* another name */ }
    }
    return refuse('message_not_found', 'this chat holds no such message, or the page not yet');
  };
  const answering = async (to, { quote, ...options }) =>
    (quote ? { ...options, quotedMsg: await message_of(to, quote.id, quote.by) } : options);

  const done = (message) => ({ ack: message.ack, sendMsgResult: null });
  const edit = async (to, { id, text: said }, options) => {
    const message = await message_of(to, id, 'me');
    // An earlier try of the same edit may have done it.
    if (or(() => text(message.latestEditMsgKey) === options.messageId)) return done(message);
    await WPP.chat.editMessage(text(message.id), said, options);
    return done(message);
  };
  const remove = async (to, { id, by }) => {
    const message = await message_of(to, id, by);
    if (message.type === 'revoked') return done(message);
    const chat = message.id.remote;
    // The bundle deletes another's message on this device alone, unless an admin of the group asks.
    if (!message.id.fromMe && !(chat.isGroup() && await WPP.group.iAmAdmin(text(chat)))) {
      refuse('refused', 'this account may not delete that message for all');
    }
    await WPP.chat.deleteMessage(text(chat), text(message.id), false, true);
    return done(message);
  };

  const shown = new Map();
  const marks = { typing: 'markIsComposing', recording: 'markIsRecording', paused: 'markIsPaused' };
  const show = async (state, chat, until) => {
    await WPP.chat[marks[state]](chat);
    const left = until - performance.now();
    if (state === 'paused' || left <= 0) return;
    // WhatsApp shows a state to others for some seconds only, unless it is sent again.
    const next = () => show(left > 10000 ? state : 'paused', chat, until).catch(() => {});
    shown.set(chat, setTimeout(next, Math.min(left, 10000)));
  };
  const presence = (state, to, lasts, seconds) => tried(async () => {
    if (!to) {
      await (state === 'available' ? WPP.conn.markAvailable() : WPP.conn.markUnavailable());
      return true;
    }
    const chat = text((await WPP.chat.find(to)).id);
    clearTimeout(shown.get(chat));
    await show(state, chat, lasts ? performance.now() + lasts * 1000 : 0);
    return true;
  }, seconds);
  const mark_read = (to, seconds) => tried(async () => {
    await WPP.chat.markIsRead(text((await WPP.chat.find(to)).id));
    return true;
  }, seconds);

  const kinds = {
    text: async (to, { text: said }, options) =>
      WPP.chat.sendTextMessage(to, said, await answering(to, options)),
    file: async (to, { whole, ...rest }, options) =>
      WPP.chat.sendFileMessage(to, whole ?? whole_file(rest), await answering(to, options)),
    edit,
    delete: remove,
    location: (to, where, options) => WPP.chat.sendLocationMessage(to, { ...options, ...where }),
    contact: (to, whose, options) => WPP.chat.sendVCardContactMessage(to, whose, options),
    reaction: async (to, { id, emoji, by }) =>
      WPP.chat.sendReactionToMessage(await message_of(to, id, by), emoji),
  };
  const send_message = (to, kind, content, options, seconds) => tried(async () => {
    const sent = await kinds[kind](to, content, options);
    return { ack: Number(sent.ack), result: text(or(() => sent.sendMsgResult.messageSendResult)) };
  }, seconds);

  // The newest change of local storage: once it is on the disk, all changes before it are.
  const mark = (words) => or(() => {
    if (words) localStorage.setItem('wa-agent-mark', words);
    else localStorage.removeItem('wa-agent-mark');
    return true;
  }, false);

  const failed = (error) => { failure = text(error && error.message || error).slice(0, 300) };

  return { tell, next, read, watch, missing, refresh, pairing_code, logout, message_id, message_ack,
    file_part, send_message, mark_read, presence, mark, failed };
})();
Object.defineProperty(globalThis, '__waAgent', { value: __waAgent, enumerable: false });
