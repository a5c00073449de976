"""Takes the messages of a session that came to this machine from the one that had it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.api.http.call import Call, Json
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest, NotFound, TryLater
from agent.failpoint import failpoint
from agent.wings.messages.out.outbox import OPENS_WITHIN, Outbox
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.travel.document import Travelling, read_document

if TYPE_CHECKING:
    from agent.supervise.supervisor import Supervisor
    from agent.wings.messages.out.running import Running

DELETED = "its instance was deleted, and another one of that name was made"


async def take_over(call: Call) -> Json:
    """Those that were not taken, by id: why. All others are on the disk."""
    section = call.parts.section
    async with call.large_body(section.media_limit * 4 // 3 + section.body_limit) as body:
        id = parse_instance_id(str(body.get("instance")))
        documents, cursor = body.get("messages"), body.get("cursor")
        if not isinstance(documents, list):
            raise InvalidRequest("cannot take messages: there is no list of them", field="messages")
        sent = [read_document(each, id) for each in documents]
    running = call.parts.wing(Outbox).running
    refused = await bring(running, call.supervisor, id, sent)
    if isinstance(cursor, int) and not isinstance(cursor, bool):
        store = await running.opened(OPENS_WITHIN)
        if id not in await store.cursors():
            await store.note_acks([], {id: cursor})
    return {"refused": refused}


async def bring(
    running: "Running", sessions: "Supervisor", id: InstanceId, sent: Sequence[Travelling]
) -> dict[str, str]:
    store = await running.opened(OPENS_WITHIN)
    try:
        born_wall = sessions.view(id).instance.created_wall
    except NotFound as error:
        raise TryLater(
            f"cannot take messages of {id}: its session is not on this machine (yet)",
            code="not_owner",
        ) from error
    refused: dict[str, str] = {}
    for each in sent:
        if each.row.born != born_wall:
            refused[each.row.id] = DELETED
            continue
        text, content = each.content
        file = each.row.id if content else ""
        new = NewMessage(replace(each.row, file=file), text)
        if content:
            await asyncio.to_thread(running.files.write, file, content)
        row = await store.bring(new)
        failpoint("outbox_brought")
        if row is not None and row.state is State.ACCEPTED:
            running.add(row, impatient=False)
    return refused
