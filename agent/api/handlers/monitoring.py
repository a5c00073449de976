"""How the agent and its instances are: for people, for probes, for Prometheus."""

import asyncio
import gzip
import time
from collections import Counter

from aiohttp import web

from agent.api.http.accept import takes_gzip
from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import STRINGS, Field
from agent.api.present import show_agent, show_verdict
from agent.core.alerts.series import has_given_up, is_wanted
from agent.core.event_json import wall_text
from agent.core.model import ID_PATTERN, Health, parse_instance_id
from agent.core.view import InstanceView

LEAST_GZIP = 1400
"""Bytes: less fits into one packet as it is."""
CHECK = (
    Field("ids", STRINGS, "only these instances; default: all", most=10_000, pattern=ID_PATTERN),
)


async def health(call: Call) -> web.Response:
    views = call.supervisor.views().values()
    status = call.supervisor.status()
    shown = show_agent(status)
    trouble = sorted(view.instance.id for view in views if _is_in_trouble(view))
    word = "sessions_in_trouble" if trouble else "ok"
    return json_answer(
        {
            "status": word if shown["alive"] and shown["ready"] else "not_ready",
            "in_trouble": trouble,
            "agent": {
                **shown,
                "places": dict(call.parts.places),
                "not_listening": call.parts.not_listening,
            },
            "instances": {
                "total": len(views),
                "enabled": sum(view.instance.enabled for view in views),
                "by_status": dict(Counter(view.status.value for view in views)),
                "by_verdict": dict(Counter(view.verdict.health.value for view in views)),
            },
        }
    )


def _is_in_trouble(view: InstanceView) -> bool:
    """It should run, and neither waits for a scan nor is on its way: a person should look."""
    bad = view.verdict.health in (Health.STUCK, Health.CORRUPTED)
    return is_wanted(view) and (bad or has_given_up(view))


async def check_now(call: Call) -> web.Response:
    body = await call.body()
    ids = [parse_instance_id(word) for word in body["ids"]] if "ids" in body else None
    for id in ids or ():
        call.supervisor.view(id)
    found = await call.supervisor.check_now(ids)
    verdicts = found.values()
    return json_answer(
        {
            "checked": len(found),
            "healthy": sum(verdict.healthy for verdict in verdicts),
            "by_verdict": dict(Counter(verdict.health.value for verdict in verdicts)),
            "results": {id: show_verdict(verdict) for id, verdict in sorted(found.items())},
        }
    )


async def check_instance(call: Call) -> web.Response:
    await call.body()
    call.supervisor.view(call.id)
    found = await call.supervisor.check_now([call.id])
    return json_answer({**show_verdict(found[call.id]), "time": wall_text(time.time())})


async def check_database(call: Call) -> web.Response:
    """Reads all of it: seconds for a large one, beside everything else."""
    await call.body()
    found = await call.parts.check_database()
    return json_answer({"good": found == "ok", "found": found})


async def alive(call: Call) -> web.Response:
    status = call.supervisor.status()
    turns = status.is_alive(time.time())
    return json_answer(
        {"alive": turns, "last_pass_age_seconds": status.last_pass_age}, 200 if turns else 503
    )


async def ready(call: Call) -> web.Response:
    status = call.supervisor.status()
    done, total = status.restoring
    return json_answer(
        {
            "ready": status.ready,
            "restoring": {"done": done, "total": total},
            "not_listening": call.parts.not_listening,
        },
        200 if status.ready else 503,
    )


async def metrics(call: Call) -> web.Response:
    text, content_type = call.parts.metrics.render(call.request.headers.get("Accept", ""))
    # Set as a whole: the version parameter is part of the format's name.
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if takes_gzip(call.request.headers.get("Accept-Encoding", "")) and len(text) > LEAST_GZIP:
        # Quickly, and not in the loop: a large scrape takes some milliseconds.
        text = await asyncio.to_thread(gzip.compress, text, compresslevel=1)
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=text, headers=headers)
