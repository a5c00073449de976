"""Acts of a contact as data: what it names, sends, sends again, acknowledges, shares, asks for."""

import base64
from random import Random
from typing import Any

HOSTILE, FRIEND = "5511900000666", "5511900000007"
OUTSIDER = "5511900000999"
SECRET = "for the eyes"
"""Beginning of each text that is sent to one contact, or to one group, alone."""
GROUP = "120363000000000001@g.us"
RECORDS = ("session", "identity-key", "sender-key", "lid-mapping", "device-list", "pre-key")
DAMAGES = ("empty", "half", "zeros", "null", "NaN", "5", "{}", "[]", '"x"', "[[]]", "gone")
Step = dict[str, Any]


def draw(chance: Random) -> list[Step]:
    kinds = (_share, _share, _say, _say, _garbage, _receipt, _damage, _damage, _word, _word)
    kinds += (_strangers, _strangers, _steal)
    return [chance.choice(kinds)(chance) for _ in range(chance.randint(3, 9))]


def _name(chance: Random) -> str:
    """A name of a group, an id or a person: as WhatsApp gives it, or a strange one."""
    piece = chance.choice(
        ["a", "/", ":", "..", "../", "é", "\0", "\n", "\ud800", "\U0001f600", "%00", "-", "\\", " "]
    )
    strange = piece * chance.choice([1, 3, 60, 120, 128, 250, 256, 5000, 70_000])
    usual = f"{chance.randrange(10**12)}@g.us"
    special = chance.choice(
        ["__proto__", "constructor", "creds", "memory-1@g.us", "", "creds.json"]
    )
    return chance.choice([usual, strange, strange + usual, usual + strange, special])


def _bytes(chance: Random) -> str:
    size = chance.choice([0, 1, 33, 76, 500, 100_000])
    return base64.b64encode(chance.randbytes(size)).decode()


def _message(chance: Random) -> Step:
    name, deep = _name(chance), chance.choice([1, 20, 90])
    nested: Step = {"conversation": "deep"}
    for _ in range(deep):
        nested = {chance.choice(["ephemeralMessage", "viewOnceMessage"]): {"message": nested}}
    key = {"remoteJid": name, "id": _name(chance), "fromMe": chance.random() < 0.5}
    keys = [{"keyId": {"keyId": _bytes(chance)}, "keyData": {"keyData": _bytes(chance)}}]
    url = {"url": name, "mimetype": name, "fileName": name, "fileLength": 2**53}
    return chance.choice(
        [
            {"conversation": name},
            {"extendedTextMessage": {"text": name, "contextInfo": {"stanzaId": name}}},
            {"reactionMessage": {"key": key, "text": name}},
            {"protocolMessage": {"type": chance.randrange(30), "key": key}},
            {"protocolMessage": {"type": 6, "appStateSyncKeyShare": {"keys": keys}}},
            {"deviceSentMessage": {"destinationJid": name, "message": nested}},
            {"documentMessage": url},
            {"contactMessage": {"displayName": name, "vcard": name}},
            {"pollUpdateMessage": {"pollCreationMessageKey": key, "vote": {}}},
            nested,
            {},
        ]
    )


def _say(chance: Random) -> Step:
    attrs = {
        name: _name(chance)
        for name in ("notify", "type", "category", "recipient", "t", "verified_name", "offline")
        if chance.random() < 0.1
    }
    id = {"id": _name(chance)} if chance.random() < 0.2 else {}
    return {"do": "say", "message": _message(chance), "attrs": attrs, **id}


def _share(chance: Random) -> Step:
    """A sender key for a group of its choice, or for many."""
    valid = b"\x33\x08\x01\x10\x00\x1a\x20" + b"k" * 32 + b"\x22\x21" + b"\x05" * 33
    key = base64.b64encode(valid).decode() if chance.random() < 0.7 else _bytes(chance)
    count = 30 if chance.random() < 0.1 else 1
    return {"do": "share", "groups": [_name(chance) for _ in range(count)], "key": key}


def _garbage(chance: Random) -> Step:
    """An envelope whose content no key opens."""
    kind = chance.choice(["msg", "pkmsg", "skmsg", "none", "msmsg"])
    sender = chance.choice([f"{HOSTILE}@s.whatsapp.net", f"1{HOSTILE}@lid", GROUP])
    attrs = {"id": _name(chance), "from": sender, "type": "text", "t": "1"}
    if sender == GROUP:
        attrs["participant"] = f"1{HOSTILE}@lid"
    enc = {"tag": "enc", "attrs": {"v": "2", "type": kind}, "content": {"base64": _bytes(chance)}}
    return {"do": "put", "stanza": {"tag": "message", "attrs": attrs, "content": [enc]}}


def _receipt(chance: Random) -> Step:
    kind = chance.choice(["retry", "read", "played", "server-error", "inactive", _name(chance)])
    attrs = {"id": _name(chance), "from": f"1{HOSTILE}@lid", "type": kind, "t": _name(chance)}
    retry = {"tag": "retry", "attrs": {"count": _name(chance), "id": attrs["id"], "v": "1"}}
    many = [{"tag": "item", "attrs": {"id": _name(chance)[:99]}} for _ in range(50)]
    content = chance.choice([[retry], [{"tag": "list", "content": many}], []])
    return {"do": "put", "stanza": {"tag": "receipt", "attrs": attrs, "content": content}}


def _damage(chance: Random) -> Step:
    return {"do": "damage", "record": chance.choice(RECORDS), "how": chance.choice(DAMAGES)}


def _word(chance: Random) -> Step:
    """A message of the contact to its group, or of the session to the contact."""
    return {"do": chance.choice(["group", "answer"])}


def _strangers(chance: Random) -> Step:
    """Contacts of whom the session holds no keys write what cannot be read, again and again."""
    return {
        "do": "strangers",
        "first": chance.randrange(10**6),
        "count": chance.choice([1, 1, 3, 6, 10]),
        "times": chance.choice([1, 3, 5]),
        "every": chance.choice([0.0, 0.05, 0.2]),
        "answers": chance.random() < 0.5,
        "kind": chance.choice(["corrupt", "corrupt", "msg", "pkmsg", "skmsg"]),
        "bytes": _bytes(chance),
    }


def _steal(chance: Random) -> Step:
    """One asks for what was sent to another, or to a group that it is no member of."""
    group = chance.choice(["", "", GROUP])
    who = OUTSIDER if group else chance.choice([HOSTILE, OUTSIDER])
    return {
        "do": "steal",
        "from": chance.choice([f"1{who}@lid", f"{who}@s.whatsapp.net"]),
        "group": group,
        "count": str(chance.choice([1, 1, 2, 5])),
        "times": chance.choice([1, 3]),
    }
