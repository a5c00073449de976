"""Repairs by hand, setting an instance up, incidents, and the statistics of repairs."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from agent.api.handlers.instances import PLACE, placed, still_placed
from agent.api.http.auth import Right, require
from agent.api.http.call import CONFIRM_PASSKEY, Answer, Call, Field, Json, look_at
from agent.api.present import part, show_backend, show_incident, show_instance, show_reconnection
from agent.core.model import Instance, UnitState
from agent.core.recovery.repair import Goal
from agent.core.words import ID_PATTERN, ConnectionStatus, parse_instance_id
from agent.engines.catalog import engine_names
from agent.errors import InvalidRequest
from agent.supervise.orders import GOES_ON, in_time

_UP = Field("wait", int, "seconds to wait for CONNECTED or QR_REQUIRED", most=300)
_DOWN = Field("wait", int, "seconds to wait until it is closed", most=300)
UP, DOWN = {"query": (_UP,)}, {"query": (_DOWN,)}


async def disconnect(call: Call) -> Json:
    """Stop an instance and keep its pairing.

    The session is closed and keeps its pairing; it stays closed until a start.
    """
    await call.supervisor.orders.stop(call.id)
    return await _as_it_is(call, up=False)


async def start_session(call: Call) -> Json:
    """Start an instance."""
    await call.supervisor.orders.start(call.id)
    return await _as_it_is(call, up=True)


async def _as_it_is(call: Call, *, up: bool) -> Json:
    """After the time the answer has the present status; that is no error."""
    deadline = time.monotonic() + call.query.get("wait", 0)
    if "wait" in call.query:
        # After this check a stop or start that was under way is over and seen.
        await in_time(call.supervisor.repairs.check_now([call.id]), deadline)
    while True:
        view = call.view
        arrived = view.status in (ConnectionStatus.CONNECTED, ConnectionStatus.QR_REQUIRED)
        if not up:
            at_rest = view.unit.state in (UnitState.INACTIVE, UnitState.FAILED)
            arrived = at_rest and view.status is not ConnectionStatus.CONNECTED
        if arrived or time.monotonic() >= deadline:
            return {"status": view.status.value, **show_instance(view)}
        await asyncio.sleep(0.2)


DEFAULT_ENGINE = "web"

_ENGINE = "engine of a new instance; default: the named or only backend's, else " + DEFAULT_ENGINE
CONFIRM = (Field("confirm", bool, "true = confirm that a pairing may end"), CONFIRM_PASSKEY)
SETUP = (
    Field("name", str, "name for people", required=True, least=1, most=128),
    Field("instanceName", str, "the instance's id", required=True, most=48, pattern=ID_PATTERN),
    Field("engine", str, _ENGINE, choices=tuple(engine_names())),
    *PLACE,
    *CONFIRM,
)


async def recover(call: Call) -> Answer:
    """Repair an instance and keep its pairing."""
    return await _repair(call, Goal.RECOVER)


async def cleanup(call: Call) -> Answer:
    """Retire an instance's session and show a new code."""
    return await _repair(call, Goal.CLEANUP, **call.confirmed)


async def ensure_healthy(call: Call) -> Answer:
    """Check, recover, clean up, until it is connected or shows a code."""
    return await _repair(call, Goal.WORKING_QR, **call.confirmed)


async def _repair(call: Call, goal: Goal, **word: Any) -> Answer:
    answer = await call.supervisor.repairs.until(goal, call.id, wait=call.wait, **word)
    goes_on = answer["ending"] == GOES_ON
    return (202, {**answer, "look": look_at(call.id)}) if goes_on else answer


async def force_reconnection(call: Call) -> Json:
    """Connect an instance now, without waiting for its next attempt."""
    await call.supervisor.repairs.force_reconnection(call.id)
    return show_instance(call.view)


async def reset_circuit_breaker(call: Call) -> Json:
    """Close the circuit of an instance, or of the backend of that name."""
    supervisor, name = call.supervisor, call.request.match_info["id"]
    if name in {view.name for view in supervisor.backends.views()} - {*supervisor.views()}:
        require(call.caller, Right.OPERATE, None)  # a key of an instance has no right to a backend
        return show_backend(await supervisor.backends.reset(name))
    await supervisor.repairs.reset_circuit_breaker(call.id)
    return show_reconnection(call.view)


async def reconnection_status(call: Call) -> Json:
    """Attempts, times of the next ones, and circuits."""
    views = sorted(call.supervisor.views().items())
    return {"instances": {id: show_reconnection(v) for id, v in views if call.caller.sees(id)}}


async def set_up(call: Call) -> Answer:
    """Create or repair an instance; a code to scan or CONNECTED.

    The code is a secret: it stands in the answer and nowhere else.
    """
    body = call.body
    id = parse_instance_id(body["instanceName"])
    existing = call.supervisor.views().get(id)
    engine, settings = _place(call, body, existing.instance if existing else None)
    wanted = Instance(id, engine, True, {"name": body["name"], **settings}, time.time())
    made = await call.supervisor.repairs.set_up(wanted, wait=call.wait, **call.confirmed)
    status = "CONNECTED" if made.qr is None else "QR_REQUIRED"
    if made.goes_on:
        status = call.supervisor.view(id).status.value
    answer = {
        "instanceName": id,
        "created": made.created,
        "status": status,
        "qr": None if made.qr is None else made.qr.text,
        "expires_in": None if made.qr is None else round(made.qr.expires_in, 3),
        **made.result,
    }
    return (202, {**answer, "look": look_at(id)}) if made.goes_on else answer


def _place(
    call: Call, body: Mapping[str, Any], existing: Instance | None
) -> tuple[str, Mapping[str, Any]]:
    """Engine and settings of the instance; an existing one keeps its backend and session."""
    place = {name: body[name] for name in ("backend", "remote") if name in body}
    engine, backend = body.get("engine"), place.get("backend")
    if existing is not None:
        return engine or existing.engine, still_placed(existing, place)
    engines = {its.name: its.engine for its in call.supervisor.backends.views()}
    names, code = ", ".join(sorted(engines)), ""
    if not (engine or backend) and engines:  # the only one
        place["backend"] = backend = names
        code = "which_backend" if len(engines) > 1 else ""
        cause = f"missing, name a backend ({names}) or an engine"
    elif not engine and backend and backend not in engines:
        code = "unknown_backend"
        cause = f"agent.toml declares no [[backend]] {backend!r:.60}; declared: {names or 'none'}"
    if code:
        raise InvalidRequest(f"cannot use the field 'backend': {cause}", field="backend", code=code)
    return engine or engines.get(backend or "", DEFAULT_ENGINE), placed(place)


async def incidents(call: Call) -> Json:
    """Failures that many instances have in common."""
    active = call.supervisor.repairs.active_incidents()
    return {"incidents": [show_incident(incident) for incident in active]}


async def release_incident(call: Call) -> Json:
    """Let the members of an incident try again."""
    group = call.request.match_info["group"]
    call.supervisor.repairs.release_incident(group)
    return {"released": group}


async def statistics(call: Call) -> Json:
    """Counts and times of checks and repairs."""
    totals = call.supervisor.registry.statistics
    steps: dict[str, dict[str, int]] = {}
    for session in call.supervisor.views().values():
        for (step, result), count in session.counters.repair_steps.items():
            steps.setdefault(step, {"done": 0, "failed": 0})[result] += count
    counts = "since_wall checked repaired cleaned failed success_rate interventions"
    mean = "mean_check_seconds mean_seconds_to_repair=mean_time_to_repair"
    return {**part(totals, f"{counts} {mean}"), "steps": steps}
