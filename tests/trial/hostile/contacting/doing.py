"""A contact's steps are done to a session."""

import asyncio
import urllib.error
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.standin.baileys.run import WhatsApp
from tests.trial.hostile.contacting.acts import FRIEND, GROUP, HOSTILE, SECRET, Step


@dataclass(frozen=True, slots=True)
class Target:
    """The session that a case is played to."""

    whatsapp: WhatsApp
    account: str
    folder: Path
    send: Callable[[Mapping[str, Any]], Awaitable[str]]
    """The message's id; "" where it was not sent."""


async def do(target: Target, step: Step) -> str:
    """Do a step. Returns the id of a message that may be read; "" = none, or it could not be
    sent."""
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
            case "strangers":
                await _strangers_write(target, step)
            case "steal":
                await _ask_for_anothers(target, step)
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


async def _strangers_write(target: Target, step: Step) -> None:
    tell, kind = target.whatsapp.tell, step["kind"]
    users = [f"55118{step['first']:06}{number:02}" for number in range(step["count"])]
    if kind == "corrupt":
        for user in users:
            told = {"user": user, "corrupts": True, "answers": step["answers"]}
            await asyncio.to_thread(tell, "/person", told)
    for _ in range(step["times"]):
        for user in users:
            if kind == "corrupt":
                said = {"from": user, "to": target.account, "text": "nobody reads this"}
                await asyncio.to_thread(tell, "/say", said)
            else:
                await asyncio.to_thread(tell, "/put", _unreadable(target, step, user))
        await asyncio.sleep(step["every"])


def _unreadable(target: Target, step: Step, user: str) -> Step:
    """An envelope of one that has no keys with the session, and sends none."""
    content = {"base64": step["bytes"]}
    sender = f"1{user}@lid"
    attrs = {"id": uuid4().hex, "from": sender, "type": "text", "t": "1"}
    if step["kind"] == "skmsg":
        attrs |= {"from": GROUP, "participant": sender}
    enc = {"tag": "enc", "attrs": {"v": "2", "type": step["kind"]}, "content": content}
    stanza = {"tag": "message", "attrs": attrs, "content": [enc]}
    return {"user": target.account, "stanza": stanza}


async def _ask_for_anothers(target: Target, step: Step) -> None:
    chat = step["group"] or FRIEND
    id = await target.send({"to": chat, "type": "text", "text": f"{SECRET} of {chat}"})
    if not id:
        return
    attrs = {"id": id, "from": step["from"], "type": "retry", "t": "1"}
    if chat == GROUP:
        attrs |= {"from": GROUP, "participant": step["from"]}
    count = {"tag": "retry", "attrs": {"count": step["count"], "id": id, "t": "1", "v": "1"}}
    own = {"tag": "registration", "attrs": {}, "content": {"base64": "AAAAAQ=="}}
    stanza = {"tag": "receipt", "attrs": attrs, "content": [count, own]}
    told = {"user": target.account, "stanza": stanza}
    for _ in range(step["times"]):
        await asyncio.to_thread(target.whatsapp.tell, "/put", told)


def _damage_it(folder: Path, record: str, how: str) -> None:
    for path in sorted(folder.glob(f"{record}-*.json"))[:3]:
        with suppress(FileNotFoundError):  # the session moved it aside just now
            whole = path.read_bytes()
            halves = {"empty": b"", "half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}
            if how == "gone":
                path.unlink()
            else:
                path.write_bytes(halves.get(how, how.encode()))
