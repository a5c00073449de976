"""Evolution's routes of instances: their state, the code to scan, the list."""

import asyncio
import time
from typing import Any

from agent.api.http.call import Call, Json
from agent.api.http.envelope import json_answer
from agent.api.http.fields import STRING, Field
from agent.core.event_json import wall_text
from agent.core.model import ConnectionStatus
from agent.core.view import InstanceView
from agent.errors import EngineError, NotFound, Refused
from agent.wings.compat.codes import show_code
from agent.wings.compat.names import instance_uuid, jid_of, state_of
from agent.wings.compat.own_routes import ask

FETCH = tuple(
    Field(name, STRING, "only this one", most=100)
    for name in ("instanceName", "instanceId", "number")
)
CONNECT = (Field("number", STRING, "a phone number: a code to type there", most=64),)
CODE_WITHIN, LOOK_EVERY = 5.0, 0.2
"""Seconds to wait for a code, and between two looks."""
INTEGRATION, CLIENT = "WHATSAPP-BAILEYS", "wa-agent"


async def state(call: Call) -> Json:
    return _state(call.supervisor.view(call.id))


def _state(view: InstanceView) -> dict[str, Any]:
    return {"instance": {"instanceName": view.instance.id, "state": state_of(view.status)}}


async def restart(call: Call) -> Json:
    await ask(call, "POST", "/restart")
    return _state(call.supervisor.view(call.id))


async def connect(call: Call) -> Json:
    """The code as soon as there is one; {"count": 0} says: ask again."""
    view = call.supervisor.view(call.id)
    if view.status is ConnectionStatus.CONNECTED:
        return _state(view)
    if not view.desired.should_run:
        await ask(call, "POST", "/start")
    typed = None
    ends = time.monotonic() + CODE_WITHIN
    while True:
        if call.supervisor.view(call.id).status is ConnectionStatus.CONNECTED:
            return _state(call.supervisor.view(call.id))
        try:
            code = await call.supervisor.asking.qr(call.id)
        except (Refused, EngineError):  # its worker is about to run
            code = None
        if code is not None:
            if "number" in call.query:
                phone = {"phone": call.query["number"]}
                typed = (await ask(call, "POST", "/pairing-code", phone)).get("code")
            shown = await asyncio.to_thread(show_code, code.text)
            return {"pairingCode": typed, **shown, "count": code.number}
        if time.monotonic() > ends:
            return {"count": 0}
        await asyncio.sleep(LOOK_EVERY)


async def fetch(call: Call) -> Any:
    query, views = call.query, sorted(call.supervisor.views().items())
    rows = [_row(view) for id, view in views if call.caller.sees(id)]
    for name, column in (("instanceName", "name"), ("instanceId", "id"), ("number", "number")):
        if name in query:
            rows = [row for row in rows if row[column] == query[name]]
            if not rows and name == "instanceName":
                raise NotFound(f'Instance "{query[name]}" not found', code="no_instance")
    return json_answer(rows)


def _row(view: InstanceView) -> dict[str, Any]:
    instance, owner = view.instance, jid_of(view.record.account)
    id, made = instance_uuid(instance), wall_text(instance.created_wall)
    nothing = ("profileName", "profilePicUrl", "businessId", "token", "disconnectionReasonCode")
    others = ("Chatwoot", "Proxy", "Rabbitmq", "Nats", "Sqs", "Websocket")
    never = ("rejectCall", "groupsIgnore", "alwaysOnline", "readMessages", "readStatus")
    settings = {"id": id, "msgCall": "", "wavoipToken": "", "syncFullHistory": False}
    dates = {"createdAt": made, "updatedAt": wall_text(view.status_since_wall) or made}
    return {
        "id": id,
        "name": instance.id,
        "connectionStatus": state_of(view.status),
        "ownerJid": owner or None,
        **dict.fromkeys(nothing),
        "number": owner.partition("@")[0] or None,
        "integration": INTEGRATION,
        "clientName": CLIENT,
        "disconnectionObject": None,
        "disconnectionAt": None,
        **dates,
        **dict.fromkeys(others),
        "Setting": {**settings, **dict.fromkeys(never, False), "instanceId": id, **dates},
    }
