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
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from aiohappyeyeballs import start_connection

from agent.core.model import Address

LONGEST_LINE = 4096
LONGEST_FILE = 64
MOST_AT_ONCE = 8
MOST_ADDRESSES = 4
APART = 0.25
"""Seconds by which one address of a name is tried before the next."""
PORTS = {"http": 80, "https": 443, "socks5": 1080}
_SOCKS_FAILURES = {
    2: "its rules forbid it",
    3: "no network there",
    4: "no host there",
    5: "refused there",
    6: "no answer there",
}

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
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused: {error.verify_message}"
    except ssl.SSLError:
        return "no TLS with it"
    except OSError as error:
        return _cause_of(error)
    return ""


def _cause_of(error: OSError) -> str:
    if isinstance(error, ConnectionResetError | asyncio.IncompleteReadError):
        return "the connection was cut"
    if isinstance(error, socket.gaierror):
        again = error.errno == socket.EAI_AGAIN
        return "no name server answers" if again else "its name is not known"
    if error.errno is None:
        return "no connection"
    return (os.strerror(error.errno) or "no connection").lower()


async def _ask(target: SplitResult, proxy: SplitResult | None) -> None:
    first = proxy or target
    reader, writer = await _open_connection(first.hostname or "", _port(first))
    try:
        host, path = target.netloc, "/"
        if proxy is not None and proxy.scheme == "https":
            await writer.start_tls(_trust(), server_hostname=proxy.hostname)
        if proxy is not None and proxy.scheme == "socks5":
            await _through_socks(reader, writer, target, proxy)
        elif proxy is not None and target.scheme == "https":
            await _through_http(reader, writer, target, proxy)
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


async def _through_http(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: SplitResult,
    proxy: SplitResult,
) -> None:
    to = f"{_bracketed(target)}:{_port(target)}"
    head = f"CONNECT {to} HTTP/1.1\r\nHost: {to}{_authorization(proxy)}"
    writer.write(f"{head}\r\n\r\n".encode())
    status = await _read_status(reader, "the proxy")
    if not 200 <= status < 300:
        raise _Away(f"the proxy answers {status}")
    while (await reader.readline()).strip():
        pass


async def _through_socks(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: SplitResult,
    proxy: SplitResult,
) -> None:
    name = (target.hostname or "").encode("idna")
    credentials = _credentials(proxy)
    writer.write(b"\x05\x01\x00" if credentials is None else b"\x05\x02\x00\x02")
    chosen = await _exactly(reader, 2)
    if chosen == b"\x05\x02" and credentials is not None:
        writer.write(b"\x01" + b"".join(bytes([len(each)]) + each for each in credentials))
        if await _exactly(reader, 2) != b"\x01\x00":
            raise _Away("the proxy refuses its password")
    elif chosen != b"\x05\x00":
        raise _Away("the proxy wants a password, or another program answers there")
    port = _port(target).to_bytes(2, "big")
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port)
    answer = await _exactly(reader, 4)
    if answer[1] != 0:
        raise _Away(f"the proxy says: {_SOCKS_FAILURES.get(answer[1], 'it failed')}")
    size = {1: 4, 4: 16}.get(answer[3])
    if size is None:
        size = (await _exactly(reader, 1))[0]
    await _exactly(reader, size + 2)


async def _exactly(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        raise _Away("the proxy closed the connection") from error


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


def _bracketed(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _look_at_file(path: str) -> str:
    """A stand-in for a network: away until the moment in the file. A worker may change it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        until = float(os.read(file, LONGEST_FILE))
    except (OSError, ValueError):
        return ""
    finally:
        os.close(file)
    return "its network is away (fault drop)" if until > time.time() else ""


async def _open_connection(
    host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
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
