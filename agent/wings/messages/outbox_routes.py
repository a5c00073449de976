"""What waits to be sent of an instance, what became of the rest, and how one is taken back."""

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.api.http.fields import INTEGER, STRING, Field
from agent.core.model import ID_PATTERN
from agent.messages.outcomes import State

MESSAGE_PATTERN = "[A-Za-z0-9._:@=-]{1,200}"
"""Of the outbox ("out_…") or of WhatsApp."""
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
    sending, query = call.parts.sending, call.query
    limit = query.get("limit", PAGE)
    rows = await sending.page(call.id, query.get("state", ""), query.get("before", ""), limit)
    return {
        "messages": rows,
        "outbox": sending.waiting(call.id),
        "before": rows[-1]["id"] if len(rows) == limit else None,
    }


async def show(call: Call) -> Json:
    call.supervisor.view(call.id)
    return await call.parts.sending.show(call.id, call.request.match_info["message"])


async def cancel(call: Call) -> Json:
    call.supervisor.view(call.id)
    return await call.parts.sending.cancel(call.id, call.request.match_info["message"])


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
