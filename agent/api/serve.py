"""Opens the HTTP interface, and closes it without dropping requests in flight."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from agent.api.app import build_app
from agent.api.handlers.events import say_goodbye
from agent.api.http.auth import KeyRing
from agent.api.http.call import Parts
from agent.api.http.certificate import Certificate, FleetAddress
from agent.api.http.connection import Connection, Entrance
from agent.api.http.fleet_gate import FleetGate
from agent.api.http.guard import host_name
from agent.api.http.idempotency import Remembered
from agent.api.http.places import Places
from agent.api.http.sockets import (
    BACKLOG,
    bind_tcp,
    bind_unix,
    describe,
    parse_listen,
    take_sockets,
)
from agent.config.sections import ApiSection
from agent.core.alerts import AlertBoard
from agent.core.model import Category
from agent.deliver.webhooks.all import Webhooks
from agent.errors import ConfigError, TryLater
from agent.log import bound
from agent.metrics.exporter import Exporter
from agent.store.database import Store
from agent.supervise.requests.evidence import Evidence
from agent.supervise.supervisor import Supervisor

if TYPE_CHECKING:
    from agent.api.fleet.face import FleetFace

log = bound(Category.API)

_MAX_HEADERS = 64
_HANDSHAKE_SECONDS = 5.0
_GRACE_FOR_UNHEARD = 2.0
_PORT_AGAIN = 2.0
"""Seconds between two tries to bind a port that another program has."""


class Server:
    """The interface while it is open."""

    def __init__(
        self,
        *,
        runner: web.AppRunner,
        connect: Callable[[], Connection],
        opened: "Opened",
        entrance: Entrance,
        parts: Parts,
    ) -> None:
        self.addresses = tuple(opened.addresses)
        """`http://127.0.0.1:8470`, `unix:/run/wa-agent/api.sock`."""
        self._runner = runner
        self._connect = connect
        self._listening: list[asyncio.Server] = []
        self._entrance = entrance
        self._parts = parts
        self._own_socket = opened.own_socket
        self._fleet: FleetAddress | None = None
        self._certificate: Certificate | None = None
        self.routes = opened.routes
        """The kernel's messages about routes, if systemd passed that socket."""

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        # Out of descriptors, asyncio tries (and logs) again as often as its backlog says before
        # it pauses. So it gets 1, and the kernel's queue its length afterwards.
        loop = asyncio.get_running_loop()
        handshake = None if tls is None else _HANDSHAKE_SECONDS
        self._listening.append(
            await loop.create_server(
                self._connect, sock=sock, backlog=1, ssl=tls, ssl_handshake_timeout=handshake
            )
        )
        sock.listen(BACKLOG)

    async def get_missing_ports(self) -> None:
        """Try to bind the ports that another program has, until each is bound."""
        missing = self._parts.not_listening
        while missing:
            await asyncio.sleep(_PORT_AGAIN)
            for address in list(missing):
                try:
                    await self._open(address)
                except (TryLater, ConfigError) as error:
                    log.debug("%s", error)
                    continue
                del missing[address]

    async def listen_for_fleet(self, address: FleetAddress) -> None:
        """The further address at which other machines call this one, on the same application."""
        self._fleet = address
        try:
            await self._open(address.listen)
        except (TryLater, ConfigError) as error:  # sessions run without it
            self._parts.not_listening[address.listen] = str(error)
            log.error("%s; the agent tries again every %g s", error, _PORT_AGAIN)

    async def _open(self, listen: str) -> None:
        """Listen on an address that was not free before, or is for the fleet."""
        if self._fleet is None or listen != self._fleet.listen:
            sock, tls = bind_tcp(listen, name_holder=False), None
        else:
            self._certificate = Certificate.of(self._fleet)
            sock = bind_tcp(listen, field="fleet.listen", name_holder=False)
            tls = self._certificate.context if self._certificate else None
        await self.listen(sock, tls)
        self.addresses += (describe(sock, "https" if tls else "http"),)
        log.info("listening on %s", self.addresses[-1])

    def reload_certificate(self) -> None:
        """Read the fleet's certificate files again, for connections made from now on."""
        if self._certificate is not None:
            self._certificate.read()
        if self._parts.fleet is not None:
            self._parts.fleet.face.peers.reload()

    async def close(self) -> None:
        """Refuse new connections, answer the open ones, then end, within the runner's limit."""
        await self._stop_accepting()
        self._remove_own_socket()
        await self._hear_the_last()
        await asyncio.gather(
            *(
                say_goodbye(listener, transport, "the agent stops")
                for listener, transport in list(self._parts.listeners.items())
            ),
            return_exceptions=True,
        )
        await self._runner.cleanup()
        self._parts.audit.close()

    async def _stop_accepting(self) -> None:
        """Stop accepting, let the loop turn, then stop listening.

        Closed between the accept and the making of a connection, a server resets that client
        (asyncio asserts that the server is open), whose request must be answered.
        """
        loop = asyncio.get_running_loop()
        for server in self._listening:
            for sock in server.sockets:
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0.01)
        for server in self._listening:
            server.close()

    async def _hear_the_last(self) -> None:
        """Wait for requests of clients that were accepted a moment ago."""
        loop = asyncio.get_running_loop()
        deadline, calm = loop.time() + _GRACE_FOR_UNHEARD, 0
        # Several times: an accepted socket may not be a connection yet.
        while loop.time() < deadline and calm < 5:
            unheard = any(connection.unheard for connection in self._entrance.connections)
            calm = 0 if unheard else calm + 1
            await asyncio.sleep(0.01)

    def _remove_own_socket(self) -> None:
        if self._own_socket is None:
            return
        path, inode = self._own_socket
        try:
            if path.lstat().st_ino == inode:
                path.unlink()
        except OSError:
            pass  # it is gone, or another agent's


