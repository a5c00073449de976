// Groups: each member has a sender key of its own and gives it to every device that shall read.
import { proto, signal } from './packages.js';
import { randomId, takeBundle } from './person.js';
import { WHATSAPP, child, node, parts } from './stanza.js';

const { GroupCipher, GroupSessionBuilder } = signal;
const { SenderKeyDistributionMessage, SenderKeyName, SenderKeyRecord } = signal;

const now = () => String(Math.floor(Date.now() / 1000));

const withBuffers = (_, value) => (value?.type === 'Buffer' ? Buffer.from(value.data) : value);

class SenderKeys {
  #records = new Map();

  async loadSenderKey(name) {
    const kept = this.#records.get(name.toString());
    return new SenderKeyRecord(kept && JSON.parse(kept, withBuffers));
  }

  async storeSenderKey(name, record) {
    const kept = JSON.stringify(record.serialize());
    this.#records.set(name.toString(), kept);
  }
}

export class Groups {
  #members = new Map();
  #keys = new Map();
  #given = new Set();
  #texts = new Map();

  constructor(whatsapp) {
    this.whatsapp = whatsapp;
  }

  make(group, members) {
    this.#members.set(group, members);
  }

  members(group) {
    return this.#members.get(group) ?? [];
  }

  /** The answer to a client that asks who is in it. */
  about(group, byLid) {
    const users = this.#members.get(group) ?? [];
    const members = users.map((user) => {
      const [pn, lid] = [`${user}${WHATSAPP}`, `${this.whatsapp.person(user).lid}@lid`];
      return node('participant', byLid ? { jid: lid, phone_number: pn } : { jid: pn, lid });
    });
    const attrs = { id: parts(group).user, subject: 'group', s_t: now(), creation: now() };
    const addressing = byLid ? { addressing_mode: 'lid' } : {};
    return [node('group', { ...attrs, ...addressing }, members)];
  }

  /** A member writes: the text under its sender key, which a device that has it not gets first. */
  async say(from, to, group, text) {
    const id = randomId();
    this.#texts.set(id, { from, group, text });
    for (const user of this.members(group)) {
      const { screen } = this.whatsapp.person(user);
      if (user === from) screen.wrote(id, group, text);
      else screen.take({ id, from, chat: group }, { conversation: text });
    }
    for (const device of this.whatsapp.linked(to)) {
      const given = `${from} ${group} ${device.user}.${device.number}`;
      const first = this.#given.has(given) ? [] : [await this.#share(from, device, group)];
      this.#given.add(given);
      const sealed = await this.#cipher(from, group, from, 0).encrypt(this.#message({ text }));
      const enc = node('enc', { v: '2', type: 'skmsg' }, Buffer.from(sealed));
      this.#send(from, device, group, id, [...first, enc]);
    }
    return id;
  }

  /** Sends again, with the session's keys and the sender key, what a device could not read. */
  async again(device, id, count) {
    const { from, group, text } = this.#texts.get(id);
    const enc = await this.#share(from, device, group, text);
    enc.attrs.count = count;
    this.#send(from, device, group, id, [enc]);
  }

  has(id) {
    return this.#texts.has(id);
  }

  /** A client gave a member its sender key. */
  async take(person, device, told) {
    const { groupId, axolotlSenderKeyDistributionMessage: raw } = told;
    const message = new SenderKeyDistributionMessage(null, null, null, null, Buffer.from(raw));
    await new GroupSessionBuilder(this.#keysOf(person.user)).process(
      this.#name(groupId, device.user, device.number),
      message,
    );
  }

  /** A client wrote: every member who has its sender key reads. */
  async deliver(device, stanza) {
    const { id, to: group } = stanza.attrs;
    const enc = child(stanza, 'enc');
    for (const user of this.#members.get(group) ?? []) {
      if (user === device.user) continue;
      const person = this.whatsapp.person(user);
      try {
        const cipher = this.#cipher(user, group, device.user, device.number);
        const plain = await cipher.decrypt(Buffer.from(enc.content));
        const bytes = plain.subarray(0, plain.length - plain[plain.length - 1]);
        const message = proto.Message.decode(bytes);
        const text = message.conversation || message.extendedTextMessage?.text;
        person.heard.push({ from: device.user, id, type: 'skmsg', text });
        person.screen.take({ id, from: device.user, chat: group, edit: stanza.attrs.edit }, message);
      } catch (error) {
        person.unread += 1;
        console.log(`${user} cannot read ${id}: ${error.message}`);
      }
    }
  }

  async #share(from, device, group, text) {
    const name = this.#name(group, from, 0);
    const shared = await new GroupSessionBuilder(this.#keysOf(from)).create(name);
    const told = { groupId: group, axolotlSenderKeyDistributionMessage: shared.serialize() };
    const message = proto.Message.fromObject({
      senderKeyDistributionMessage: told,
      ...(text ? { conversation: text } : {}),
    });
    const address = `${device.user}.${device.number}`;
    return this.whatsapp
      .person(from)
      .encryptMessage(address, message, () => takeBundle(device), Boolean(text));
  }

  #message({ text }) {
    const bytes = Buffer.from(proto.Message.encode({ conversation: text }).finish());
    return Buffer.concat([bytes, Buffer.from([1])]);
  }

  #send(from, device, group, id, content) {
    const byLid = device.dialect === 3;
    const [pn, lid] = [`${from}${WHATSAPP}`, `${this.whatsapp.person(from).lid}@lid`];
    const by = byLid
      ? { participant: lid, participant_pn: pn, addressing_mode: 'lid' }
      : { participant: pn };
    const attrs = { from: group, ...by, id, type: 'text', t: now(), notify: from };
    this.whatsapp.put(device, node('message', attrs, content));
  }

  #keysOf(user) {
    if (!this.#keys.has(user)) this.#keys.set(user, new SenderKeys());
    return this.#keys.get(user);
  }

  #cipher(reader, group, user, device) {
    return new GroupCipher(this.#keysOf(reader), this.#name(group, user, device));
  }

  #name(group, user, device) {
    return new SenderKeyName(group, { id: user, deviceId: device });
  }
}
