"""Opens the HTTP interface: its parts, its sockets, the application behind them."""

import asyncio
import os
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from agent.api.app import build_app
from agent.api.http.call import Parts
from agent.api.http.connection import Connection, Entrance
from agent.api.http.guard import host_name
from agent.api.http.sockets import open_sockets, parse_listen
from agent.api.server import PORT_AGAIN, Server
from agent.config.sections import ApiSection
from agent.core.model import Category
from agent.log import bound

log = bound(Category.API)

_MAX_HEADERS = 64
_SHUTDOWN_SECONDS = 15.0


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
    parts.metrics.listeners = lambda: len(parts.listeners)
    opened = open_sockets(
        replace(section, listen=section.listen and (listen or section.listen)),
        socket_path,
        os.environ if environ is None else environ,
    )
    parts.not_listening.update(opened.missing)
    entrance = Entrance(
        head_seconds=section.head_timeout, per_address=section.connections_per_address
    )
    runner = web.AppRunner(
        build_app(parts, _allowed_hosts(section)),
        handle_signals=False,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
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
