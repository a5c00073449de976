"""Evolution's routes that send a message: each goes through the outbox as one of ours."""

import asyncio
import base64
import math
import mimetypes
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from agent.api.handlers.messages import begin
from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.core.model import ConnectionStatus
from agent.engines.phones import digits_of
from agent.errors import InvalidRequest, WaError
from agent.wings.compat.fields import check, key_in, text_of
from agent.wings.compat.form import FILE, read_either
from agent.wings.compat.names import jid_of
from agent.wings.compat.own_routes import as_own, ask, read_answer
from agent.wings.compat.part import CompatPart
from agent.wings.compat.raw_message import KEY, raw_message

Made = tuple[dict[str, Any], dict[str, Any]]
"""Our message, and what its record will say of it."""
_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,", re.IGNORECASE)
_URL = re.compile(r"https?://", re.IGNORECASE)
_KINDS = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/mpeg"}
_NUMBER = re.compile(r"[+(]?[0-9][0-9 ().-]*")
LONGEST_DELAY = 20.0
"""Seconds."""
VOICE = "audio/ogg; codecs=opus"
_ANSWERS = {"quoted": "object", "mentioned": "array"}


async def send_text(call: Call) -> web.StreamResponse:
    return await _send(call, _text)


async def send_media(call: Call) -> web.StreamResponse:
    return await _send(call, _media)


async def send_audio(call: Call) -> web.StreamResponse:
    return await _send(call, _audio)


async def send_location(call: Call) -> web.StreamResponse:
    return await _send(call, _location)


async def send_contact(call: Call) -> web.StreamResponse:
    return await _send(call, _contact)


async def send_reaction(call: Call) -> web.StreamResponse:
    return await _send(call, _reaction)


async def edit(call: Call) -> web.StreamResponse:
    return await _send(call, _edit)


async def delete(call: Call) -> web.StreamResponse:
    return await _send(call, _delete)


async def _send(call: Call, make: Callable[[Mapping[str, Any]], Made]) -> web.StreamResponse:
    """Their clients want WhatsApp's id of the message. One that cannot be sent now gets the
    outbox's: it is kept, and goes out when its session can."""
    view, section = call.supervisor.view(call.id), call.parts.section
    connected = view.status is ConnectionStatus.CONNECTED
    seconds = round(call.parts.wing(CompatPart).settings.answer) or 1
    most = section.media_limit * 4 // 3 + section.body_limit
    async with call.large_body(most, read_either) as body:
        message, record = make(body)
        await _type(call, body, message)
        wait = {"wait": seconds} if connected else {}
        answering: Awaitable[web.StreamResponse] = await begin(
            as_own(call, "POST", "/messages", message, wait), patient=True
        )
        del body, message
    answer = read_answer(await answering)
    told = {
        "kind": "message",
        "from_me": True,
        "at": time.time(),
        **record,
        "id": f":{answer.get('id', '')}",
    }
    if "message_id" not in told:
        told["message_id"] = str(answer.get("id", ""))
    shown = raw_message(view.instance, told, sent_here=True)
    return json_answer(shown, call.route.answers[0])


async def _type(call: Call, body: Mapping[str, Any], message: Mapping[str, Any]) -> None:
    """`delay`: so many milliseconds the chat sees that the account types. Not with a file: it would
    take up memory for as long."""
    delay = body.get("delay")
    if type(delay) is not int or delay <= 0 or "content" in message:
        return
    seconds = min(delay / 1000, LONGEST_DELAY)
    told = {"chat": message["to"], "state": "typing", "seconds": math.ceil(seconds)}
    with suppress(WaError):  # it is sent all the same
        await ask(call, "POST", "/presence", told)
    await asyncio.sleep(seconds)


def _text(body: Mapping[str, Any]) -> Made:
    check(body, {"number": "string", "text": "string"}, _ANSWERS)
    text = body["text"]
    more, told = _answers(body)
    return (
        {"to": _to(body), "type": "text", "text": text, **more},
        {"chat": _to(body), "type": "text", "text": text, **told},
    )


def _media(body: Mapping[str, Any]) -> Made:
    check(
        body,
        {"number": "string", "mediatype": "string"},
        {"media": "string", "mimetype": "string", "fileName": "string", **_ANSWERS},
    )
    return _file(body, body["mediatype"], body.get(FILE) or body.get("media"))


def _audio(body: Mapping[str, Any]) -> Made:
    check(body, {"number": "string"}, {"audio": "string", **_ANSWERS})
    voice = {"mimetype": VOICE, **body}
    return _file(voice, "audio", body.get(FILE) or body.get("audio"))


def _file(body: Mapping[str, Any], kind: str, media: Any) -> Made:
    if kind not in (*_KINDS, "document"):
        raise InvalidRequest(
            "cannot use the field 'mediatype': it must be image, video, audio or document",
            field="mediatype",
        )
    name = text_of(body, "fileName")
    source, mimetype = _source(media)
    mimetype = text_of(body, "mimetype") or mimetype or mimetypes.guess_type(name)[0] or ""
    if kind == "document" and mimetype.partition("/")[0] in _KINDS:
        mimetype = "application/octet-stream"  # else it would be shown as what it is
    elif kind != "document" and mimetype.partition("/")[0] != kind:
        mimetype = _KINDS[kind]
    message = {"to": _to(body), "type": "media", "mimetype": mimetype, **source}
    told: dict[str, Any] = {"chat": _to(body), "type": kind, "media": {"mimetype": mimetype}}
    if not mimetype:
        message["mimetype"] = told["media"]["mimetype"] = "application/octet-stream"
    if name:
        message["filename"] = told["media"]["filename"] = name
    if caption := text_of(body, "caption"):
        message["caption"] = told["text"] = caption
    more, answered = _answers(body)
    return {**message, **more}, {**told, **answered}


