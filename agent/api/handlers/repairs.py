"""Repairing: ask for it, set an instance up, see incidents and what repairs came to."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import BOOLEAN, STRING, Field
from agent.api.placement import PLACE, engine_of, only_backend, placed, still_placed
from agent.api.present import show_backend, show_incident, show_instance, show_reconnection
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.model import ID_PATTERN, Instance, parse_instance_id
from agent.engines.catalog import engine_names
from agent.supervise.requests.repairs import RepairResult

DEFAULT_ENGINE = "web"

CLEANUP = (Field("confirm", BOOLEAN, "true = confirm that a pairing may end"),)
SETUP = (
    Field("name", STRING, "name for people", required=True, least=1, most=128),
    Field("instanceName", STRING, "the instance's id", required=True, most=48, pattern=ID_PATTERN),
    Field(
        "engine",
        STRING,
        "engine of a new instance; default: that of the named or only backend"
        f" one, else {DEFAULT_ENGINE}",
        choices=tuple(engine_names()),
    ),
    *PLACE,
)


async def recover(call: Call) -> web.Response:
    await call.body()
    return _answer(await call.supervisor.repairs.try_recover(call.id))


async def cleanup(call: Call) -> web.Response:
    body = await call.body()
    confirmed = body.get("confirm", False)
    repairs = call.supervisor.repairs
    return _answer(await repairs.cleanup_corrupted(call.id, confirmed=confirmed))


async def ensure_healthy(call: Call) -> web.Response:
    await call.body()
    return _answer(await call.supervisor.repairs.ensure_healthy(call.id))


async def force_reconnection(call: Call) -> web.Response:
    await call.body()
    await call.supervisor.repairs.force_reconnection(call.id)
    return json_answer(show_instance(call.supervisor.view(call.id)), 202)


async def reset_circuit_breaker(call: Call) -> web.Response:
    await call.body()
    supervisor = call.supervisor
    backends = {one.name for one in supervisor.backends.views()}
    if call.id in backends and call.id not in supervisor.views():
        return json_answer(show_backend(await supervisor.backends.reset(call.id)))
    await supervisor.repairs.reset_circuit_breaker(call.id)
    return json_answer(show_reconnection(call.supervisor.view(call.id)))


async def reconnection_status(call: Call) -> web.Response:
    views = sorted(call.supervisor.views().items())
    return json_answer(
        {"instances": {id: show_reconnection(v) for id, v in views if call.caller.sees(id)}}
    )


async def set_up(call: Call) -> web.Response:
    """The code is a secret: it stands in the answer and nowhere else."""
    body = await call.body()
    id = parse_instance_id(body["instanceName"])
    known = call.supervisor.views().get(id)
    engine, settings = _place(call, body, known.instance if known else None)
    wanted = Instance(id, engine, True, {"name": body["name"], **settings}, time.time())
    done = await call.supervisor.set_up(wanted)
    return json_answer(
        {
            "instanceName": id,
            "created": done.created,
            "status": "CONNECTED" if done.qr is None else "QR_REQUIRED",
            "qr": None if done.qr is None else done.qr.text,
            "expires_in": None if done.qr is None else round(done.qr.expires_in, 3),
            **_result(done.result),
        }
    )


def _place(
    call: Call, body: Mapping[str, Any], known: Instance | None
) -> tuple[str, Mapping[str, Any]]:
    """Engine and place of what shall be set up; one that exists is where it is."""
    told = {name: body[name] for name in ("backend", "remote") if name in body}
    if known is not None:
        return body.get("engine") or known.engine, still_placed(known, told)
    if not body.get("engine") and not told.get("backend") and (name := only_backend(call)):
        told["backend"] = name
    engine = body.get("engine") or (
        engine_of(call, told["backend"]) if told.get("backend") else DEFAULT_ENGINE
    )
    return engine, placed(engine, told)


async def incidents(call: Call) -> web.Response:
    active = call.supervisor.repairs.incidents()
    return json_answer({"incidents": [show_incident(one) for one in active]})


async def release_incident(call: Call) -> web.Response:
    await call.body()
    group = call.request.match_info["group"]
    call.supervisor.repairs.release_incident(group)
    return json_answer({"released": group})


async def statistics(call: Call) -> web.Response:
    return json_answer(show_statistics(call.supervisor.repairs.statistics()))


def show_statistics(found: RepairStatistics) -> dict[str, Any]:
    return {
        "checked": found.checked,
        "mean_check_seconds": found.mean_check_seconds,
        "repaired": found.repaired,
        "cleaned": found.cleaned,
        "failed": found.failed,
        "mean_seconds_to_repair": found.mean_time_to_repair,
        "success_rate": found.success_rate,
        "interventions": dict(found.interventions),
        "steps": {name: asdict(tally) for name, tally in sorted(found.steps.items())},
    }


def _answer(result: RepairResult) -> web.Response:
    return json_answer(_result(result))


def _result(result: RepairResult) -> Mapping[str, Any]:
    return {
        "healthy": result.healthy,
        "cleaned": result.cleaned,
        "recovered": result.recovered,
        "ending": result.ending,
        "sentence": result.sentence,
    }
