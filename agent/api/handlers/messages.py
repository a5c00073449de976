"""Sending a message; telling a chat for the moment that its messages were read, or that the account
types, which is done at once or refused. The sandbox engine's side of it: its phone, its contacts,
its faults."""

import asyncio
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from agent.api.http.call import Call, Field, Json, read_body
from agent.api.present import json_answer
from agent.engines import base, catalog, whatsapp
from agent.engines.sandbox.server import KINDS, TYPES, Faults, check_fields
from agent.errors import EngineError, InvalidRequest, Refused, TooLarge
from agent.messages import outcomes, sending
from agent.messages.sender import ME
from agent.vault.folder import SESSION, open_instance

_CHAT = "a phone number or a chat's id"
_IDS = (
    "WhatsApp's ids of messages in it; default: all that arrived there since it was marked last,"
    " as far as they are kept, at most the newest 1000"
)
_WRITERS = "who wrote them, in a group: a number or jid; default: looked up in what is kept here"
READ = (
    Field("chat", str, _CHAT, required=True, least=1, most=128),
    Field("message_ids", list, _IDS, least=1, most=1000, pattern=r"\S+"),
    Field("sender", str, _WRITERS, least=5, most=64),
)
_LONG = "how long it is shown, then `paused`; default 0: as long as phones do by themselves"
PRESENCE = (
    Field("state", str, "what is shown", required=True, choices=base.PRESENCES),
    Field("chat", str, f"where the account types, records or paused: {_CHAT}", least=1, most=128),
    Field("seconds", int, _LONG, least=0, most=120),
)


async def mark_read(call: Call) -> Json:
    """Let the writers of messages know that they were read."""
    body = call.body
    async with _told(call, "mark_read"):
        chat = _chat_of(body["chat"])
        sender = writer_of(body["sender"], "sender") if "sender" in body else ""
        ids = body.get("message_ids", ())
        count = await call.supervisor.asking.mark_read(call.id, chat, ids, sender)
    return {"instance": call.id, "chat": chat, "marked": count}


async def presence(call: Call) -> Json:
    """Show that the account types or records in a chat, or is there."""
    body, state, chat = call.body, call.body["state"], call.body.get("chat", "")
    if (state in base.IN_CHAT) != bool(chat):
        what = "give one" if state in base.IN_CHAT else f"{state} is shown to all"
        raise InvalidRequest(f"cannot use the field 'chat': {what}", field="chat")
    async with _told(call, "typing"):
        chat = _chat_of(chat) if chat else ""
        await call.supervisor.asking.presence(call.id, state, chat, body.get("seconds", 0))
    return {"instance": call.id, "chat": chat, "state": state}


def _chat_of(text: str) -> str:
    try:
        chat = whatsapp.receiver_of(text).replace("@c.us", "@s.whatsapp.net")
    except InvalidRequest:
        why = "cannot use chat: it is neither a phone number nor a chat's id"
        raise InvalidRequest(why, field="chat") from None
    return chat if "@" in chat else f"{chat}@s.whatsapp.net"


@asynccontextmanager
async def _told(call: Call, feature: str) -> AsyncIterator[None]:
    must_send(call.engine, feature)
    try:
        yield
    except EngineError as error:
        raise outcomes.refusal_of(call.engine, error) from error


