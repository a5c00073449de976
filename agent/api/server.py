"""The HTTP interface: opens its sockets, accepts, tries again for missing ports, closes without a
request dropped."""

import asyncio
import os
import socket
from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from agent.api.app import build_app
from agent.api.http.call import Parts
from agent.api.http.connection import Connection, Entrance
from agent.api.http.guard import host_name
from agent.api.http.live import say_goodbye
from agent.api.http.sockets import (
    BACKLOG,
    Opened,
    bind_tcp,
    describe,
    open_sockets,
    parse_listen,
)
from agent.config.config import ApiSection
from agent.core.model import Category
from agent.errors import ConfigError, TryLater
from agent.log import bound

log = bound(Category.API)

_ASKS_AGAIN = 0.5
"""Seconds in which clients that are connected at the end may ask once more: the answer says that
their connection ends. Closed without that, a request on its way would be lost."""
_UNSENT = 1 << 16
"""Bytes of an answer that the kernel takes before its client has room for them. It would take 4 MB,
and a client that does not read would keep its place until then."""
PORT_AGAIN = 2.0
"""Seconds between two tries to bind a port that another program has."""

_MAX_HEADERS = 64
_SHUTDOWN_SECONDS = 15.0


class Server:
    """The interface while it is open."""

    def __init__(self, parts: Parts, opened: Opened) -> None:
        self.addresses = tuple(opened.addresses)
        """`http://127.0.0.1:8470`, `unix:/run/wa-agent/api.sock`."""
        self._listening: list[asyncio.Server] = []
        self._entrance = Entrance(head_seconds=parts.section.head_timeout)
        self._parts = parts
        self._own_socket = opened.own_socket
        self._runner = web.AppRunner(
            build_app(parts, _allowed_hosts(parts.section)),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_SECONDS,
        )

    def _connect(self) -> Connection:
        assert self._runner.server is not None
        return Connection(
            self._entrance,
            self._runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            max_headers=_MAX_HEADERS,
            lingering_time=2.0,
            auto_decompress=False,
        )

    async def open(self, sockets: Iterable[socket.socket]) -> None:
        await self._runner.setup()
        for sock in sockets:
            await self._listen(sock)

    async def _listen(self, sock: socket.socket) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        # Out of descriptors, asyncio tries (and logs) again as often as its backlog says before
        # it pauses. So it gets 1, and the kernel's queue its length afterwards.
        loop = asyncio.get_running_loop()
        self._listening.append(await loop.create_server(self._connect, sock=sock, backlog=1))
        sock.listen(BACKLOG)

    async def get_missing_ports(self) -> None:
        """Try to bind the ports that another program has, until each is bound."""
        missing = self._parts.not_listening
        while missing:
            await asyncio.sleep(PORT_AGAIN)
            for address in list(missing):
                try:
                    await self._open(address)
                except (TryLater, ConfigError) as error:
                    log.debug("%s", error)
                    continue
                del missing[address]

    async def _open(self, listen: str) -> None:
        """Listen on an address that was not free before."""
        sock = bind_tcp(listen, name_holder=False)
        await self._listen(sock)
        self.addresses += (describe(sock, "http"),)
        log.info("listening on %s", self.addresses[-1])

    def announce_end(self) -> None:
        """Each answer from now on ends its connection: at the close few clients are waited for."""
        self._entrance.closing = True

    async def close(self) -> None:
        """Refuse new connections, answer the open ones, then end, within the runner's limit."""
        self.announce_end()
        await self._stop_accepting()
        self._remove_own_socket()
        if self._entrance.connections:
            await asyncio.sleep(_ASKS_AGAIN)
        await asyncio.gather(
            *(
                say_goodbye(listener, it.transport, "the agent stops")
                for listener, it in list(self._parts.listeners.items())
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
    parts: Parts,
    *,
    socket_path: Path | None = None,
    environ: MutableMapping[str, str] | None = None,
    listen: str = "",
) -> Server:
    """Listen on systemd's sockets, and bind those that it did not pass.

    `socket_path`: the Unix socket if `section.socket` names none; `listen`: the address that
    systemd should have opened, if it is not `section.listen`.
    """
    section = parts.section
    opened = open_sockets(
        replace(section, listen=section.listen and (listen or section.listen)),
        socket_path,
        os.environ if environ is None else environ,
    )
    parts.not_listening.update(opened.missing)
    server = Server(parts, opened)
    await server.open(opened.sockets)
    log.info("listening on %s", ", ".join(opened.addresses) or "nothing")
    for cause in opened.missing.values():
        again = f"the agent tries to bind it every {PORT_AGAIN:g} s"
        log.error("%s; sessions run without it, and %s", cause, again)
    return server


def _allowed_hosts(section: ApiSection) -> frozenset[str]:
    names = set()
    for entry in filter(None, section.allowed_hosts):
        names.add(host_name(entry) or entry.lower())
    if section.listen:
        names.add(parse_listen(section.listen)[0].lower())
    return frozenset(names)