def _source(media: Any) -> tuple[dict[str, str], str]:
    """The file for our message, and the type that it names itself."""
    if isinstance(media, bytes):
        return {"content": base64.b64encode(media).decode()}, ""
    if isinstance(media, str) and _URL.match(media):
        return {"url": media}, ""
    if isinstance(media, str) and (named := _DATA_URL.match(media)):
        return {"content": media[named.end() :]}, named[1]
    if isinstance(media, str) and re.fullmatch(r"[A-Za-z0-9+/\s]+=*\s*", media[:4096]):
        return {"content": media}, ""
    raise InvalidRequest("Owned media must be a url or base64", field="media")


def _location(body: Mapping[str, Any]) -> Made:
    check(
        body,
        {"number": "string", "latitude": "number", "longitude": "number"},
        {"name": "string", "address": "string"},
    )
    names = ("latitude", "longitude", "name", "address")
    place = {name: body[name] for name in names if body.get(name) not in (None, "")}
    told = {"chat": _to(body), "type": "location", "location": place}
    return {"to": _to(body), "type": "location", **place}, told


def _contact(body: Mapping[str, Any]) -> Made:
    check(body, {"number": "string", "contact": "array"}, {})
    people = [each for each in body["contact"] if isinstance(each, Mapping)]
    if len(people) != 1:
        raise InvalidRequest("cannot send it: one contact in a message", field="contact")
    name = text_of(people[0], "fullName")
    phone = text_of(people[0], "phoneNumber") or text_of(people[0], "wuid")
    digits = text_of(people[0], "wuid") or re.sub(r"\D", "", phone)
    card = (
        f"BEGIN:VCARD\nVERSION:3.0\nN:{name}\nFN:{name}\n"
        f"item1.TEL;waid={digits}:{phone}\nitem1.X-ABLabel:Celular\nEND:VCARD"
    )
    contacts = [{"name": name, "vcard": card}]
    told = {"chat": _to(body), "type": "contact", "contacts": contacts}
    return {"to": _to(body), "type": "contact", "name": name, "phone": phone}, told


def _reaction(body: Mapping[str, Any]) -> Made:
    check(body, {"key": "object", "reaction": "string"}, {})
    key = key_in(body)
    chat, emoji = text_of(key, "remoteJid"), body["reaction"]
    told = {"kind": "message_reaction", "chat": chat, "message_id": key["id"], "emoji": emoji}
    told[KEY] = key
    message = {"to": chat, "type": "reaction", "message_id": key["id"], "emoji": emoji}
    return message | _writer(key, "sender"), told


def _edit(body: Mapping[str, Any]) -> Made:
    check(body, {"number": "string", "text": "string", "key": "object"}, {})
    id = key_in(body)["id"]
    told = {"chat": _to(body), "type": "text", "text": body["text"]}
    return {"to": _to(body), "type": "edit", "message_id": id, "text": body["text"]}, told


def _delete(body: Mapping[str, Any]) -> Made:
    check(body, {"id": "string", "remoteJid": "string"}, {"participant": "string"})
    told = {"chat": body["remoteJid"], "type": "text", "text": ""}
    message = {"to": body["remoteJid"], "type": "delete", "message_id": body["id"]}
    return message | _writer(body, "sender"), told


def _to(body: Mapping[str, Any]) -> str:
    """A number, a chat's jid, or a group's long number; the outbox refuses what is none of them."""
    text = text_of(body, "number").strip()
    if "@" in text or not _NUMBER.fullmatch(text):
        return text
    digits = re.sub(r"[^0-9-]", "", text) if len(text) >= 24 else digits_of(text)
    return f"{digits}@g.us" if len(digits) >= 18 else digits


def _answers(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it replies to and whom it names, for our message and for the record."""
    message: dict[str, Any] = {}
    told: dict[str, Any] = {}
    if body.get("mentionsEveryOne"):
        raise InvalidRequest(
            "cannot mention everybody: name people in `mentioned`", field="mentionsEveryOne"
        )
    if body.get("quoted"):
        key = key_in(body["quoted"])
        message["quote"] = key["id"]
        writer = _writer(key, "quote_from")
        message |= writer
        sender = text_of(key, "participant") or text_of(key, "remoteJid")
        told["quote"] = {"message_id": key["id"], "sender": sender}
    if mentioned := body.get("mentioned"):
        message["mentions"] = told["mentions"] = [str(each) for each in mentioned]
    return message, told


def _writer(key: Mapping[str, Any], name: str) -> dict[str, str]:
    """Who wrote the message of that key; unsaid where it is looked up better."""
    if key.get("fromMe") is True:
        return {name: "me"}
    participant = text_of(key, "participant")
    return {name: jid_of(participant)} if participant else {}
