"""Which requests a whaticket-like server understands, and what its `disconnect` does.

There is no one such server: every fork has its own routes, so each can be set by hand.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.engines.remote.answers import segment
from agent.engines.remote.place import flag, text, wrong

_VERBS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_PATH = re.compile(r"/[A-Za-z0-9._~/{}:-]{0,200}")
_OLD_PLACE = re.compile(r":(?:id|whatsappId)\b")
NONE = "none"
"""As a route's setting: this server has none."""


@dataclass(frozen=True, slots=True)
class Route:
    """A verb and a path in which `{id}` stands for the session."""

    verb: str
    path: str

    def at(self, id: str) -> str:
        return self.path.replace("{id}", segment(id)) if "{id}" in self.path else self.path

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


@dataclass(frozen=True, slots=True)
class Contract:
    """One kind of server. A route that is None is not there."""

    list: Route
    state: Route
    start: Route
    """Starts the session with the pairing it has."""
    login: Route = Route("POST", "/auth/login")
    disconnect: Route | None = None
    new_qr: Route | None = None
    """Forgets the pairing and starts for a new one."""
    logout: Route | None = None
    restart: Route | None = None
    """Closes the socket so that the server connects anew; the pairing stays."""
    create: Route | None = None
    send: Route | None = None
    disconnect_keeps_pairing: bool = False
    """False: what it calls disconnect logs out at WhatsApp, so it is never used to repair."""

    @property
    def hang_up(self) -> Route | None:
        """The disconnect that keeps the pairing, if there is one."""
        return self.disconnect if self.disconnect_keeps_pairing else None


_WITHOUT_ID = frozenset({"list", "login", "create", "send"})
_NEEDED = frozenset({"list", "state", "start", "login"})


def adjust(contract: Contract, told: Mapping[str, Any]) -> Contract:
    """The preset with the routes that the settings put in their place."""
    changes: dict[str, Any] = {}
    for name in (field.name for field in fields(contract)):
        key = f"{name}_route"
        if name == "disconnect_keeps_pairing" or not (route := text(told, key).strip()):
            continue
        changes[name] = None if route == NONE else parse_route(route, key, name not in _WITHOUT_ID)
        if changes[name] is None and name in _NEEDED:
            raise wrong(key, "the engine needs this route")
    keeps = contract.disconnect_keeps_pairing
    if told.get("disconnect_keeps_pairing") is not None:
        keeps = flag(told, "disconnect_keeps_pairing", keeps)
    return replace(contract, **changes, disconnect_keeps_pairing=keeps)


def parse_route(route: str, key: str, needs_id: bool) -> Route:
    """`PUT /whatsapp/{id}/disconnect`; `:id` and `:whatsappId` are understood as well."""
    verb, _, path = route.partition(" ")
    path = _OLD_PLACE.sub("{id}", path.strip())
    if verb.upper() not in _VERBS:
        raise wrong(key, "it does not begin with GET, POST, PUT, PATCH or DELETE")
    if not _PATH.fullmatch(path) or ".." in path:
        raise wrong(key, "its path does not begin with / or holds other signs than a path's")
    places = path.count("{id}")
    if places != needs_id or re.search(r"[{}]", path.replace("{id}", "")):
        raise wrong(key, "its path needs {id} once" if needs_id else "its path takes no {id}")
    return Route(verb.upper(), path)
