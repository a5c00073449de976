"""Requests of other machines of the fleet: who may send them, and in whose name.

The bearer opens the routes between machines, and those that are forwarded. A forwarded request
brings its client's name and rights, which are checked here as they were there.
"""

import hmac
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent.api.http.auth import ANONYMOUS, LEVELS, Caller, Right, credentials
from agent.api.http.connection import Connection
from agent.api.http.wrong_tries import WrongTries
from agent.core.fleet.headers import CALLER, SCHEME
from agent.core.model import InstanceId, parse_instance_id
from agent.errors import Forbidden, InvalidRequest, Unauthorized, WaError

if TYPE_CHECKING:
    from agent.api.http.call import Route

_LONGEST_NAME = 200


class FleetGate:
    def __init__(self, bearer: str) -> None:
        """`bearer`: "" = this machine is alone, and no bearer is right."""
        self._bearer = bearer.encode()
        self._wrong = WrongTries("the bearer of a machine")

    def identify(self, request: web.Request, route: "Route") -> Caller | None:
        """The client of a forwarded request; None: another machine did not send this one."""
        shown = credentials(request)
        named = request.headers.getall(CALLER, [])
        if shown is None or shown[0] != SCHEME.lower():
            if named or route.between_machines:
                raise Unauthorized(
                    "cannot accept this without the fleet's bearer: only machines of the fleet"
                    " send it",
                    code="fleet_bearer",
                )
            return None
        self._check(request, shown[1])
        if not named:
            if route.between_machines or route.right is Right.OPEN:
                return ANONYMOUS
            raise _not_forwarded("it names no caller")
        if not route.forwarded:
            raise _not_forwarded("this address is not forwarded between machines")
        if len(named) > 1:
            raise _wrong_caller("it is there twice")
        return read_caller(named[0])

    def _check(self, request: web.Request, token: str) -> None:
        given = token.encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, self._bearer) and self._bearer:
            return  # whatever others of its address sent: sessions depend on it
        connection = request.protocol
        address = (connection.address if isinstance(connection, Connection) else None) or "unknown"
        self._wrong.check(address)
        self._wrong.note(address)
        raise Unauthorized(
            "cannot accept this bearer: it is not that of this machine's fleet",
            code="fleet_bearer",
        )


def show_caller(caller: Caller) -> dict[str, Any]:
    """For the header. An open route's caller has no right, and needs none."""
    level = "" if caller.level is Right.OPEN else caller.level.name.lower()
    return {"name": caller.name, "level": level, "instances": sorted(caller.instances)}


def read_caller(header: str) -> Caller:
    try:
        raw = json.loads(header)
        name, level, ids = raw["name"], raw["level"], raw["instances"]
        through = raw["through"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _wrong_caller("it must be the JSON of a caller") from None
    words = (name, level, through)
    if not all(isinstance(word, str) and _is_plain(word) for word in words) or not through:
        raise _wrong_caller("name, level and through must be short words")
    if level and level not in LEVELS:
        raise _wrong_caller("its level is unknown")
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise _wrong_caller("instances must be a list of ids")
    try:
        instances = frozenset[InstanceId](parse_instance_id(id) for id in ids)
    except WaError:
        raise _wrong_caller("instances must be a list of ids") from None
    return Caller(name, LEVELS.get(level, Right.OPEN), instances, through)


def _is_plain(word: str) -> bool:
    return len(word) <= _LONGEST_NAME and (word.isprintable() or not word)


def _not_forwarded(cause: str) -> Forbidden:
    return Forbidden(
        f"cannot do this with the fleet's bearer: {cause}", field=CALLER, code="fleet_only"
    )


def _wrong_caller(cause: str) -> InvalidRequest:
    return InvalidRequest(f"cannot use the header {CALLER}: {cause}", field=CALLER)
