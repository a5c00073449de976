// Plays by hand the parts of WhatsApp Web that wa-js 4.6.0 needs: modules, models, sequence of
// states. The pairing lives in IndexedDB, as on the real site; the server plays WhatsApp.
'use strict';
(() => {
  const query = new URLSearchParams(location.search);
  const missing = new Set((query.get('missing') || globalThis.__missing || '').split(',').filter(Boolean));
  const VERSION = query.get('version') || '2.3000.1040000000';

  // --- emitters, models, collections -----------------------------------------------------

  class Emitter {
    constructor() { Object.defineProperty(this, '_heard', { value: new Map() }) }
    on(names, fn) {
      for (const name of names.split(' ')) {
        if (!this._heard.has(name)) this._heard.set(name, []);
        this._heard.get(name).push(fn);
      }
      return this;
    }
    once(name, fn) {
      const wrapped = (...args) => { this.off(name, wrapped); fn(...args) };
      return this.on(name, wrapped);
    }
    off(name, fn) {
      if (name) this._heard.set(name, (this._heard.get(name) || []).filter((each) => each !== fn));
      return this;
    }
    trigger(name, ...args) {
      for (const fn of [...(this._heard.get(name) || [])]) fn(...args);
      for (const fn of [...(this._heard.get('all') || [])]) fn(name, ...args);
      return this;
    }
    listenTo(other, name, fn) { other.on(name, fn) }
    stopListening() {}
  }

  class Model extends Emitter {
    constructor(fields = {}) {
      super();
      Object.defineProperty(this, 'attributes', { value: {}, writable: true });
      for (const [name, value] of Object.entries(fields)) this.field(name, value);
    }
    field(name, value) {
      this.attributes[name] = value;
      Object.defineProperty(this, name, {
        configurable: true, enumerable: true,
        get: () => this.attributes[name],
        set: (next) => {
          const old = this.attributes[name];
          if (old === next) return;
          this.attributes[name] = next;
          this.trigger(`change:${name}`, this, next, old);
          this.trigger('change', this);
        },
      });
    }
    set(fields) {
      for (const [name, value] of Object.entries(fields)) {
        if (!(name in this.attributes)) this.field(name, value); else this[name] = value;
      }
    }
  }

  class Collection extends Emitter {
    constructor() { super(); this._models = new Map() }
    get length() { return this._models.size }
    get models() { return [...this._models.values()] }
    get(id) { return this._models.get(String(id && id._serialized || id)) }
    getModelsArray() { return this.models }
    map(fn) { return this.models.map(fn) }
    forEach(fn) { this.models.forEach(fn) }
    filter(fn) { return this.models.filter(fn) }
    find(fn) { return this.models.find(fn) }
    findFirst(fn) { return this.models.find(fn) }
    some(fn) { return this.models.some(fn) }
    add(model) {
      this._models.set(String(model.id._serialized || model.id), model);
      // A collection speaks for its models.
      model.on('all', (name, ...args) => this.trigger(name, ...args));
      this.trigger('add', model);
      return model;
    }
  }

  // Asks WhatsApp who is in a group that it does not know yet.
  class Groups extends Collection {
    onParentGroupChange() {}
    async find(id) { return this.get(id) || this.add(new Model({ id, participants: new Collection() })) }
  }

  class Wid {
    constructor(user, server) {
      this.user = user; this.server = server; this._serialized = `${user}@${server}`;
    }
    static isXWid(kind, wid) { return wid instanceof Wid && Wid.isServer(kind, wid.server) }
    static isServer(kind, server) {
      return { user: 'c.us', lid: 'lid', group: 'g.us' }[kind] === server;
    }
    static isUser(id) { return /@c\.us$/.test(String(id)) }
    static isGroup(id) { return /@g\.us$/.test(String(id)) }
    static isLid(id) { return /@lid$/.test(String(id)) }
    toString() { return this._serialized }
    toLogString() { return this._serialized }
    toJid() { return this._serialized }
    equals(other) { return !!other && String(other) === this._serialized }
    isUser() { return this.server === 'c.us' || this.server === 'lid' }
    isLid() { return this.server === 'lid' }
    isGroup() { return this.server === 'g.us' }
    isGroupCall() { return false }
    isBot() { return false }
    isNewsletter() { return this.server === 'newsletter' }
    isPSA() { return false }
    isStatus() { return this.server === 'broadcast' }
    isBroadcast() { return this.server === 'broadcast' }
    isServer() { return false }
    isHosted() { return false }
    isEligibleForUSync() { return this.isUser() }
  }
  const wid = (id) => {
    if (id instanceof Wid) return id;
    const text = String(id && id._serialized || id), at = text.indexOf('@');
    if (at < 1) throw new Error(`wid error: invalid wid ${text}`);
    return new Wid(text.slice(0, at), text.slice(at + 1));
  };

  class MsgKey {
    constructor(told) {
      if (!told) throw new Error('MsgKey error: obj is null/undefined');
      this.fromMe = told.fromMe ?? told.selfDir === 'out';
      this.remote = told.remote ?? (this.fromMe ? told.to : told.from);
      this.id = told.id;
      this.participant = told.participant;
      this.self = told.selfDir;
      this._serialized = [this.fromMe, this.remote, this.id, this.participant]
        .filter((each) => each !== undefined).join('_');
    }
    toString() { return this._serialized }
    equals(other) { return String(other) === this._serialized }
    clone() { return new MsgKey(this) }
    static newId() {
      return '3EB0' + [...crypto.getRandomValues(new Uint8Array(8))]
        .map((each) => each.toString(16).padStart(2, '0')).join('').toUpperCase();
    }
    static fromString(text) {
      const [fromMe, remote, id, participant] = text.split('_');
      return new MsgKey({ fromMe: fromMe === 'true', remote: wid(remote), id, participant });
    }
    static from(told) { return typeof told === 'string' ? MsgKey.fromString(told) : new MsgKey(told) }
  }

  class ChatModel extends Model {}
  ChatModel.prototype.proxyName = 'chat';
  // A file, as WhatsApp's servers have it; `lost`: neither they nor the phone.
  class MsgModel extends Model {
    get mediaData() {
      if (this.file === undefined) return undefined;
      return (this._media ||= { filehash: this.filehash, mimetype: this.mimetype, mediaBlob: null });
    }
    async downloadMedia({ downloadEvenIfExpensive, rmrReason }) {
      if (!downloadEvenIfExpensive || !rmrReason || this.lost) return;
      await new Promise((done) => setTimeout(done, this.takes || 0));
      const raw = Uint8Array.from(atob(this.file), (each) => each.charCodeAt(0));
      this.mediaData.mediaBlob = { forceToBlob: () => new Blob([raw]) };
    }
  }
  MsgModel.prototype.proxyName = 'msg';
  const LATEST_EDIT = 15 * 60;
  const may_edit = (m) => m.id.fromMe && m.type === 'chat' && Date.now() / 1000 - m.t < LATEST_EDIT;
  Object.defineProperty(MsgModel.prototype, 'senderObj', { get() { return { isMe: this.id.fromMe } } });
  MsgModel.prototype.msgContextInfo = function () {
    return { quotedMsg: { type: this.type, body: this.body }, quotedStanzaID: this.id.id,
      quotedParticipant: this.id.fromMe ? me : this.id.participant || this.id.remote };
  };
  class ContactModel extends Model {}
  ContactModel.prototype.proxyName = 'contact';

  // --- the state -------------------------------------------------------------------------

  const Stream = new Model({ mode: undefined, info: 'OPENING', needsUpdate: false, displayInfo: '' });
  Stream.markAvailable = () => toServer({ do: 'presence', state: 'available' });
  Stream.markUnavailable = () => toServer({ do: 'presence', state: 'unavailable' });
  const Socket = new Model({ state: 'OPENING', hasSynced: false });
  const Conn = new Model({ ref: undefined, connected: false, wid: undefined, platform: 'android' });
  const NetworkStatus = new Model({ online: true });
  NetworkStatus.checkOnline = () => {};
  const Cmd = new Emitter();
  Cmd.isMainLoaded = false;
  class CmdImpl extends Emitter {}
  const LinkDevice = new Emitter();
  const Bus = new Emitter();
  const Msgs = new Collection(), Chats = new Collection(), Contacts = new Collection();
  let me = null, device = '';
  const bytes = (n) => crypto.getRandomValues(new Uint8Array(n));
  const keys = { noise: bytes(32), identity: bytes(32), secret: btoa(String.fromCharCode(...bytes(32))) };

  // Who is not subscribed to a chat's presence shows none there.
  const subscribed = new Set();
  const showPresence = (state) => async (chat) => {
    if (subscribed.has(String(chat.id))) toServer({ do: 'presence', chat: String(chat.id), state });
  };
  const chatOf = (id) => {
    const found = Chats.get(id);
    if (found) return found;
    const msgs = new Collection();
    const chat = new ChatModel({ id, unreadCount: 0, formattedTitle: String(id), active: false, t: 0,
      lastReceivedKey: undefined });
    const presence = { subscribe: async () => { subscribed.add(String(id)) } };
    Object.assign(chat, { msgs, presence, getLastReceivedKey: () => null });
    return Chats.add(chat);
  };
  const addMessage = (fields) => {
    const chat = chatOf(fields.id.remote);
    const message = new MsgModel({ ack: 0, isNewMsg: true, latestEditMsgKey: undefined, ...fields });
    chat.t = Math.max(chat.t, message.t || 0);
    chat.lastReceivedKey = message.id;
    chat.msgs.add(message);
    Msgs.add(message);
    return message;
  };
  const sent = new Map();
  const transmit = (raw, extra) => {
    const message = addMessage({ ...raw, ...extra });
    const result = new Promise((done) => {
      sent.set(message.id.id, (told) => {
        if (told.result === 'OK') message.ack = 1;
        done({ messageSendResult: told.result, t: told.t, count: null });
      });
    });
    messages.send(message, { do: 'send', id: message.id.id, key: String(message.id),
      to: String(message.id.remote), type: message.type, body: message.body || '', size: extra.size,
      sum: extra.sum, lat: message.lat, lng: message.lng, loc: message.loc,
      ...(message.quotedStanzaID && { quote: { id: message.quotedStanzaID, by: String(message.quotedParticipant),
        body: message.quotedMsg.body } }),
      ...(message.mentionedJidList?.length && { mentions: message.mentionedJidList.map(String) }) });
    return [Promise.resolve(message), result];
  };

  const change = (told, made) => new Promise((done, fail) => {
    sent.set(told.id, ({ result }) => (result === 'OK' ? made().then(done) : fail(new Error(result))));
    toServer(told);
  });
  Cmd.sendRevokeMsgs = async (chat, { list }) => {
    for (const { id } of list) {
      const revoke = MsgKey.newId();
      await change({ do: 'send', id: revoke, to: String(chat.id), type: 'revoke', about: id.id },
        () => messages.plays.revoke({ key: String(id), by: String(me), id: revoke }));
    }
  };
  Cmd.sendDeleteMsgs = async () => { throw new Error('a message that is deleted here only') };

  // With `lids` people have names of WhatsApp's beside their numbers, and chats are by these names.
  const lids = query.has('lids'), mirrored = (digits) => [...digits].reverse().join('');
  const lid_of = (number) => new Wid(mirrored(number.user), 'lid');

  const messages = globalThis.__standinMessages({ Model, Collection, MsgKey, MsgModel, wid, Msgs, Chats, chatOf,
    own: () => (me ? String(me) : ''), tell: (told) => toServer(told) });

  // --- the modules -----------------------------------------------------------------------

  const receipts = {
    handleChatSimpleReceipt: async () => {}, handleGroupSimpleReceipt: async () => {},
    handleStatusSimpleReceipt: async () => {},
  };
  const states = (...names) => Object.fromEntries(names.map((each) => [each, each]));
  const modules = {
    WAWebBuildConstants: {
      SANITIZED_VERSION_STR: VERSION, VERSION_STR: VERSION, VERSION_BASE: VERSION,
      VERSION_PRIMARY: 2, VERSION_SECONDARY: 3000,
    },
    WAWebUserPrefsLogin: { isLoggedIn: () => me !== null },
    WAWebUserPrefsMeUser: {
      getMaybeMePnUser: () => me, getMaybeMeUser: () => me, getMaybeMeLidUser: () => null,
      getMeLidUserOrThrow: () => { if (!me) throw new Error('no me'); return wid(`${me.user}1@lid`) },
      getMe: () => me, getMePnUserOrThrow: () => me, isMeAccount: (id) => !!me && me.equals(id),
    },
    WAWebStreamModel: { Stream },
    WAWebSocketModel: { Socket: Object.assign(Socket, {
      logout: async () => { toServer({ do: 'logout', device }); await unpair('user_initiated') },
      poke: () => {}, takeover: () => toServer({ do: 'hello', device }),
    }) },
    WAWebSocketConstants: {
      SOCKET_STATE: states('CONFLICT', 'CONNECTED', 'DEPRECATED_VERSION', 'OPENING', 'PAIRING',
        'PROXYBLOCK', 'SMB_TOS_BLOCK', 'TIMEOUT', 'TOS_BLOCK', 'UNLAUNCHED', 'UNPAIRED', 'UNPAIRED_IDLE'),
      SOCKET_STREAM: states('DISCONNECTED', 'SYNCING', 'RESUMING', 'CONNECTED'),
      WATCHED_SOCKET_STATE: states('CONNECTED'),
    },
    WAWebStreamMode: { StreamMode: states('QR', 'MAIN', 'SYNCING', 'OFFLINE', 'CONFLICT',
      'PROXYBLOCK', 'TOS_BLOCK', 'SMB_TOS_BLOCK', 'DEPRECATED_VERSION') },
    WAWebCmd: { Cmd: Object.assign(Cmd, { refreshQR: () => toServer({ do: 'refresh' }) }), CmdImpl },
    WAWebConnModel: { Conn, ConnImpl: Model },
    WAWebUserPrefsReg: { isRegistered: () => me !== null },
    WABase64: {
      encodeB64: (array) => btoa(String.fromCharCode(...new Uint8Array(array))),
      decodeB64: (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer,
    },
    WAWebSignalStoreApi: { waSignalStore: {
      getRegistrationInfo: async () => ({ identityKeyPair: { pubKey: keys.identity } }) } },
    WAWebUserPrefsInfoStore: { waNoiseInfo: {
      get: async () => ({ staticKeyPair: { pubKey: keys.noise } }) } },
    WAWebAdvSignatureApi: { getADVSecretKey: () => keys.secret, setADVSignedIdentity: () => {} },
    WAWebAltDeviceLinkingApi: {
      initializeAltDeviceLinking: async () => {},
      genLinkDeviceCodeForPhoneNumber: async (phone) => {
        if (!/^\d{7,15}$/.test(phone)) throw Object.assign(new Error('bad phone'), { code: 400 });
        const code = [...bytes(8)].map((each) => '123456789ABCDEFGHJKLMNPQRSTVWXYZ'[each % 32]).join('');
        document.getElementById('code').textContent = code;
        toServer({ do: 'link_code', phone, code });
        return code;
      },
    },
    WAWebLinkDeviceEvents: { WAWebLinkDeviceEvents: LinkDevice },
    WAWebBackendEventBus: { BackendEventBus: Bus, BackendEvent: {} },
    WAWebNetworkStatus: { NetworkStatus, default: NetworkStatus },
    WAWebOfflineHandler: { OfflineMessageHandler: { getOfflineDeliveryProgress: () => 0 } },
    WAWebWid: { default: Wid },
    WAWebWidFactory: {
      createWid: wid, createUserWidOrThrow: (user, server = 'c.us') => new Wid(user, server),
      isWidlike: (each) => !!each && typeof each === 'object' && 'user' in each && 'server' in each,
      createWidFromWidLike: (each) => new Wid(each.user, each.server), toUserWid: wid, toChatWid: wid,
    },
    WAWebMsgKey: { default: MsgKey },
    WAWebChatModel: { default: ChatModel, Chat: ChatModel },
    WAWebMsgModel: { default: MsgModel, Msg: MsgModel },
    WAWebContactModel: { default: ContactModel, Contact: ContactModel },
    WAWebMsgCollection: { MsgCollection: Msgs, MsgCollectionImpl: Collection },
    WAWebChatCollection: { ChatCollection: Chats, ChatCollectionImpl: Collection },
    WAWebGroupMetadataCollection: { default: new Groups() },
    WAWebContactCollection: { ContactCollection: Contacts, ContactCollectionImpl: Collection },
    WAWebNewsletterCollection: { NewsletterCollection: new Collection(), default: new Collection() },
    WAWebFindChatAction: {
      findOrCreateLatestChat: async (id) => {
        const name = lids && wid(id).server === 'c.us' ? lid_of(wid(id)) : wid(id), known = Chats.get(name);
        return { chat: known || chatOf(name), created: !known };
      },
    },
    WAWebApiContact: { lidPnCache: {
      getPhoneNumber: (lid) => (lids ? new Wid(mirrored(lid.user), 'c.us') : undefined),
      getCurrentLid: (number) => (lids ? lid_of(number) : undefined),
    } },
    // A change is the page's when the server has it: one that a kill cuts off was never made.
    WAWebMessageEditAction: { addAndSendMessageEdit: (message, raw) => change({ do: 'send', id: raw.id.id,
      to: String(message.id.remote), type: 'edit', about: message.id.id, body: raw.body },
    () => messages.plays.edit({ key: String(message.id), body: raw.body, id: raw.id.id, t: raw.t })) },
    WAWebMsgActionCapability: { canEditText: may_edit, canReplyMsg: (m) => m.type !== 'revoked' },
    WAWebMsgEditCaption: { canEditCaption: () => false },
    WAWebMsgType: { MSG_TYPE: { REVOKED: 'revoked' }, SYSTEM_MESSAGE_TYPES: [] },
    WAWebSendMsgResultAction: { SendMsgResult: states('OK', 'ERROR_UNKNOWN') },
    WAWebChatPresence: { markComposing: showPresence('composing'), markRecording: showPresence('recording'),
      markPaused: showPresence('paused') },
    WAWebSendMsgChatAction: { addAndSendMsgToChat: (_chat, raw) => transmit(raw, {}) },
    WAWebFrontendVcardUtils: {
      vcardFromContactModel: (contact) => ({
        displayName: contact.name,
        vcard: `BEGIN:VCARD\nVERSION:3.0\nFN:${contact.name}\n` +
          `TEL;waid=${contact.id.user}:+${contact.id.user}\nEND:VCARD`,
      }),
    },
    WAWebSendReactionMsgAction: {
      sendReactionToMsg: (message, emoji) => new Promise((done) => {
        const id = MsgKey.newId();
        sent.set(id, (told) => done({ messageSendResult: told.result }));
        toServer({ do: 'send', id, to: String(message.id.remote), type: 'reaction', body: emoji,
          about: message.id.id });
      }),
    },
    WAWebGetEphemeralFieldsMsgActionsUtils: { getEphemeralFields: () => ({}) },
    WATimeUtils: { unixTime: () => Math.floor(Date.now() / 1000) },
    WAWebAck: {
      ACK: { MD_DOWNGRADE: -7, INACTIVE: -6, CONTENT_UNUPLOADABLE: -5, CONTENT_TOO_BIG: -4,
        CONTENT_GONE: -3, EXPIRED: -2, FAILED: -1, CLOCK: 0, SENT: 1, RECEIVED: 2, READ: 3,
        PLAYED: 4, PEER: 5 },
      ACK_STRING: { SENDER: 'sender', DELIVERY: 'delivery', READ: 'read' },
    },
    WAWebHandleSimpleReceipt: receipts,
    WAWebUpdateUnreadChatAction: { markUnread: async () => {}, sendSeen: async ({ chat }) => {
      const ids = await messages.see(chat.id);
      if (ids.length) toServer({ do: 'seen', chat: String(chat.id), ids });
    } },
    WAWebOpaqueData: { default: { createFromData: async (blob, type) => ({ blob, type }) } },
    WAWebMediaPrep: {
      uploadProductImage: async () => {}, MediaPrep: {},
      prepRawMedia: (data) => ({
        _mediaData: data,
        waitForPrep: async () => ({ type: data.type, size: data.blob.size }),
        // A file takes its time: the bundle listens for its message only after this call.
        sendToChat: async ({ options }) => {
          await new Promise((done) => setTimeout(done, 20));
          const bytes = new Uint8Array(await data.blob.arrayBuffer());
          const sum = bytes.reduce((sum, each, at) => (sum + each * (at % 251)) % 1000003, 0);
          return transmit(options.productMsgOptions, { size: data.blob.size, sum })[1];
        },
      }),
    },
    WAWebLogoutReasonCode: {
      getErrorCodeFromLogoutReason: () => 401, setPrevLogoutReasonCode: () => {},
      setPrevCustomLogoutMessage: () => {}, getPrevLogoutReasonCode: () => null,
      getPrevCustomLogoutMessage: () => null,
    },
  };

  Object.assign(modules, messages.modules);
  for (const name of missing) delete modules[name];
  const modulesMap = Object.fromEntries(
    Object.entries(modules).map(([name, exports]) => [name, { factory: () => exports }]));
  globalThis.require = (name) => {
    if (name === '__debug') return { modulesMap };
    if (!(name in modules)) throw new Error(`Requiring unknown module "${name}"`);
    return modules[name];
  };
  globalThis.importNamespace = globalThis.require;
  globalThis.ErrorGuard = { skipGuardGlobal: () => {} };

  // --- the pairing, kept in the profile ---------------------------------------------------

  const store = (mode, work) => new Promise((done, fail) => {
    const opened = indexedDB.open('standin', 1);
    opened.onupgradeneeded = () => opened.result.createObjectStore('pairing');
    opened.onerror = () => fail(opened.error);
    opened.onsuccess = () => {
      const change = opened.result.transaction('pairing', mode);
      const asked = work(change.objectStore('pairing'));
      change.oncomplete = () => { opened.result.close(); done(asked.result) };
      change.onerror = () => fail(change.error);
    };
  });
  const keep = (pairing) => store('readwrite', (box) => box.put(pairing, 'pairing'));
  const kept = () => store('readonly', (box) => box.get('pairing'));

  // --- the states, played -------------------------------------------------------------------

  const show = () => {
    const at = document.getElementById('state');
    if (!at) return;
    at.textContent = `stream ${Stream.mode} / ${Stream.info}, socket ${Socket.state}` +
      (me ? `, account ${me.user}` : '');
    const pen = document.getElementById('qr').getContext('2d');
    pen.fillStyle = 'white';
    pen.fillRect(0, 0, 57, 57);
    if (!Conn.ref || me) return;
    pen.fillStyle = 'black';
    for (const at of bytes(200)) pen.fillRect((at * 7) % 57, bytes(1)[0] % 57, 2, 2);
  };
  const offerCode = (ref) => {
    Socket.state = 'UNPAIRED';
    Stream.mode = 'QR';
    Conn.ref = ref;
  };
  const openMain = async () => {
    Conn.connected = true;
    Socket.state = 'CONNECTED';
    Stream.info = 'NORMAL';
    Socket.hasSynced = true;
    Cmd.isMainLoaded = true;
    Cmd.trigger('main_loaded');
    Stream.mode = 'MAIN';
  };
  const unpair = async (reason) => {
    await keep({});
    localStorage.removeItem('last-wid');
    modules.WAWebLogoutReasonCode.getErrorCodeFromLogoutReason(reason);
    me = null;
    Cmd.trigger('logout');
    // The real site goes to an address of its own, in a document of its own.
    const next = new URL(location.href);
    next.searchParams.set('post_logout', '1');
    setTimeout(() => location.assign(next), 50);
  };

  const plays = {
    code: ({ ref }) => offerCode(ref),
    idle: () => { Socket.state = 'UNPAIRED_IDLE' },
    pairing: ({ passkey, challenge, limit = 1.5 }) => {
      Conn.ref = null;
      Socket.state = Stream.info = 'PAIRING';
      if (!passkey) return;
      const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
      const asked = challenge ? Uint8Array.from(atob(challenge), (each) => each.charCodeAt(0)) : bytes(32);
      const publicKey = { challenge: asked, rpId: location.hostname, timeout: limit * 1000, userVerification: 'required' };
      navigator.credentials.get({ publicKey }).then(
        ({ response }) => toServer({ do: 'passkey_answered', client: text(response.clientDataJSON),
          authenticator: text(response.authenticatorData), signature: text(response.signature) }),
        (error) => toServer({ do: 'passkey_refused', why: error.name }),
      );
    },
    paired: async ({ account, id }) => {
      device = id;
      await keep({ account, device });
      localStorage.setItem('last-wid', account);
      me = wid(`${account}@c.us`);
      await openMain();
    },
    welcome: openMain,
    logout: ({ reason }) => unpair(reason),
    stream: ({ mode, info, socket }) => {
      if (socket !== undefined) Socket.state = socket;
      if (info !== undefined) Stream.info = info;
      if (mode !== undefined) Stream.mode = mode;
    },
    ...messages.plays,
    sent: async (told) => {
      const done = sent.get(told.id);
      sent.delete(told.id);
      if (told.key && told.result === 'OK') await messages.sent(told.key);
      const message = told.key && Msgs.get(told.key);
      if (done) done(told); else if (message && !message.ack) message.ack = 1;
    },
    hang: ({ seconds }) => {
      const end = Date.now() + seconds * 1000;
      while (Date.now() < end);
    },
    keeper: async () => {
      await navigator.serviceWorker.register('/keeper.js');
      await navigator.serviceWorker.ready;
      await caches.open('standin');
      toServer({ do: 'kept' });
    },
    navigate: ({ to }) => location.assign(to),
    dialog: ({ text }) => setTimeout(() => { alert(text); toServer({ do: 'closed_dialog' }) }, 0),
    alive: () => {},
  };

  let socket = null;
  const waiting = [];
  const toServer = (told) => {
    if (socket && socket.readyState === 1) socket.send(JSON.stringify(told)); else waiting.push(told);
  };
  const connect = () => {
    socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
    socket.onopen = () => {
      toServer({ do: 'hello', device, account: me ? me.user : '', name: query.get('name') || '',
        agent: navigator.userAgent, webdriver: navigator.webdriver });
      for (const told of waiting.splice(0)) toServer(told);
    };
    socket.onmessage = async (event) => {
      const told = JSON.parse(event.data);
      await plays[told.do](told);
      if (told.do !== 'alive') show();
    };
    socket.onclose = () => {
      if (me) { Socket.state = 'TIMEOUT'; Stream.info = 'OFFLINE'; show() }
      setTimeout(connect, 500);
    };
  };
  const start = async () => {
    const pairing = await kept();
    // The real site needs both of its stores, and offers a code where one is empty.
    if (pairing && pairing.account && localStorage.getItem('last-wid') === pairing.account) {
      me = wid(`${pairing.account}@c.us`);
      device = pairing.device;
      await messages.load();
    }
    // Last, as on the real site: with it the bundle knows that the modules are there.
    globalThis.__d = () => {};
    connect();
    addEventListener('load', show);
  };
  start();
})();
