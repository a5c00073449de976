"""Engines, keys (a token is shown once) and backends: their health, the sessions on their servers,
and where an instance runs: on this machine, or as a session of a backend.

`backend` and `remote` may stand in a body beside `settings` or in them; they are stored as
settings. Supervision checks that they exist."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json
from agent.api.http.envelope import created, json_answer
from agent.api.http.fields import STRING, STRINGS, Field
from agent.api.present import part, show_backend, show_instance, show_key
from agent.core.model import ID_PATTERN, Instance
from agent.core.words import ADOPTED
from agent.engines.catalog import CATALOG, describe_engine, remote_engines
from agent.errors import InvalidRequest, NotFound, Refused

ADOPT = (
    Field("remote", STRING, "its name on the server", required=True, least=1, most=256),
    Field("id", STRING, "the instance's id; default: made from that name", pattern=ID_PATTERN),
)


async def list_backends(call: Call) -> Json:
    """The backends and their health."""
    views = sorted(call.supervisor.backends.views(), key=attrgetter("name"))
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
            for session in sorted(remote, key=attrgetter("name"))
        ],
        "missing": [{"remote": name, "instance": ours[name]} for name in missing],
    }


async def adopt(call: Call) -> web.Response:
    """Make an instance of a backend's session."""
    remote, wanted = call.body["remote"], call.body.get("id")
    id = await call.supervisor.backends.adopt(_name(call), remote, wanted)
    return created(show_instance(call.supervisor.view(id)), f"/api/instance/{id}")


async def reload(call: Call) -> web.Response:
    """Let the agent read agent.toml again."""
    call.parts.reload.set()
    return json_answer({"look": "/api/health"}, 202)


async def check(call: Call) -> Json:
    """Check a backend's server now."""
    return show_backend(await call.supervisor.backends.check(_name(call)))


async def reset(call: Call) -> Json:
    """Close a backend's circuit, so that its sessions try again."""
    return show_backend(await call.supervisor.backends.reset(_name(call)))


def _name(call: Call) -> str:
    return call.request.match_info["name"]


PLACE = (
    Field("backend", STRING, "the [[backend]] that runs it, short for settings.backend", most=48),
    Field("remote", STRING, "its name there, short for settings.remote; default: id", most=256),
)
_PLACE = ("backend", "remote")


async def list_engines(_call: Call) -> Json:
    """The engines and their settings.

    Each engine of the catalog with its settings, for forms.
    """
    return {"engines": [describe_engine(name) for name in CATALOG]}


def placed(engine: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a new instance, with its place in them."""
    settings = {**body.get("settings", {})}
    for name in _PLACE:
        if name in body and settings.setdefault(name, body[name]) != body[name]:
            raise _wrong(name, f"settings.{name} has another value")
    _check_engine(engine, settings)
    return settings


def still_placed(instance: Instance, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Changed settings of an existing instance, which keeps its backend and session."""
    _check_engine(instance.engine, settings)
    present = {
        k: v for k, v in instance.settings.items() if k in (*_PLACE, ADOPTED) and instance.backend
    }
    moved = Instance(instance.id, instance.engine, True, {**present, **settings})
    if (moved.backend, moved.remote) != (instance.backend, instance.remote) and instance.backend:
        raise Refused(
            f"cannot make {instance.id} another session than {instance.remote} on"
            f" {instance.backend}: delete it here (the session there stays) and adopt the other",
            field="settings",
            code="place_is_fixed",
        )
    return dict(moved.settings)


def engine_of(call: Call, backend: str) -> str:
    """The engine of a named backend."""
    try:
        return call.supervisor.backends.view(backend).engine
    except NotFound:
        names = ", ".join(sorted(view.name for view in call.supervisor.backends.views()))
        cause = f"agent.toml declares no [[backend]] {backend!r:.60}; declared: {names or 'none'}"
        raise _wrong("backend", cause, code="unknown_backend") from None


def only_backend(call: Call) -> str:
    """The only backend, for a body with neither engine nor backend; "" = none is declared."""
    names = sorted(view.name for view in call.supervisor.backends.views())
    if len(names) > 1:
        cause = f"missing, name a backend ({', '.join(names)}) or an engine"
        raise _wrong("backend", cause, code="which_backend")
    return names[0] if names else ""


def _check_engine(engine: str, settings: Mapping[str, Any]) -> None:
    if settings.get("backend") and engine not in remote_engines():
        raise _wrong("backend", f"engine {engine} runs on this machine and takes no backend")


def _wrong(name: str, cause: str, *, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"cannot use the field '{name}': {cause}", field=name, code=code)


# Keys

NEW_KEY = (
    Field("name", STRING, "name of the key, such as its program", required=True, least=1, most=64),
    Field(
        "scopes",
        STRINGS,
        "read, operate, admin, instance:ID",
        required=True,
        least=1,
        most=100,
        pattern=f"read|operate|admin|instance:{ID_PATTERN}",
    ),
)


async def show_caller(call: Call) -> Json:
    """The caller's name and rights."""
    caller = call.caller
    level = "" if caller.level is Right.OPEN else caller.level.name.lower()
    return {"name": caller.name, "level": level, "instances": sorted(caller.instances)}


async def list_keys(call: Call) -> Json:
    """List the keys."""
    ring = call.parts.ring
    return {"keys": [show_key(row, ring.used_wall(row.id)) for row in ring.rows()]}


async def add_key(call: Call) -> web.Response:
    """Make a key."""
    scopes = tuple(dict.fromkeys(call.body["scopes"]))
    row, token = await call.parts.ring.add(call.body["name"], scopes)
    return created({**show_key(row, None), "token": token}, f"/api/keys/{row.id}")


async def revoke_key(call: Call) -> Json:
    """Revoke a key."""
    id = call.request.match_info["key"]
    try:
        await call.parts.ring.remove(id)
    finally:  # it opens nothing more, also where the database did not take it
        call.parts.end_listeners_of(id)
    return {"id": id, "revoked": True}