_TO = Field("to", str, _CHAT, required=True, least=1, most=128)
_KINDS = ("text", "media", "location", "contact", "reaction", "edit", "delete")
_TYPE = Field("type", str, "default text", choices=_KINDS)
_UNTIL = "seconds after which it is not sent any more; default: as agent.toml says"
_EXPIRES = Field("expires_in", int, _UNTIL, least=1, most=30 * 86_400)
_ALL = (_TO, _TYPE, _EXPIRES)
_ID = 'its WhatsApp id, or the one that the outbox gave it ("out_…")'
_MEANT = f"the message meant: {_ID}"
_MESSAGE_ID = Field("message_id", str, _MEANT, required=True, least=1, most=256)
_WRITER = (
    'who wrote the message meant: a number or jid, "me" = this session; default: looked up in what'
    " is kept here"
)
_SENDER = Field("sender", str, _WRITER, least=2, most=64)
_ANSWERS = (
    Field("quote", str, f"the message that this one replies to: {_ID}", least=1, most=256),
    Field("quote_from", str, "who wrote that message, as `sender`", least=2, most=64),
    Field("mentions", list, "numbers or jids of people that the text names", most=256),
)
_MIMETYPE, _PHONE = "the file's type, as image/png", "the contact's phone number"
_MORE: Mapping[str, tuple[Field, ...]] = {
    "text": (Field("text", str, "the message", required=True, least=1, most=65_536), *_ANSWERS),
    "media": (
        Field("url", str, "the file's URL; or send `content`", most=2048, pattern=r"https?://\S+"),
        Field("content", str, "the file itself, base64; api.media_limit bytes", least=1),
        Field("mimetype", str, _MIMETYPE, required=True, most=128, pattern=r"[!-~]+/[!-~]+(;.*)?"),
        Field("filename", str, "its name for the receiver", least=1, most=255),
        Field("caption", str, "the caption", most=4096),
        *_ANSWERS,
    ),
    "location": (
        Field("latitude", float, "degrees north", required=True, least=-90, most=90),
        Field("longitude", float, "degrees east", required=True, least=-180, most=180),
        Field("name", str, "the place's name", most=256),
        Field("address", str, "the place's address", most=512),
    ),
    "contact": (
        Field("name", str, "the contact's name", required=True, least=1, most=256),
        Field("phone", str, _PHONE, required=True, most=64, pattern=r"\+?[ (]*[0-9][0-9 ().-]*"),
    ),
    "reaction": (
        _MESSAGE_ID,
        _SENDER,
        Field("emoji", str, 'the reaction; "" removes it', required=True, most=32),
    ),
    "edit": (
        _MESSAGE_ID,
        Field("text", str, "its text from now on", required=True, least=1, most=65_536),
    ),
    "delete": (_MESSAGE_ID, _SENDER),
}
_SHOWN = {field.name: field for rows in reversed([*_MORE.values()]) for field in rows}
MESSAGE = (*_ALL, *(Field(f.name, f.kind, f.meaning) for f in _SHOWN.values()))
_ON_MESSAGES = ("quote", "mentions")
_HAS_IT = (
    "seconds to wait until WhatsApp has it: 200, or the error; default 0: 202 when it is on the"
    " disk. In each answer, also to a repeat, `id` is the outbox's, `message_id` WhatsApp's"
)
WAIT_SENT = (Field("wait", int, _HAS_IT, most=300),)


async def send(call: Call) -> web.StreamResponse:
    """Send a message; honours Idempotency-Key."""
    wait = float(call.query.get("wait", 0))
    taken = await _accept(call, wait)
    # The answer is waited for without the message in memory.
    status, body = await call.parts.sending.answer(taken, wait)
    answer = json_answer(dict(body), status)
    if taken.again:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


async def _accept(call: Call, wait: float) -> sending.Taken:
    async with call.large_body() as body:
        message = await _read(call, body)
        expires_in = message.pop("expires_in", None)
        whose, digest = await _key_of(call, message)
        return await call.parts.sending.accept(
            call.id, message, expires_in=expires_in, whose=whose, digest=digest, wait=wait
        )


async def _read(call: Call, body: Mapping[str, Any]) -> dict[str, Any]:
    kind = read_body({"type": body.get("type", "text")}, (_TYPE,))["type"]
    message = {"type": kind, **read_body(body, (*_ALL, *_MORE[kind]))}
    must_send(call.engine, kind, *(name for name in _ON_MESSAGES if name in message))
    # One form for a person, however its number is written.
    for name in {"quote_from", "sender"} & message.keys():
        message[name] = writer_of(message[name], name)
    if "mentions" in message:
        people = (whatsapp.person_of(person, "mentions") for person in message["mentions"])
        message["mentions"] = list(dict.fromkeys(people))
    if kind == "media":
        if ("url" in message) == ("content" in message):
            raise InvalidRequest("cannot send the file: give either url or content", field="url")
        if "content" in message:
            content, limit = message["content"], call.parts.section.media_limit
            message["content"] = await asyncio.to_thread(check_file, content, limit)
    return message


