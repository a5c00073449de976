"""Connections to the address of a webhook's URL, refused by the address alone.

The address is checked twice: when the name is resolved, for a clear error, and when the socket is
made, which also covers a name that changes its address and any spelling of an address.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from agent.core.network.addresses import refuse_address

KEPT_OPEN = 3.0
"""Seconds without use after which a connection is closed: many servers close one after five, and a
POST into one that just closed counts as failed."""
_CONNECTIONS = 8
_FIRST = 10
"""Addresses of one name that are checked."""


class AddressDenied(OSError):
    """Nothing is sent to this address."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"nothing is sent to {address}: {why}")


def open_connector(*, private: bool, tls: ssl.SSLContext | None) -> aiohttp.TCPConnector:
    """`private`: allow this machine and private networks."""

    def make_socket(info: Any) -> socket.socket:
        family, kind, protocol, _, place = info
        if why := refuse_address(str(place[0]), private=private):
            raise AddressDenied(str(place[0]), why)
        return socket.socket(family=family, type=kind, proto=protocol)

    connector = aiohttp.TCPConnector(
        ssl=True if tls is None else tls,
        resolver=GuardedResolver(private=private),
        use_dns_cache=False,
        socket_factory=make_socket,
        keepalive_timeout=KEPT_OPEN,
        limit=_CONNECTIONS,
    )
    handler: Any = partial(_HeadFirst, loop=asyncio.get_running_loop())
    connector._factory = handler
    return connector


class _HeadFirst(ResponseHandler):
    """Reads the head of an answer by itself: the library forgets a status of 2xx when more bytes
    than the head announces come with it, as with a 204 that has a body."""

    def data_received(self, data: bytes) -> None:
        head, end, rest = data.partition(b"\r\n\r\n")
        super().data_received(head + end)
        if rest:
            super().data_received(rest)


class GuardedResolver(AbstractResolver):
    """Asks the machine's resolver, and returns the allowed addresses."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._looking: dict[tuple[str, int, int], asyncio.Future[list[Any]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        key = (host, port, int(family))
        if key not in self._looking:
            self._looking[key] = _look_up(host, port, family)
            self._looking[key].add_done_callback(lambda _: self._looking.pop(key, None))
        # A caller that stops waiting must not end it for the other callers.
        addresses = await asyncio.shield(self._looking[key])
        good: list[ResolveResult] = []
        denied: AddressDenied | None = None
        for kind, _, protocol, _, place in addresses[:_FIRST]:
            address = str(place[0])
            if why := refuse_address(address, private=self._private):
                denied = denied or AddressDenied(address, why)
                continue
            good.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if denied is not None and not good:
            raise denied
        return good

    async def close(self) -> None:
        pass


def _look_up(host: str, port: int, family: int) -> asyncio.Future[list[Any]]:
    """In a thread of its own: a resolver may hang for half a minute, and must neither take one of
    the shared threads nor delay the agent's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()
    # Its caller may have gone: the error must not reach the loop's handler.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(addresses: list[Any] | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(addresses or [])

    def work() -> None:
        addresses, failed = None, None
        try:
            addresses = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed = error if isinstance(error, OSError) else OSError("it is not a valid name")
        with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
            loop.call_soon_threadsafe(settle, addresses, failed)

    threading.Thread(target=work, name="webhook name", daemon=True).start()
    return future
