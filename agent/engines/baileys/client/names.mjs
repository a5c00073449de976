// A person has two names: the phone's number, and one that WhatsApp gave it (…@lid). Records show
// the number where it is known here, as WhatsApp told it with a message or before; their ids keep
// the name of the stanza, which is the same when it comes again.
const MOST = 10_000;
const LID = /@lid$/;

export class Names {
  #lib;
  #keys;
  #numbers = new Map(); // …@lid → …@s.whatsapp.net

  constructor(lib, keys) {
    this.#lib = lib;
    this.#keys = keys;
  }

  async show(record) {
    const { chat, sender, alias, quote, mentions } = record;
    if (LID.test(sender) && /@s\.whatsapp\.net$/.test(alias)) this.#note(sender, alias);
    const number = await this.#numberOf(sender);
    if (number !== sender) Object.assign(record, { sender: number, alias: sender });
    for (const [of, name] of [[record, "chat"], [record, "participant"], [quote, "sender"]]) {
      if (LID.test(of?.[name])) of[name] = await this.#numberOf(of[name]);
    }
    const shown = mentions?.map((jid) => this.#numberOf(jid));
    if (shown) record.mentions = await Promise.all(shown);
    // An answer to the message must name chat and sender as the message's stanza did.
    const isOther = record.chat !== chat || record.sender !== sender;
    if (record.kind === "message" && isOther) record._raw = { chat, sender };
    return record;
  }

  #note(lid, number) {
    this.#numbers.delete(lid);
    this.#numbers.set(lid, number);
    if (this.#numbers.size > MOST) this.#numbers.delete(this.#numbers.keys().next().value);
  }

  async #numberOf(lid) {
    if (!LID.test(lid)) return lid;
    if (this.#numbers.has(lid)) return this.#numbers.get(lid);
    const { user } = this.#lib.jidDecode(lid) ?? {};
    const name = `${user}_reverse`;
    // The store tells itself of a disk that cannot be read.
    const { [name]: number } = await this.#keys.get("lid-mapping", [name]).catch(() => ({}));
    if (typeof number !== "string" || !/^\d{5,20}$/.test(number)) return lid;
    this.#note(lid, `${number}@s.whatsapp.net`);
    return `${number}@s.whatsapp.net`;
  }
}
