"""Which requests a whaticket-like server understands, and what its `disconnect` does. Each fork has
its own routes, so each route can be set by hand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.engines.remote.answers import segment

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
    """Closes the socket, so that the server connects again; the pairing stays."""
    create: Route | None = None
    send: Route | None = None
    disconnect_keeps_pairing: bool = False
    """False: what it calls disconnect logs out at WhatsApp, so it is never used to repair."""

    @property
    def hang_up(self) -> Route | None:
        """The disconnect that keeps the pairing, if there is one."""
        return self.disconnect if self.disconnect_keeps_pairing else None


WITHOUT_ID = frozenset({"list", "login", "create", "send"})
_NEEDED = frozenset({"list", "state", "start", "login"})
ROUTES = tuple(field.name for field in fields(Contract) if field.name != "disconnect_keeps_pairing")


def adjust(contract: Contract, routes: Mapping[str, str], keeps_pairing: bool | None) -> Contract:
    """The preset with the routes that the settings name instead ("" = the preset's)."""
    changes: dict[str, Any] = {
        name: parse_route(route) for name, route in routes.items() if route.strip()
    }
    if keeps_pairing is not None:
        changes["disconnect_keeps_pairing"] = keeps_pairing
    return replace(contract, **changes)


def parse_route(route: str) -> Route | None:
    """`PUT /whatsapp/{id}/disconnect`; None for "none"."""
    if route.strip() == NONE:
        return None
    verb, path = _split(route)
    return Route(verb, path)


def route_fault(name: str, route: str) -> str:
    """Why the setting NAME_route cannot be used."""
    if not route.strip():
        return ""
    if route.strip() == NONE:
        return "the engine needs this route" if name in _NEEDED else ""
    verb, path = _split(route)
    if verb not in _VERBS or not _PATH.fullmatch(path) or ".." in path:
        return f'it must be "VERB /path" with GET, POST, PUT, PATCH or DELETE, not {route!r:.80}'
    if path.count("{id}") != (name not in WITHOUT_ID):
        return "its path takes no {id}" if name in WITHOUT_ID else "its path must hold {id} once"
    rest = path.replace("{id}", "")
    return "only {id} may be in { }" if "{" in rest or "}" in rest else ""


def _split(route: str) -> tuple[str, str]:
    """Verb and path; `:id` and `:whatsappId` are understood as {id}."""
    verb, _, path = route.strip().partition(" ")
    return verb.upper(), _OLD_PLACE.sub("{id}", path.strip())


_COMMUNITY = Contract(
    list=Route("GET", "/whatsapp/"),
    state=Route("GET", "/whatsapp/{id}"),
    start=Route("POST", "/whatsappsession/{id}"),
    disconnect=Route("DELETE", "/whatsappsession/{id}"),
    new_qr=Route("PUT", "/whatsappsession/{id}"),
    logout=Route("DELETE", "/whatsappsession/{id}"),
    create=Route("POST", "/whatsapp/"),
    send=Route("POST", "/api/messages/send"),
)

PRESETS: Mapping[str, Contract] = {
    "spec": replace(
        _COMMUNITY,
        start=Route("PUT", "/whatsapp/{id}/start-session"),
        disconnect=Route("PUT", "/whatsapp/{id}/disconnect"),
        disconnect_keeps_pairing=True,
    ),
    "community": _COMMUNITY,
    "saas": _COMMUNITY,
    "ticketz": replace(_COMMUNITY, restart=Route("GET", "/whatsappsession/refresh/{id}")),
}
"""The kinds of servers that are known. In every public one `disconnect` logs out at WhatsApp."""
