// Stanzas: the nodes that both sides exchange, in the dictionary that the client's header names.

// The fourth byte of the header is the version of the token dictionary.
const PACKAGES = { 2: 'baileys-6', 3: 'baileys' };

export const openDialect = async (version) => {
  const name = PACKAGES[version];
  if (!name) throw new Error(`cannot speak with a client of dictionary ${version}`);
  const found = await import(`${name}/lib/WABinary/index.js`);
  const { encodeBinaryNode, decodeBinaryNode } = found.encodeBinaryNode ? found : found.default;
  return { version, encode: encodeBinaryNode, decode: decodeBinaryNode };
};

export const WHATSAPP = '@s.whatsapp.net';

export const node = (tag, attrs = {}, content = undefined) => ({ tag, attrs, content });

/** From JSON, where bytes are {base64}. */
export const stanzaOf = ({ tag, attrs, content }) => {
  if (content?.base64 !== undefined) content = Buffer.from(content.base64, 'base64');
  else if (Array.isArray(content)) content = content.map(stanzaOf);
  return node(tag, attrs, content);
};

export const children = (of, tag) =>
  Array.isArray(of?.content) ? of.content.filter((each) => !tag || each.tag === tag) : [];

export const child = (of, tag) => children(of, tag)[0];

export const number = (value, bytes) => {
  const found = Buffer.alloc(bytes);
  found.writeUIntBE(value, 0, bytes);
  return found;
};

/** "5511999999999:3@s.whatsapp.net" → its parts. */
export const parts = (jid) => {
  const [, user, device = '0', server] = /^(\d+)(?::(\d+))?@(.+)$/.exec(jid) ?? [];
  return { user, device: Number(device), server };
};
