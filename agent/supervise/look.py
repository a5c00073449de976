"""One look at an address: the name, the way through the proxy, TLS, and any answer over HTTP.

A network that takes connections and leads nowhere (a captive portal, a dead server behind a live
balancer) would otherwise let all sessions log in in vain. The answer is dropped, and only the
address itself is sent, and to a proxy its own user name and password.

Names are resolved in a few threads of their own: the C library's resolver cannot be interrupted and
takes many seconds where its name servers are away; the agent's end does not wait for these threads.
"""

import asyncio
import os
import socket
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
from aiohappyeyeballs import start_connection
from aiohttp.abc import AbstractResolver, ResolveResult

from agent.core.model import Address
from agent.files import open_plain

LONGEST_FILE = 64
LONGEST_HEADER = 1 << 18
"""Bytes. A site that tells browsers what they may load has headers of many kilobytes."""
MOST_AT_ONCE = 8
MOST_ADDRESSES = 4
APART = 0.25
"""Seconds by which one address of a name is tried before the next."""
SOCKS_PORT = 1080

_asked = threading.BoundedSemaphore(MOST_AT_ONCE)


async def look(address: Address, within: float) -> str:
    """Why it cannot be reached; "" when it can."""
    if address.url.startswith("file:"):
        return await asyncio.to_thread(_look_at_file, unquote(urlsplit(address.url).path))
    try:
        async with asyncio.timeout(within):
            if address.proxy.startswith("socks5:"):
                return await _connect(urlsplit(address.proxy))
            return await _ask(address)
    except TimeoutError:
        return f"no answer in {within:g} s"
    except aiohttp.ClientHttpProxyError as error:
        return f"the proxy answers {error.status}"
    except aiohttp.ClientConnectorCertificateError as error:
        refused = error.certificate_error
        return f"its certificate is refused: {getattr(refused, 'verify_message', refused)}"
    except aiohttp.ClientSSLError:
        return "no TLS with it"
    except aiohttp.ClientConnectorError as error:
        return _cause_of(error.os_error)
    except aiohttp.ServerDisconnectedError:
        return "it closed the connection without an answer"
    except aiohttp.ClientResponseError:
        return "it does not speak HTTP"
    except OSError as error:
        return _cause_of(error)
    except aiohttp.ClientError:
        return "no connection"


async def _connect(proxy: SplitResult) -> str:
    """A proxy that only an engine can speak with is reached once it takes a connection."""
    port = proxy.port or SOCKS_PORT
    infos = [
        (_family_of(it), socket.SOCK_STREAM, 0, "", (it, port))
        for it in await resolve(proxy.hostname or "", port)
    ]
    (await start_connection(infos, happy_eyeballs_delay=APART)).close()
    return ""


async def _ask(address: Address) -> str:
    connector = aiohttp.TCPConnector(resolver=_Resolver(), force_close=True)
    headers = ("User-Agent", "Accept", "Accept-Encoding")
    async with (
        aiohttp.ClientSession(
            connector=connector,
            skip_auto_headers=headers,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            max_headers=4096,
        ) as client,
        client.head(address.url, proxy=address.proxy or None, allow_redirects=False) as answer,
    ):
        by_proxy = address.proxy and answer.status in (407, 502, 503, 504)
        if by_proxy and address.url.startswith("http:"):
            return f"the proxy answers {answer.status}"
    return ""


def _cause_of(error: OSError) -> str:
    if isinstance(error, ConnectionResetError):
        return "the connection was cut"
    if isinstance(error, socket.gaierror):
        again = error.errno == socket.EAI_AGAIN
        return "no name server answers" if again else "its name is not known"
    if error.errno is None:
        return "no connection"
    return (os.strerror(error.errno) or "no connection").lower()


def _look_at_file(path: str) -> str:
    """A stand-in for a network: away until the moment in the file. A worker may change it."""
    with suppress(OSError, ValueError), open_plain(Path(path)) as file:
        if float(file.read(LONGEST_FILE)) > time.time():
            return "its network is away (fault drop)"
    return ""


class _Resolver(AbstractResolver):
    """Names by `resolve`, for a client of aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=it,
                port=port,
                family=_family_of(it),
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for it in await resolve(host, port)
        ]

    async def close(self) -> None:
        pass


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def resolve(host: str, port: int) -> list[str]:
    """Its addresses, at least one; OSError when it has none."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    if not _asked.acquire(blocking=False):
        raise socket.gaierror(socket.EAI_AGAIN, "the name servers do not answer")
    answer = Future[list[str]]()

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))[:MOST_ADDRESSES]
            with suppress(InvalidStateError):  # no session needs it any more
                answer.set_result(found)
        except (OSError, UnicodeError) as error:
            known = isinstance(error, OSError)
            with suppress(InvalidStateError):
                answer.set_exception(error if known else OSError("it is no valid name"))
        finally:
            _asked.release()

    threading.Thread(target=ask, name=f"name of {host}", daemon=True).start()
    return await asyncio.wrap_future(answer)
