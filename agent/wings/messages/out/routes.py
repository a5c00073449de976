"""What waits to be sent of an instance, what became of the rest, and how one is taken back."""

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import INTEGER, STRING, Field
from agent.core.model import ID_PATTERN
from agent.wings.messages.out.message import ID_PATTERN as MESSAGE_PATTERN
from agent.wings.messages.out.message import show_message
from agent.wings.messages.out.outbox import Outbox
from agent.wings.messages.out.states import State

OUTBOX = f"/api/instance/{{id:{ID_PATTERN}}}/outbox"
ONE = f"{OUTBOX}/{{message:{MESSAGE_PATTERN}}}"
PAGE = 100
LIST = (
    Field("state", STRING, "only these", choices=tuple(State)),
    Field("before", STRING, "the id of the last one that was seen", least=1, most=200),
    Field("limit", INTEGER, f"most messages, default {PAGE}", least=1, most=500),
)


async def list_messages(call: Call) -> Json:
    call.supervisor.view(call.id)
    outbox, query = call.parts.wing(Outbox), call.query
    limit = query.get("limit", PAGE)
    rows, waits = await outbox.page(call.id, query.get("state", ""), query.get("before", ""), limit)
    return {
        "messages": [show_message(row, waits.get(row.number, "")) for row in rows],
        "outbox": outbox.waiting(call.id),
        "before": rows[-1].id if len(rows) == limit else None,
    }


async def show(call: Call) -> Json:
    call.supervisor.view(call.id)
    outbox = call.parts.wing(Outbox)
    row = await outbox.find(call.id, call.request.match_info["message"])
    return show_message(row, outbox.why(call.id, (row,)).get(row.number, ""))


async def cancel(call: Call) -> Json:
    call.supervisor.view(call.id)
    outbox = call.parts.wing(Outbox)
    return show_message(await outbox.cancel(call.id, call.request.match_info["message"]))


ROUTES = (
    Route(
        "GET",
        OUTBOX,
        Right.OPERATE,
        list_messages,
        "Messages that wait to be sent and what became of the others, newest first",
        query=LIST,
    ),
    Route(
        "GET",
        ONE,
        Right.OPERATE,
        show,
        "One message to send, by its id or by WhatsApp's",
    ),
    Route("DELETE", ONE, Right.OPERATE, cancel, "Cancel a message that was not sent yet", ()),
)
