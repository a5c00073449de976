"""Backends: their health, and the sessions on their servers."""

from aiohttp import web

from agent.api.http.call import Call, Json
from agent.api.http.envelope import created, json_answer
from agent.api.http.fields import STRING, Field
from agent.api.present import part, show_backend, show_instance
from agent.core.model import ID_PATTERN, parse_instance_id

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


async def list_backends(call: Call) -> Json:
    """The backends and their health."""
    views = sorted(call.supervisor.backends.views(), key=lambda view: view.name)
    return {"backends": [show_backend(view) for view in views]}


async def show(call: Call) -> Json:
    """One backend."""
    return show_backend(call.supervisor.backends.view(_name(call)))


async def sessions(call: Call) -> Json:
    """A backend's sessions and the instances made of them.

    Every session of the server; `instance` names the instance that runs on it.
    """
    name = _name(call)
    remote = await call.supervisor.backends.sessions(name)
    instances = [view.instance for view in call.supervisor.views().values()]
    ours = {instance.remote: instance.id for instance in instances if instance.backend == name}
    missing = sorted(set(ours) - {session.name for session in remote})
    return {
        "backend": name,
        "sessions": [
            {
                **part(session, "remote=name", "status", "account", "title"),
                "instance": ours.get(session.name),
            }
            for session in sorted(remote, key=lambda session: session.name)
        ],
        "missing": [{"remote": name, "instance": ours[name]} for name in missing],
    }


async def adopt(call: Call) -> web.Response:
    """Make an instance of a backend's session."""
    body = await call.body()
    wanted = parse_instance_id(body["id"]) if "id" in body else None
    id = await call.supervisor.backends.adopt(_name(call), body["remote"], wanted)
    return created(show_instance(call.supervisor.view(id)), f"/api/instance/{id}")


async def reload(call: Call) -> web.Response:
    """Let the agent read agent.toml again."""
    call.parts.reload()
    return json_answer({"look": "/api/health"}, 202)


async def check(call: Call) -> Json:
    """Check a backend's server now."""
    return show_backend(await call.supervisor.backends.check(_name(call)))


async def reset(call: Call) -> Json:
    """Close a backend's circuit, so that its sessions try again."""
    return show_backend(await call.supervisor.backends.reset(_name(call)))


def _name(call: Call) -> str:
    return call.request.match_info["name"]
