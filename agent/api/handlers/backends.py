"""Backends: their health, and the sessions on their servers."""

import asyncio
import os
from pathlib import Path

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.envelope import created, json_answer
from agent.api.http.fields import STRING, STRINGS, Field
from agent.api.present import show_backend, show_instance
from agent.config.settings_file import add_backend
from agent.core.model import ID_PATTERN, Instance, parse_instance_id
from agent.engines.catalog import remote_engines
from agent.errors import NotFound, Refused

ADOPT = (
    Field("remote", STRING, "its name on the server", required=True, least=1, most=256),
    Field(
        "id",
        STRING,
        "the instance's id; default: made from that name",
        least=1,
        most=48,
        pattern=ID_PATTERN,
    ),
)

NEW = (
    Field("name", STRING, "its name here", required=True, most=48, pattern=ID_PATTERN),
    Field(
        "engine", STRING, "kind of server", required=True, choices=tuple(sorted(remote_engines()))
    ),
    Field("url", STRING, "its address, without a password", required=True, least=1, most=1024),
    Field(
        "key", STRING, "API key of the server; `wa-agent backends add` can name a file", most=1024
    ),
    Field("adopt", STRINGS, "names of its sessions that become instances", most=100),
)
THERE_WITHIN = 10.0
"""Seconds in which the agent takes on a new backend."""


async def list_backends(call: Call) -> Json:
    views = sorted(call.supervisor.backends.views(), key=lambda view: view.name)
    return {"backends": [show_backend(view) for view in views]}


async def show(call: Call) -> Json:
    return show_backend(call.supervisor.backends.view(_name(call)))


async def sessions(call: Call) -> Json:
    """Every session of the server; `instance` names the instance that runs on it."""
    name = _name(call)
    remote = await call.supervisor.backends.sessions(name)
    ours = {instance.remote: instance.id for instance in _instances_on(call, name)}
    missing = sorted(set(ours) - {session.name for session in remote})
    return {
        "backend": name,
        "sessions": [
            {
                "remote": session.name,
                "status": session.status,
                "account": session.account,
                "title": session.title,
                "instance": ours.get(session.name),
            }
            for session in sorted(remote, key=lambda session: session.name)
        ],
        "missing": [{"remote": name, "instance": ours[name]} for name in missing],
    }


async def adopt(call: Call) -> web.Response:
    body = await call.body()
    wanted = parse_instance_id(body["id"]) if "id" in body else None
    id = await call.supervisor.backends.adopt(_name(call), body["remote"], wanted)
    return created(show_instance(call.supervisor.view(id)), f"/api/instance/{id}")


async def add(call: Call) -> web.Response:
    """No path of a file is taken: who has a key must not choose what is read, and sent to a server
    of their choice."""
    body = await call.body()
    name, place = body["name"], call.parts.places.get("config")
    if place is None:
        raise Refused(
            f"cannot add backend {name}: the agent was started without an agent.toml",
            code="no_config",
        )
    await asyncio.to_thread(add_backend, Path(place), body, os.environ)
    call.parts.reload()
    for _ in range(int(THERE_WITHIN / 0.1)):
        try:
            view = call.supervisor.backends.view(name)
        except NotFound:
            await asyncio.sleep(0.1)
        else:
            return created(show_backend(view), f"/api/backends/{name}")
    return json_answer({"name": name, "look": f"/api/backends/{name}"}, 202)


async def reload(call: Call) -> web.Response:
    call.parts.reload()
    return json_answer({"look": "/api/health"}, 202)


async def check(call: Call) -> Json:
    return show_backend(await call.supervisor.backends.check(_name(call)))


async def reset(call: Call) -> Json:
    return show_backend(await call.supervisor.backends.reset(_name(call)))


def _name(call: Call) -> str:
    return call.request.match_info["name"]


def _instances_on(call: Call, name: str) -> list[Instance]:
    views = call.supervisor.views().values()
    return [view.instance for view in views if view.instance.backend == name]
