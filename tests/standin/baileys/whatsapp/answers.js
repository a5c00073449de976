// The server answers queries, but only those that the clients cannot do without.
import { child, children, node, parts } from './stanza.js';
import { readSignedKey } from './person.js';

const usync = (whatsapp, { device }, query) => {
  const asked = child(query, 'usync');
  const wanted = new Set(children(child(asked, 'query')).map((each) => each.tag));
  const found = children(child(asked, 'list'), 'user').map((each) => {
    const phone = child(each, 'contact')?.content;
    const jid = each.attrs.jid ?? `${String(phone).replace(/\D/g, '')}@s.whatsapp.net`;
    return about(whatsapp, device, jid, wanted);
  });
  return [node('usync', {}, [node('list', {}, found)])];
};

const about = (whatsapp, device, jid, wanted) => {
  const { user, server } = parts(jid);
  const person = whatsapp.personOf(`${user}@${server}`);
  const told = [];
  if (wanted.has('devices')) {
    const list = [node('device', { id: '0' })];
    for (const other of whatsapp.linked(person.user)) {
      if (other !== device && other.user === device.user) continue;
      const number = String(other.number);
      list.push(node('device', { id: number, 'key-index': number }));
    }
    told.push(node('devices', {}, [node('device-list', {}, list)]));
  }
  if (wanted.has('lid') && server !== 'lid') told.push(node('lid', { val: `${person.lid}@lid` }));
  if (wanted.has('contact')) told.push(node('contact', { type: 'in' }));
  return node('user', { jid }, told);
};

const keepKeys = (device, query) => {
  for (const key of children(child(query, 'list'), 'key')) {
    const id = Buffer.from(child(key, 'id').content).readUIntBE(0, 3);
    device.preKeys.set(id, Buffer.from(child(key, 'value').content));
  }
  const skey = child(query, 'skey') ?? child(child(query, 'rotate'), 'skey');
  if (skey) device.signedKey = readSignedKey(skey);
};

const encrypt = (whatsapp, { device }, query) => {
  if (query.attrs.type === 'set') {
    keepKeys(device, query);
    return [];
  }
  if (child(query, 'count')) return [node('count', { value: String(device.preKeys.size) })];
  if (child(query, 'digest')) return [node('digest')];
  const asked = children(child(query, 'key'), 'user').map((each) => each.attrs.jid);
  return [node('list', {}, asked.map((jid) => {
    const device = whatsapp.others.of(jid);
    return device ? whatsapp.others.bundle(jid, device) : whatsapp.personOf(jid).bundle(jid);
  }))];
};

const ANSWERS = {
  encrypt,
  usync,
  abt: () => [node('props', { hash: 'stand-in' })],
  blocklist: () => [node('list')],
  'w:g2': (whatsapp, { device }, query) =>
    whatsapp.groups.about(query.attrs.to, device.dialect === 3),
  'w:m': (whatsapp) => whatsapp.media.connection(),
  privacy: () => [node('privacy', {}, [node('category', { name: 'readreceipts', value: 'all' })])],
  // Without each collection's name the clients ask for ever.
  'w:sync:app:state': (_whatsapp, _connection, query) => [
    node(
      'sync',
      {},
      children(child(query, 'sync'), 'collection').map(({ attrs }) =>
        node('collection', { name: attrs.name, version: attrs.version }),
      ),
    ),
  ],
};

export const answer = (whatsapp, connection, query) =>
  ANSWERS[query.attrs.xmlns]?.(whatsapp, connection, query) ?? [];
