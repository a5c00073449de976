// Linked devices as those write to them that are no phones: their keys, and what comes for them.
// Each gets a message encrypted for itself, which names the device that wrote it.
import { WHATSAPP, child, children, node, number, parts } from './stanza.js';

const bare = (key) => Buffer.from(key).subarray(-32);
const now = () => String(Math.floor(Date.now() / 1000));

export class LinkedDevices {
  constructor(whatsapp) {
    this.whatsapp = whatsapp;
  }

  /** The device that a jid names; undefined for a phone and for one that is gone. */
  of(jid) {
    const { user, device, server } = parts(jid);
    const found = this.whatsapp.devices.get(`${server === 'lid' ? user.slice(1) : user}.${device}`);
    return found?.removed ? undefined : found;
  }

  /** Returns the keys to write to the device for the first time; takes one pre-key away. */
  bundle(jid, device) {
    const [first] = device.preKeys;
    if (first) device.preKeys.delete(first[0]);
    const id = (value) => node('id', {}, number(value, 3));
    const { keyId, publicKey, signature } = device.signedKey;
    return node('user', { jid }, [
      node('registration', {}, number(device.registration, 4)),
      node('type', {}, Buffer.from([5])),
      node('identity', {}, bare(device.identity)),
      ...(first ? [node('key', {}, [id(first[0]), node('value', {}, bare(first[1]))])] : []),
      node('skey', {}, [
        id(keyId),
        node('value', {}, bare(publicKey)),
        node('signature', {}, Buffer.from(signature)),
      ]),
    ]);
  }

  /** Those that a message of another account's device is for, phones excepted. */
  async deliver(device, stanza) {
    const { id, to, type, edit } = stanza.attrs;
    const group = to.endsWith('@g.us') ? to : '';
    const own = new Map();
    for (const each of children(child(stanza, 'participants'), 'to')) {
      const other = this.of(each.attrs.jid);
      if (other) own.set(other, child(each, 'enc'));
    }
    const members = group ? this.whatsapp.groups.members(group).flatMap((user) => this.whatsapp.linked(user)) : [];
    for (const other of new Set([...own.keys(), ...members])) {
      if (other.user === device.user) continue;
      const content = [own.get(other), group && child(stanza, 'enc')].filter(Boolean);
      const attrs = { ...this.#from(device, other, group), id, type, edit, t: now(), notify: device.user };
      this.whatsapp.put(other, node('message', attrs, content));
    }
  }

  /** A device's receipt reaches the device that wrote the message; false: a phone wrote it. */
  tell(device, stanza) {
    const { id, to, participant, type } = stanza.attrs;
    const writer = this.of(participant ?? to);
    if (!writer) return false;
    const group = to.endsWith('@g.us') ? to : '';
    const { from, participant: by } = this.#from(device, writer, group);
    this.whatsapp.put(writer, node('receipt', { from, participant: by, id, type, t: now() }, stanza.content));
    return true;
  }

  /** Clients of the newer dictionary know people by their LID. */
  #from(device, reader, group) {
    const pn = `${device.user}:${device.number}${WHATSAPP}`;
    const lid = `${this.whatsapp.person(device.user).lid}:${device.number}@lid`;
    const newer = reader.dialect === 3;
    const mode = newer ? { addressing_mode: 'lid' } : {};
    if (group) return { from: group, participant: newer ? lid : pn, ...(newer ? { participant_pn: pn } : {}), ...mode };
    return { from: newer ? lid : pn, ...(newer ? { sender_pn: pn } : {}), ...mode };
  }
}
