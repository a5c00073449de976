"""Evolution's routes of chats: read marks, typing, the messages that are kept."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from agent.api.http.call import Call, Json
from agent.api.http.envelope import json_answer
from agent.core.model import Instance
from agent.supervise.messages.kept_messages import LONGEST_PAGE
from agent.wings.compat.fields import check, key_in, text_of
from agent.wings.compat.names import ACKS, jid_of, row_id
from agent.wings.compat.own_routes import ask
from agent.wings.compat.part import CompatPart
from agent.wings.compat.raw_message import raw_message

STATES = {"composing": "typing"}
"""Their words that are not ours."""
TO_ALL = ("available", "unavailable")
NEWEST = 2000
"""Records of a session, from its newest back, that a search looks at."""
PER_PAGE = 50


async def mark_read(call: Call) -> Any:
    body = await call.raw_body()
    check(body, {"readMessages": "array"}, {})
    ids: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in body["readMessages"]:
        key = key_in({"key": each}, "key")
        if key.get("fromMe") is not True:
            ids[text_of(key, "remoteJid"), text_of(key, "participant")].append(key["id"])
    for (chat, participant), found in ids.items():
        sender = {"sender": jid_of(participant)} if participant else {}
        await ask(call, "POST", "/read", {"chat": chat, "message_ids": found, **sender})
    return json_answer({"message": "Read messages", "read": "success"}, 201)


async def presence(call: Call) -> Any:
    body = await call.raw_body()
    check(body, {"number": "string", "presence": "string", "delay": "integer"}, {})
    state = body["presence"]
    told: dict[str, Any] = {"state": STATES.get(state, state)}
    if state not in TO_ALL:
        told["chat"] = body["number"]
        told["seconds"] = min(max(-(-body["delay"] // 1000), 1), 120)
    await ask(call, "POST", "/presence", told)
    return json_answer({"presence": state}, 201)


async def find(call: Call) -> Json:
    """Newest first, a page of what is kept."""
    body = await call.raw_body()
    check(body, {}, {"where": "object", "page": "integer", "offset": "integer"})
    where = body.get("where") or {}
    size = min(max(body.get("offset") or PER_PAGE, 1), LONGEST_PAGE)
    number = max(body.get("page") or 1, 1)
    instance, found = call.supervisor.view(call.id).instance, []
    states: dict[str, list[str]] = defaultdict(list)
    source = call.parts.wing(CompatPart).messages
    newest = (await source.page(call.id, None, limit=1)).newest
    at, more = max(newest - NEWEST, 0), True
    while more:
        page = await source.page(call.id, at, limit=LONGEST_PAGE)
        for record in page.records:
            if record["kind"] == "message_ack":
                states[record["message_id"]].append(record["state"])
            elif record["kind"] in ("message", "message_reaction"):
                found.append(raw_message(instance, record))
        at, more = page.next, page.more
    matching = [message for message in reversed(found) if _matches(message, where)]
    rows = [
        _row(instance, message, states) for message in matching[(number - 1) * size : number * size]
    ]
    total = len(matching)
    pages = max(-(-total // size), 1)
    shown = {"total": total, "pages": pages, "currentPage": number, "records": rows}
    return {"messages": shown}


def _matches(message: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    key = where.get("key")
    for name, wanted in key.items() if isinstance(key, Mapping) else ():
        other = message["key"].get("remoteJidAlt") if name == "remoteJid" else None
        if wanted not in (message["key"].get(name), other):
            return False
    names = ("messageType", "source")
    return all(message[name] == where[name] for name in names if name in where)


def _row(
    instance: Instance, message: dict[str, Any], states: Mapping[str, list[str]]
) -> dict[str, Any]:
    id = message["key"]["id"]
    del message["status"]
    updates = [{"status": ACKS.get(state, "PENDING")} for state in states.get(id, ())]
    context = {"contextInfo": message.get("contextInfo")}
    return {"id": row_id(instance, id), **message, **context, "MessageUpdate": updates}