async def serve(
    section: ApiSection,
    supervisor: Supervisor,
    store: Store,
    metrics: Exporter,
    *,
    socket_path: Path | None = None,
    environ: MutableMapping[str, str] | None = None,
    shutdown_seconds: float = 15.0,
    alerts: Callable[[], AlertBoard],
    webhooks: Webhooks,
    evidence: Evidence,
    places: Mapping[str, str],
    listen: str = "",
    fleet: "FleetFace | None" = None,
    fleet_address: FleetAddress | None = None,
) -> Server:
    """Listen on systemd's sockets, and bind those that it did not pass.

    `socket_path`: the Unix socket if `section.socket` names none; `listen`: the address that
    systemd should have opened, if it is not `section.listen`.
    """
    ring = await KeyRing.open(store)
    parts = Parts(
        section,
        supervisor,
        ring,
        metrics,
        Remembered(store),
        store.check,
        alerts,
        webhooks,
        evidence,
        places,
    )
    if fleet is not None:
        from agent.api.fleet.door import FleetDoor

        parts = replace(parts, fleet=FleetDoor(fleet), gate=FleetGate(fleet.bearer))
    metrics.listeners = lambda: len(parts.listeners)
    opened = _open_sockets(
        replace(section, listen=section.listen and (listen or section.listen)),
        socket_path,
        os.environ if environ is None else environ,
    )
    parts.not_listening.update(opened.missing)
    entrance = Entrance(
        head_seconds=section.head_timeout,
        places=Places(
            per_address=section.connections_per_address,
            heads_per_address=max(section.connections_per_address // 2, 1),
        ),
    )
    runner = web.AppRunner(
        build_app(parts, _allowed_hosts(section, fleet_address)),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=shutdown_seconds,
    )
    await runner.setup()
    inner = runner.server
    assert inner is not None
    loop = asyncio.get_running_loop()

    def connect() -> Connection:
        return Connection(
            entrance,
            inner,
            loop=loop,
            access_log=None,
            max_headers=_MAX_HEADERS,
            lingering_time=2.0,
            auto_decompress=False,
        )

    server = Server(runner=runner, connect=connect, opened=opened, entrance=entrance, parts=parts)
    for sock in opened.sockets:
        await server.listen(sock)
    log.info("listening on %s", ", ".join(opened.addresses) or "nothing")
    if fleet_address is not None and fleet_address.listen:
        await server.listen_for_fleet(fleet_address)
    for cause in opened.missing.values():
        again = f"the agent tries to bind it every {_PORT_AGAIN:g} s"
        log.error("%s; sessions run without it, and %s", cause, again)
    return server


@dataclass(slots=True)
class Opened:
    """The sockets, their addresses, and the Unix socket's file, which the agent removes."""

    sockets: list[socket.socket] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    own_socket: tuple[Path, int] | None = None
    routes: socket.socket | None = None
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, sock: socket.socket, address: str = "") -> None:
        self.sockets.append(sock)
        self.addresses.append(address or describe(sock))


def _open_sockets(
    section: ApiSection, socket_path: Path | None, environ: MutableMapping[str, str]
) -> Opened:
    opened = Opened()
    for sock in take_sockets(environ, os.getpid()):
        if sock.family == socket.AF_NETLINK:
            opened.routes = sock
        else:
            opened.add(sock)
    families = {sock.family for sock in opened.sockets}
    try:
        if section.listen and not families & {socket.AF_INET, socket.AF_INET6}:
            try:
                opened.add(bind_tcp(section.listen))
            except TryLater as error:  # sessions run without it
                opened.missing[section.listen] = str(error)
        path = Path(section.socket) if section.socket else socket_path
        if path is not None and socket.AF_UNIX not in families:
            opened.add(bind_unix(path), f"unix:{path}")
            opened.own_socket = (path, path.lstat().st_ino)
    except BaseException:
        for sock in opened.sockets:
            sock.close()
        raise
    return opened


def _allowed_hosts(section: ApiSection, fleet: FleetAddress | None) -> frozenset[str]:
    names = set()
    if fleet is not None and fleet.listen:
        others = fleet.reached_at.partition("://")[2]
        names = {host_name(others) or "", parse_listen(fleet.listen)[0].lower()}
    public = section.public_url.partition("://")[2]
    for entry in filter(None, (*section.allowed_hosts, public)):
        names.add(host_name(entry) or entry.lower())
    if section.listen:
        names.add(parse_listen(section.listen)[0].lower())
    return frozenset(names)
