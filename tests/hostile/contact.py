"""A contact → a Baileys session: what it names, sends, sends again, acknowledges, shares, and a
record of it that is damaged. A plain bot of the library (useMultiFileAuthState) is linked to the
same account and gets the same: where the bot stays connected and reads, the session does."""

import asyncio
import base64
import time
import urllib.error
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.engines.baileys.conftest import ACCOUNT, Bench, make_cache
from tests.lacking import lacks
from tests.standin.baileys.run import BaileysServer, WhatsApp, why_not

CASES = 5
HOSTILE, FRIEND = "5511900000666", "5511900000007"
GROUP = "120363000000000001@g.us"
READ = 60.0
"""Seconds until a message is read, if it ever is: twice what a retry takes on a busy machine."""
RECORDS = ("session", "identity-key", "sender-key", "lid-mapping", "device-list", "pre-key")
DAMAGES = ("empty", "half", "zeros", "null", "NaN", "5", "{}", "[]", '"x"', "[[]]", "gone")
Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """The session that a case is played to."""

    whatsapp: WhatsApp
    account: str
    folder: Path
    send: Callable[[Mapping[str, Any]], Awaitable[object]]


@dataclass(slots=True)
class World:
    whatsapp: WhatsApp
    session: Bench
    bot: BaileysServer

    @property
    def target(self) -> Target:
        session = self.session
        return Target(self.whatsapp, session.account, session.folder, session.engine.send)


def draw(chance: Random) -> list[Step]:
    kinds = (_share, _share, _say, _say, _garbage, _receipt, _damage, _damage, _group, _answer)
    return [chance.choice(kinds)(chance) for _ in range(chance.randint(3, 9))]


def _name(chance: Random) -> str:
    """Of a group, an id, a person: as WhatsApp gives it, or as nobody else does."""
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
    """An envelope whose content nobody can read."""
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


def _group(_chance: Random) -> Step:
    return {"do": "group"}


def _answer(_chance: Random) -> Step:
    return {"do": "answer"}


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    if reason := why_not("baileys"):
        lacks(reason)
    session = folder / "sales" / "session"
    session.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WA_CACHE_PATH", str(make_cache(folder / "cache")))
        whatsapp = WhatsApp(folder / "whatsapp.log")
        bench, bot = Bench(whatsapp, session), None
        try:
            await bench.pair()
            bot = await asyncio.to_thread(
                BaileysServer, whatsapp, folder / "bots", folder / "bot.log"
            )
            code = await bench.until(bot.qr, READ)
            await asyncio.to_thread(whatsapp.scan, code, ACCOUNT)
            await bench.until(lambda b=bot: b.status() == "CONNECTED", READ)
            whatsapp.make_group(GROUP, [ACCOUNT, HOSTILE, FRIEND])
            whatsapp.takes_enclosed_keys(HOSTILE, FRIEND)
            yield World(whatsapp, bench, bot)
        finally:
            await bench.stop()
            if bot is not None:
                await asyncio.to_thread(bot.end)
            whatsapp.end()


async def play(world: World, case: list[Step]) -> None:
    session, begun = world.session, len(world.session.heard.claims)
    said = [id for step in case if (id := await do(world.target, step))]
    said.append(await asyncio.to_thread(world.whatsapp.say, FRIEND, ACCOUNT, "is it there?"))

    def not_read() -> set[str]:
        """What the bot read, and the session did not; the friend's message counts always."""
        ours, bots = map(_read, _devices(world))
        return {said[-1], *said} & (bots | {said[-1]}) - ours

    until = time.monotonic() + READ
    while (missing := await asyncio.to_thread(not_read)) and time.monotonic() < until:
        lost = [claim for claim in session.heard.claims[begun:] if claim.status != "CONNECTED"]
        assert not lost, f"the session lost its connection: {lost[0].reason} {lost[0].raw}"
        await asyncio.sleep(0.1)
    told = [(h.kind, dict(h.detail)) for h in session.heard.happenings]
    about = [(kind, detail) for kind, detail in told if detail.get("id") in missing]
    words = [id[:40] for id in missing]
    assert not missing, f"the session did not read what the bot read: {words}; it told {about}"
    assert [each.status for each in session.heard.claims[begun:]] == []
    assert not session.heard.errors


async def do(target: Target, step: Step) -> str:
    """The id of a message that may be read; "" for what is none, or what nobody could send."""
    whatsapp, account = target.whatsapp, target.account
    try:
        match step["do"]:
            case "say":
                return await _say_it(target, _bare(step))
            case "share":
                ids = [await _say_it(target, _shared(g, step["key"])) for g in step["groups"]]
                return ids[-1]
            case "put":
                await asyncio.to_thread(whatsapp.tell, "/put", {"user": account, **_bare(step)})
            case "group":
                await asyncio.to_thread(whatsapp.say_in_group, HOSTILE, account, GROUP, "hello all")
            case "damage":
                _damage_it(target.folder, step["record"], step["how"])
            case "answer":
                await target.send({"to": HOSTILE, "type": "text", "text": "yes?"})
    except urllib.error.HTTPError:
        pass  # WhatsApp's own encoding holds no such thing
    return ""


def _bare(step: Step) -> Step:
    return {key: value for key, value in step.items() if key != "do"}


def _shared(group: str, key: str) -> Step:
    told = {"groupId": group, "axolotlSenderKeyDistributionMessage": key}
    return {"message": {"conversation": "hello", "senderKeyDistributionMessage": told}}


async def _say_it(target: Target, told: Step) -> str:
    said = {"from": HOSTILE, "to": target.account, **told}
    return str((await asyncio.to_thread(target.whatsapp.tell, "/say", said))["id"])


def _damage_it(folder: Path, record: str, how: str) -> None:
    for path in sorted(folder.glob(f"{record}-*.json"))[:3]:
        with suppress(FileNotFoundError):  # the session moved it aside just now
            _damage_file(path, how)


def _damage_file(path: Path, how: str) -> None:
    whole = path.read_bytes()
    halves = {"empty": b"", "half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(halves.get(how, how.encode()))


def _devices(world: World) -> list[dict[str, Any]]:
    """The session's and the bot's: in the order of their pairing."""
    return [each for each in world.whatsapp.devices() if each["user"] == ACCOUNT]


def _read(device: dict[str, Any]) -> set[str]:
    return {each["id"] for each in device["receipts"] if each["type"] != "retry"}