async def _key_of(call: Call, message: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """Return the caller's name, session and Idempotency-Key, and the digest of the message."""
    if (key := call.request.headers.get("Idempotency-Key")) is None:
        return (), ""
    if not 1 <= len(key) <= 255:
        words = "cannot use this Idempotency-Key: 1 to 255 characters"
        raise InvalidRequest(words, field="Idempotency-Key")
    # One that is no UTF-8 is a key as well.
    readable = key.encode(errors="surrogateescape").decode(errors="backslashreplace")
    whose = (call.caller.name, call.id, readable)
    digest = await asyncio.to_thread(_digest, message)
    # An engine that can gives the message this id: sent again, it is the same one for WhatsApp;
    # with another content, where this key is forgotten, another one.
    message["key"] = base.sha256("\0".join((*whose, digest)).encode())
    return whose, digest


def must_send(engine: str, *features: str) -> None:
    """Refuse at once what no session of this engine can ever send."""
    entry = catalog.entry_of(engine)
    for feature in features:
        if feature not in entry.sends:
            field = feature if feature in _ON_MESSAGES else "type"
            own = f"the session's own {'server' if entry.remote else 'program'} sends its messages"
            way = f"it sends {', '.join(sorted(entry.sends))}" if entry.sends else own
            why = f"cannot send {feature}: the engine {engine} does not; {way}"
            raise Refused(why, field=field, code="not_supported")


def writer_of(text: str, field: str) -> str:
    return ME if text == ME else whatsapp.person_of(text, field)


def check_file(content: str, limit: int) -> str:
    """Return the base64 of a file without line ends; refuse what is none, or too long."""
    plain = content.replace("\r", "").replace("\n", "")
    try:
        size = len(binascii.a2b_base64(plain.encode(), strict_mode=True))
    except ValueError as error:
        why = f"cannot use the field 'content': it is no base64 ({error})"
        raise InvalidRequest(why, field="content") from None
    if size > limit:
        words = f"cannot send the file: it has {size} bytes, at most {limit} (api.media_limit)"
        raise TooLarge(words, field="content")
    if not size:
        raise InvalidRequest("cannot send the file: it is empty", field="content")
    return plain


def _digest(message: Mapping[str, Any]) -> str:
    return base.sha256(json.dumps(message, sort_keys=True).encode())


# The sandbox

FAULTS = (
    *("crash", "hang", "zombie", "slow", "drop", "leak", "bad-mac", "prekey", "logout", "ban"),
    *("temp-ban", "conflict", "outdated", "passkey", "stuck-loading", "corrupt-files", "clear"),
)
FAULT = (
    Field("fault", str, "name; clear = end every fault", required=True, choices=FAULTS),
    Field("for", float, "seconds that it lasts; default: until cleared", least=0.001, most=1e7),
    Field("peers", list, "contacts whose messages fail (bad-mac, prekey)", most=100),
    Field("per_minute", float, "errors of each peer per minute", least=0.1, most=6000),
    Field("bytes_per_second", float, "growth of a memory leak", least=1, most=2**30),
)
SAY = (
    Field("contact", str, "who writes: a number or a jid", required=True, least=1, most=64),
    Field("text", str, "the text, caption, emoji, option or state", most=65_536),
    Field("kind", str, "default message", choices=KINDS),
    Field("type", str, "of a message; default text", choices=TYPES),
    Field("of", str, "id of the message that it is about", least=1, most=64),
    Field("group", str, "jid of the group in which it is written", least=1, most=64),
    Field("from_me", bool, "true = the account's owner writes it on the phone"),
    Field("message_id", str, "its id at WhatsApp; default: a new one", least=1, most=48),
    Field("count", int, "how many messages, numbered; default 1", least=1, most=10_000),
    Field("content", str, "a file that it brings, base64; api.media_limit bytes", least=1),
    Field("mimetype", str, "the file's type", least=3, most=128),
    Field("filename", str, "the file's name", most=255),
    Field("fields", dict, "more of its record: quote, mentions, media, location, poll …"),
)
HEARD = (
    Field("after", int, "cursor of the last one seen; default 0", least=0),
    Field("limit", int, "how many at most; default 100", least=1, most=1000),
)


async def scan(call: Call) -> Json:
    """Let the sandbox's phone scan."""
    return await _sandbox(call, "scan", {})


async def fault(call: Call) -> Json:
    """Cause a fault in the sandbox."""
    name = call.body.pop("fault")
    try:
        return await _sandbox(call, "fault", {"name": name, **call.body})
    except Refused as error:
        if (name, error.code) != ("clear", "not_running") or call.view.unit.runs:
            raise
        return await asyncio.to_thread(_clear, call)


def _clear(call: Call) -> Json:
    """Clear the faults that the next worker would read: while the session is banned, none runs."""
    with open_instance(call.supervisor.root, call.id, SESSION) as folder:
        # An absolute path is what comes of it: the folder that was opened, whatever took its place.
        Faults(folder.path / f"/proc/self/fd/{folder.fd}").clear()
    return {"faults": {}}


async def say(call: Call) -> Json:
    """Let a contact of the sandbox write."""
    async with call.large_body() as body:
        said = read_body(body, SAY)
        await asyncio.to_thread(check_fields, said.get("fields", {}))
        if "content" in said:
            limit = call.parts.section.media_limit
            said["content"] = await asyncio.to_thread(check_file, said["content"], limit)
        return await _sandbox(call, "say", said)


async def heard(call: Call) -> Json:
    """List the messages that the sandbox's contacts got, oldest first."""
    return await _sandbox(call, "heard", call.query)


async def _sandbox(call: Call, name: str, arguments: Mapping[str, Any]) -> Json:
    view = call.view
    if view.instance.engine != "sandbox":
        why = f"cannot do this with {call.id}: its engine is {view.instance.engine}, not sandbox"
        raise Refused(why, code="not_sandbox")
    try:
        return dict(await call.supervisor.asking.command(call.id, name, arguments))
    except EngineError as error:
        # The sandbox refuses by design, such as a scan without a code.
        kind = InvalidRequest if error.code == InvalidRequest.code else Refused
        raise kind(str(error), field=error.field, code=error.code) from error
