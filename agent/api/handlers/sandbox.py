"""The sandbox engine: its phone, its contacts, its faults."""

import asyncio
from collections.abc import Mapping
from typing import Any

from agent.api.handlers.messages import check_file
from agent.api.http.call import Call, Json
from agent.api.http.fields import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OBJECT,
    STRING,
    STRINGS,
    Field,
    read_body,
)
from agent.engines.sandbox.conversation import KINDS, TYPES
from agent.errors import EngineError, Refused

FAULTS = (
    *("crash", "hang", "zombie", "slow", "drop", "leak", "bad-mac", "prekey", "logout", "ban"),
    *("temp-ban", "conflict", "outdated", "passkey", "stuck-loading", "corrupt-files", "clear"),
)
FAULT = (
    Field("fault", STRING, "name; clear = end every fault", required=True, choices=FAULTS),
    Field("for", NUMBER, "seconds that it lasts; default: until cleared", least=0.001, most=1e7),
    Field("peers", STRINGS, "contacts whose messages fail (bad-mac, prekey)", most=100),
    Field("per_minute", NUMBER, "errors of each peer per minute", least=0.1, most=6000),
    Field("bytes_per_second", NUMBER, "growth of a memory leak", least=1, most=2**30),
)
SAY = (
    Field("contact", STRING, "who writes: a number or a jid", required=True, least=1, most=64),
    Field("text", STRING, "the text, caption, emoji, option or state", most=65_536),
    Field("kind", STRING, "default message", choices=KINDS),
    Field("type", STRING, "of a message; default text", choices=TYPES),
    Field("of", STRING, "id of the message that it is about", least=1, most=64),
    Field("group", STRING, "jid of the group in which it is written", least=1, most=64),
    Field("from_me", BOOLEAN, "true = the account's owner writes it on the phone"),
    Field("message_id", STRING, "its id at WhatsApp; default: a new one", least=1, most=48),
    Field("count", INTEGER, "so many messages, numbered; default 1", least=1, most=10_000),
    Field("content", STRING, "a file that it brings, base64; api.media_limit bytes", least=1),
    Field("mimetype", STRING, "the file's type", least=3, most=128),
    Field("filename", STRING, "the file's name", most=255),
    Field("fields", OBJECT, "more of its record: quote, mentions, media, location, poll …"),
)
HEARD = (
    Field("after", INTEGER, "cursor of the last one seen; default 0", least=0),
    Field("limit", INTEGER, "how many at most; default 100", least=1, most=1000),
)


async def scan(call: Call) -> Json:
    """Let the sandbox's phone scan."""
    return await _sandbox(call, "scan", {})


async def fault(call: Call) -> Json:
    """Cause a fault in the sandbox."""
    return await _sandbox(call, "fault", {"name": call.body.pop("fault"), **call.body})


async def say(call: Call) -> Json:
    """Let a contact of the sandbox write."""
    section = call.parts.section
    async with call.large_body(section.media_limit * 4 // 3 + section.body_limit) as body:
        said = read_body(body, SAY)
        if "content" in said:
            said["content"] = await asyncio.to_thread(
                check_file, said["content"], section.media_limit
            )
        return await _sandbox(call, "say", said)


async def heard(call: Call) -> Json:
    """What the sandbox's contacts got, oldest first."""
    return await _sandbox(call, "heard", call.query)


async def _sandbox(call: Call, name: str, arguments: Mapping[str, Any]) -> Json:
    view = call.view
    if view.instance.engine != "sandbox":
        raise Refused(
            f"cannot {name} {call.id}: its engine is {view.instance.engine}, not sandbox",
            code="not_sandbox",
        )
    try:
        return dict(await call.supervisor.asking.command(call.id, name, arguments))
    except EngineError as error:
        # The sandbox refuses by design, such as a scan without a code.
        raise Refused(str(error), code=error.code) from error
