"""Engines, keys (a token is shown once) and backends: their health, the sessions on their
servers."""

from operator import attrgetter

from agent.api.http.auth import Right
from agent.api.http.call import Call, Field, Json
from agent.api.present import part, show_backend, show_instance, show_key
from agent.core.words import ID_PATTERN
from agent.engines.catalog import CATALOG, describe_engine

ADOPT = (
    Field("remote", str, "its name on the server", required=True, least=1, most=256),
    Field("id", str, "the instance's id; default: made from that name", pattern=ID_PATTERN),
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
            part(session, "remote=name status account title") | {"instance": ours.get(session.name)}
            for session in sorted(remote, key=attrgetter("name"))
        ],
        "missing": [{"remote": name, "instance": ours[name]} for name in missing],
    }


async def adopt(call: Call) -> Json:
    """Make an instance of a backend's session."""
    remote, wanted = call.body["remote"], call.body.get("id")
    id = await call.supervisor.backends.adopt(_name(call), remote, wanted)
    return show_instance(call.supervisor.view(id))


async def reload(call: Call) -> Json:
    """Let the agent read agent.toml again."""
    call.parts.reload.set()
    return {"look": "/api/health"}


async def check(call: Call) -> Json:
    """Check a backend's server now."""
    return show_backend(await call.supervisor.backends.check(_name(call)))


async def reset(call: Call) -> Json:
    """Close a backend's circuit, so that its sessions try again."""
    return show_backend(await call.supervisor.backends.reset(_name(call)))


def _name(call: Call) -> str:
    return call.request.match_info["name"]


async def list_engines(_call: Call) -> Json:
    """The engines and their settings.

    Each engine of the catalog with its settings, for forms.
    """
    return {"engines": [describe_engine(name) for name in CATALOG]}


# Keys

_SCOPE = f"read|operate|admin|instance:{ID_PATTERN}"
_SCOPES = "read, operate, admin, instance:ID"
NEW_KEY = (
    Field("name", str, "name of the key, such as its program", required=True, least=1, most=64),
    Field("scopes", list, _SCOPES, required=True, least=1, most=100, pattern=_SCOPE),
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


async def add_key(call: Call) -> Json:
    """Make a key."""
    scopes = tuple(dict.fromkeys(call.body["scopes"]))
    row, token = await call.parts.ring.add(call.body["name"], scopes)
    return {**show_key(row, None), "token": token}


async def revoke_key(call: Call) -> Json:
    """Revoke a key, by its id or by a name that no other key has."""
    word = call.request.match_info["key"]
    named = [row.id for row in call.parts.ring.rows() if word in (row.id, row.name)]
    id = named[0] if len(named) == 1 else word
    try:
        await call.parts.ring.remove(id)
    finally:  # it opens nothing more, also where the database did not take it
        call.parts.end_listeners_of(id)
    return {"id": id, "revoked": True}
