"""Webhooks: how far each has come, what it refused, and what an operator may ask of it."""

from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.core.event_json import wall_text
from agent.core.webhook import DeadLetter, WebhookView


async def list_webhooks(call: Call) -> web.Response:
    return json_answer({"webhooks": [show_webhook(one) for one in call.parts.webhooks.views()]})


async def test(call: Call) -> web.Response:
    """200 also when it was not delivered: the answer says what came back."""
    await call.body()
    found = await call.parts.webhooks.test(_name(call))
    return json_answer(
        {
            "delivered": found.delivered,
            "status": found.status,
            "problem": found.problem,
            "seconds": round(found.seconds, 3),
            "said": found.said,
        }
    )


async def dead(call: Call) -> web.Response:
    found = call.parts.webhooks.dead(_name(call))
    return json_answer({"dead": [show_dead(one) for one in found]})


async def retry(call: Call) -> web.Response:
    """202: its courier goes on at once, and what comes of it is seen in the list."""
    await call.body()
    return json_answer({"dead": await call.parts.webhooks.retry(_name(call))}, 202)


def show_webhook(view: WebhookView) -> dict[str, Any]:
    return {
        "name": view.name,
        "url": view.url,
        "state": view.state.value,
        "circuit": view.circuit.value,
        "cursor": view.cursor,
        "waiting": view.waiting,
        "oldest": wall_text(view.oldest_wall),
        "problem": view.problem,
        "next_try": wall_text(view.next_try_wall),
        "delivered": wall_text(view.delivered_wall),
        "dead": view.dead,
    }


def show_dead(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.cursor,
        "kind": letter.kind,
        "instance": letter.instance,
        "time": wall_text(letter.wall),
        "problem": letter.problem,
        "put_aside": wall_text(letter.at_wall),
    }


def _name(call: Call) -> str:
    return call.request.match_info["name"]
