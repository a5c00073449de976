"""Refuses requests that a foreign web page could make a browser send, and secrets in addresses."""

import socket
from urllib.parse import urlsplit

from aiohttp import web

from agent.config.config import is_loopback
from agent.errors import Forbidden, InvalidRequest

SECRET_PARAMETERS = frozenset(
    {"token", "key", "api_key", "apikey", "access_token", "auth", "authorization", "bearer"}
)


def check_entrance(request: web.Request, allowed_hosts: frozenset[str]) -> None:
    for name in request.rel_url.query:
        if name.lower() in SECRET_PARAMETERS:
            raise InvalidRequest(
                f"cannot take {name!r} from the address, which logs would show;"
                " send 'Authorization: Bearer <key>'",
                field=name,
                code="token_in_query",
            )
    peer = request.transport.get_extra_info("socket") if request.transport else None
    if peer is not None and peer.family != socket.AF_UNIX:
        _check_host(request, allowed_hosts)
    _check_origin(request)


def _check_host(request: web.Request, allowed_hosts: frozenset[str]) -> None:
    """Against DNS rebinding: a foreign name that leads to this machine is refused."""
    hosts = request.headers.getall("Host", [])
    name = host_name(hosts[0]) if len(hosts) == 1 else None
    if name is None:
        raise InvalidRequest("cannot read the Host header", field="Host", code="invalid_host")
    if name in allowed_hosts or is_loopback(name):
        return
    # An address of this machine (not a name) cannot be rebound.
    local = request.transport.get_extra_info("sockname") if request.transport else None
    if local and name == str(local[0]).partition("%")[0]:
        return
    raise Forbidden(
        "cannot answer for this Host: add it to allowed_hosts in [api]",
        field="Host",
        code="host_not_allowed",
    )


def host_name(host: str) -> str | None:
    """The name or address in a Host header, lower case, without port and brackets."""
    try:
        parts = urlsplit("//" + host)
        plain = parts.hostname if parts.netloc == host and parts.username is None else None
        _ = parts.port
    except ValueError:
        return None
    return plain


def _check_origin(request: web.Request) -> None:
    """Against forged requests and foreign WebSockets: only the agent's own pages are answered."""
    origins = request.headers.getall("Origin", [])
    foreign = origins and not (len(origins) == 1 and _same_origin(origins[0], request.host))
    # A browser that leaves Origin out still sends this.
    site = request.headers.get("Sec-Fetch-Site", "none")
    changes = request.method not in ("GET", "HEAD")
    if foreign or (changes and site not in ("none", "same-origin")):
        raise Forbidden(
            "cannot answer a page of another origin", field="Origin", code="origin_not_allowed"
        )


def _same_origin(origin: str, host: str) -> bool:
    scheme, mark, place = origin.partition("://")
    return bool(mark) and scheme in ("http", "https") and place.lower() == host.lower()
