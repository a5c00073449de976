"""Backends: what is known of each server, its own list of sessions, and what it calls us for."""

from typing import Any

from aiohttp import web

from agent.api.http.call import Call
from agent.api.http.envelope import json_answer
from agent.api.http.fields import STRING, Field
from agent.api.present import show_backend, show_instance
from agent.core.model import ID_PATTERN, Instance, parse_instance_id

MOST_TOLD = 256 * 1024
"""Bytes of what a server tells at once: written anew it must fit into one frame of the link."""

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


async def list_backends(call: Call) -> web.Response:
    found = sorted(call.supervisor.backends.views(), key=lambda view: view.name)
    return json_answer({"backends": [show_backend(view) for view in found]})


async def show(call: Call) -> web.Response:
    return json_answer(show_backend(call.supervisor.backends.view(_name(call))))


async def sessions(call: Call) -> web.Response:
    """All that the server has; `instance` says which of them is watched, and as what."""
    name = _name(call)
    found = await call.supervisor.backends.sessions(name)
    ours = {one.remote: one.id for one in _instances_on(call, name)}
    listed: list[dict[str, Any]] = [
        {
            "remote": one.name,
            "status": one.status,
            "account": one.account,
            "title": one.title,
            "instance": ours.get(one.name),
        }
        for one in sorted(found, key=lambda one: one.name)
    ]
    missing = sorted(set(ours) - {one.name for one in found})
    return json_answer(
        {
            "backend": name,
            "sessions": listed,
            "missing": [{"remote": remote, "instance": ours[remote]} for remote in missing],
        }
    )


async def adopt(call: Call) -> web.Response:
    body = await call.body()
    name = _name(call)
    wanted = parse_instance_id(body["id"]) if "id" in body else None
    id = await call.supervisor.backends.adopt(name, body["remote"], wanted)
    answer = json_answer(show_instance(call.supervisor.view(id)), 201)
    answer.headers["Location"] = f"/api/instance/{id}"
    return answer


async def check(call: Call) -> web.Response:
    await call.body()
    return json_answer(show_backend(await call.supervisor.backends.check(_name(call))))


async def reset(call: Call) -> web.Response:
    await call.body()
    return json_answer(show_backend(await call.supervisor.backends.reset(_name(call))))


async def hook(call: Call) -> web.Response:
    """A server tells what happened. Its only key is the secret in the address.

    Whoever does not know it gets the answer of an address that does not exist, and gets it
    before his body is read. TryLater (503) makes the server send it again.
    """
    name, secret = _name(call), call.request.match_info["secret"]
    if not call.supervisor.backends.hook_ok(name, secret):
        raise web.HTTPNotFound
    await call.supervisor.backends.hook(name, await call.raw_body(MOST_TOLD))
    return json_answer({"taken": True})


def _name(call: Call) -> str:
    return call.request.match_info["name"]


def _instances_on(call: Call, name: str) -> list[Instance]:
    views = call.supervisor.views().values()
    return [view.instance for view in views if view.instance.backend == name]
