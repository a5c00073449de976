"""One look at an address: the name, the way through the proxy, TLS, and any answer over HTTP.

A network that takes connections and leads nowhere (a captive portal, a dead server behind a live
balancer) would otherwise let all sessions log in in vain. The answer is dropped, and only the
address itself is sent, and to a proxy its own user name and password.

Names are resolved in a few threads of their own: the C library's resolver cannot be interrupted and
takes many seconds where its name servers are away; the agent's end does not wait for these threads.
"""

import asyncio
import base64
import os
import socket
import ssl
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from aiohappyeyeballs import start_connection

from agent.core.model import Address
from agent.files import open_plain

LONGEST_LINE = 4096
LONGEST_FILE = 64
MOST_AT_ONCE = 8
MOST_ADDRESSES = 4
APART = 0.25
"""Seconds by which one address of a name is tried before the next."""
PORTS = {"http": 80, "https": 443, "socks5": 1080}
_SOCKS_FAILURES = dict(
    enumerate(("its rules forbid it", "no network", "no host", "refused", "no answer"), start=2)
)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_asked = threading.BoundedSemaphore(MOST_AT_ONCE)


class _Away(Exception):
    """The address cannot be reached; the text is the cause."""


async def look(address: Address, within: float) -> str:
    """Why it cannot be reached; "" when it can."""
    if address.url.startswith("file:"):
        return await asyncio.to_thread(_look_at_file, unquote(urlsplit(address.url).path))
    try:
        async with asyncio.timeout(within):
            await _ask(urlsplit(address.url), urlsplit(address.proxy) if address.proxy else None)
    except TimeoutError:
        return f"no answer in {within:g} s"
    except _Away as away:
        return str(away)
    except asyncio.IncompleteReadError:
        return "the proxy closed the connection"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except ssl.SSLError:
        return "no TLS with it"
    except OSError as error:
        return _cause_of(error)
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


async def _ask(target: SplitResult, proxy: SplitResult | None) -> None:
    first = proxy or target
    reader, writer = streams = await _open_connection(first.hostname or "", _port(first))
    try:
        host, path = target.netloc, "/"
        if proxy is not None and proxy.scheme == "https":
            await writer.start_tls(_trust(), server_hostname=proxy.hostname)
        if proxy is not None and proxy.scheme == "socks5":
            await _through_socks(streams, target, proxy)
        elif proxy is not None and target.scheme == "https":
            await _through_http(streams, target, proxy)
        elif proxy is not None:
            host, path = f"{host}{_authorization(proxy)}", target.geturl()
        if target.scheme == "https":
            await writer.start_tls(_trust(), server_hostname=target.hostname)
        writer.write(f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status = await _read_status(reader, "it")
        if proxy is not None and target.scheme == "http" and status in (407, 502, 503, 504):
            raise _Away(f"the proxy answers {status}")
    finally:
        writer.close()
        with suppress(OSError):
            writer.transport.abort()


def _credentials(proxy: SplitResult) -> tuple[bytes, bytes] | None:
    if proxy.username is None:
        return None
    # No longer than SOCKS takes them.
    user, password = unquote(proxy.username), unquote(proxy.password or "")
    return user.encode()[:255], password.encode()[:255]


def _authorization(proxy: SplitResult) -> str:
    """The header that a proxy with a password wants, after another one; "" = none."""
    if (credentials := _credentials(proxy)) is None:
        return ""
    return f"\r\nProxy-Authorization: Basic {base64.b64encode(b':'.join(credentials)).decode()}"


async def _through_http(streams: Streams, target: SplitResult, proxy: SplitResult) -> None:
    reader, writer = streams
    host = target.hostname or ""
    to = f"{f'[{host}]' if ':' in host else host}:{_port(target)}"
    head = f"CONNECT {to} HTTP/1.1\r\nHost: {to}{_authorization(proxy)}"
    writer.write(f"{head}\r\n\r\n".encode())
    status = await _read_status(reader, "the proxy")
    if not 200 <= status < 300:
        raise _Away(f"the proxy answers {status}")
    while (await reader.readline()).strip():
        pass


async def _through_socks(streams: Streams, target: SplitResult, proxy: SplitResult) -> None:
    reader, writer = streams
    name = (target.hostname or "").encode("idna")
    credentials = _credentials(proxy)
    writer.write(b"\x05\x01\x00" if credentials is None else b"\x05\x02\x00\x02")
    chosen = await reader.readexactly(2)
    if chosen == b"\x05\x02" and credentials is not None:
        writer.write(b"\x01" + b"".join(bytes([len(each)]) + each for each in credentials))
        if await reader.readexactly(2) != b"\x01\x00":
            raise _Away("the proxy refuses its password")
    elif chosen != b"\x05\x00":
        raise _Away("the proxy wants a password, or another program answers there")
    port = _port(target).to_bytes(2, "big")
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port)
    answer = await reader.readexactly(4)
    if answer[1] != 0:
        raise _Away(f"the proxy says: {_SOCKS_FAILURES.get(answer[1], 'it failed')}")
    size = {1: 4, 4: 16}.get(answer[3])
    if size is None:
        size = (await reader.readexactly(1))[0]
    await reader.readexactly(size + 2)


async def _read_status(reader: asyncio.StreamReader, who: str) -> int:
    try:
        line = await reader.readline()
    except ValueError as error:  # longer than a stream takes
        raise _Away(f"{who} does not speak HTTP") from error
    if not line:
        raise _Away(f"{who} closed the connection without an answer")
    words = line[:LONGEST_LINE].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise _Away(f"{who} does not speak HTTP")
    return int(words[1])


def _port(parts: SplitResult) -> int:
    return parts.port or PORTS[parts.scheme]


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _look_at_file(path: str) -> str:
    """A stand-in for a network: away until the moment in the file. A worker may change it."""
    with suppress(OSError, ValueError), open_plain(Path(path)) as file:
        if float(file.read(LONGEST_FILE)) > time.time():
            return "its network is away (fault drop)"
    return ""


async def _open_connection(host: str, port: int) -> Streams:
    """To the first of the name's addresses that accepts; OSError when none does."""
    infos = [
        (socket.AF_INET6 if ":" in it else socket.AF_INET, socket.SOCK_STREAM, 0, "", (it, port))
        for it in await resolve(host, port)
    ]
    opened = await start_connection(infos, happy_eyeballs_delay=APART)
    return await asyncio.open_connection(sock=opened)


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
