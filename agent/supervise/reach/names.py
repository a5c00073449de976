"""Resolves names in a few threads of its own. The C library's resolver cannot be interrupted and
takes many seconds where its name servers are away; the agent's end does not wait for these threads.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from ipaddress import ip_address

MOST_AT_ONCE = 8
MOST_ADDRESSES = 4
APART = 0.25
"""Seconds by which one address of a name is tried before the next."""

_asked = threading.BoundedSemaphore(MOST_AT_ONCE)


async def open_connection(
    host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the first of the name's addresses that accepts; OSError when none does."""
    addresses = await resolve(host, port)
    loop = asyncio.get_running_loop()
    tries = [
        loop.create_task(_open(address, port, number * APART))
        for number, address in enumerate(addresses)
    ]
    kept, failure = None, OSError("no address")
    try:
        for done in asyncio.as_completed(tries):
            try:
                kept = await done
                return kept
            except OSError as error:
                failure = error
        raise failure
    finally:
        for task in tries:
            task.cancel()
        for ended in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(ended, tuple) and ended is not kept:
                ended[1].transport.abort()


async def _open(
    address: str, port: int, later: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    await asyncio.sleep(later)
    return await asyncio.open_connection(address, port)


async def resolve(host: str, port: int) -> list[str]:
    """Its addresses, at least one; OSError when it has none."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    if not _asked.acquire(blocking=False):
        raise socket.gaierror(socket.EAI_AGAIN, "the name servers do not answer")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def settle(result: list[str] | OSError) -> None:
        if answer.done():
            return
        if isinstance(result, OSError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def ask() -> None:
        result: list[str] | OSError
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            result = list(dict.fromkeys(str(row[4][0]) for row in rows))[:MOST_ADDRESSES]
        except (OSError, UnicodeError) as error:
            result = error if isinstance(error, OSError) else OSError("it is no valid name")
        finally:
            _asked.release()
        with suppress(RuntimeError):  # the loop is closed: no session needs the answer
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=ask, name=f"name of {host}", daemon=True).start()
    return await answer
