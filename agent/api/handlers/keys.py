"""The keys: list, make, revoke. A token is shown once."""

from aiohttp import web

from agent.api.http.auth import Right
from agent.api.http.call import Call, Json
from agent.api.http.envelope import created
from agent.api.http.fields import STRING, STRINGS, Field
from agent.api.present import show_key
from agent.core.model import ID_PATTERN

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
    body = await call.body()
    scopes = tuple(dict.fromkeys(body["scopes"]))
    row, token = await call.parts.ring.add(body["name"], scopes)
    return created({**show_key(row, None), "token": token}, f"/api/keys/{row.id}")


async def revoke_key(call: Call) -> Json:
    """Revoke a key."""
    id = call.request.match_info["key"]
    try:
        await call.parts.ring.remove(id)
    finally:  # it opens nothing more, also where the database did not take it
        call.parts.end_listeners_of(id)
    return {"id": id, "revoked": True}
