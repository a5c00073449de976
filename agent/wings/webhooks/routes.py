"""Webhooks: their progress, refused events, a test event, a try by hand."""

from typing import Any

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json, Route
from agent.core.event_json import wall_text
from agent.core.model import ID_PATTERN
from agent.wings.webhooks.all import Webhooks
from agent.wings.webhooks.view import WebhookView

ONE = f"/api/webhooks/{{name:{ID_PATTERN}}}"


async def list_webhooks(call: Call) -> Json:
    return {"webhooks": [show_webhook(view) for view in call.parts.wing(Webhooks).views()]}


async def test(call: Call) -> Json:
    """200 also without a delivery: the answer has the target's status or the error."""
    trial = await call.parts.wing(Webhooks).test(_name(call))
    return {
        "delivered": trial.delivered,
        "status": trial.status,
        "problem": trial.problem,
        "seconds": round(trial.seconds, 3),
        "said": trial.said,
    }


async def retry(call: Call) -> Json:
    """Answered before the tries; the list of webhooks shows their results."""
    await call.parts.wing(Webhooks).retry(_name(call))
    return {"look": "/api/webhooks"}


def show_webhook(view: WebhookView) -> dict[str, Any]:
    return {
        "name": view.name,
        "url": view.url,
        "state": view.state,
        "circuit": view.circuit,
        "cursor": view.cursor,
        "waiting": view.waiting,
        "oldest": wall_text(view.oldest_wall),
        "problem": view.problem,
        "next_try": wall_text(view.next_try_wall),
        "delivered": wall_text(view.delivered_wall),
        "dead": view.dead,
        "messages": view.messages,
    }


def _name(call: Call) -> str:
    return call.request.match_info["name"]


ROUTES = (
    Route(
        "GET",
        "/api/webhooks",
        Right.READ,
        list_webhooks,
        "The webhooks and their waiting events",
    ),
    Route(
        "POST",
        f"{ONE}/test",
        Right.OPERATE,
        test,
        "Send a webhook a test event now; answers with the target's answer",
        (),
    ),
    Route(
        "POST",
        f"{ONE}/retry",
        Right.OPERATE,
        retry,
        "Close a webhook's circuit and send now",
        (),
        answers=(202,),
    ),
)
