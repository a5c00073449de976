"""One shared look for each address: whether it can be reached, and which sessions wait for it.

A session tries only after a good look at the address that it needs; all that need it share the
looks, and there are looks only while one of them wants to try. Looks are believed only where they
work at all: the first time that they fail, one session tries all the same.

A look asks for the name, the way through the proxy, TLS, and any answer over HTTP. A network that
takes connections and leads nowhere (a captive portal, a dead server behind a live balancer) would
otherwise let all sessions log in in vain. The answer is dropped, and only the address itself is
sent, and to a proxy its own user name and password.

Names are resolved in a few threads of their own: the C library's resolver cannot be interrupted and
takes many seconds where its name servers are away; the agent's end does not wait for these threads.
"""

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from agent import files, log
from agent.clock import boot_now, until_next
from agent.core.model import Category, InstanceId, JournalEntry
from agent.core.reasons import NETWORK_CODES, REACHED_CODES, UNREACHABLE
from agent.core.words import Address, counted
from agent.engines.catalog import needed_address
from agent.supervise.facts import Facts, Notes

LONGEST_FILE = 64
LONGEST_HEADER = 1 << 18
"""Bytes of a header. A site that tells browsers what they may load has many kilobytes."""
MOST_AT_ONCE = 8
MOST_ADDRESSES = 4
SOCKS_PORT = 1080

_asked = threading.BoundedSemaphore(MOST_AT_ONCE)


async def look(address: Address, within: float) -> str:
    """Look at an address; return why it cannot be reached; "" = it can."""
    if address.url.startswith("file:"):
        return await asyncio.to_thread(_look_at_file, unquote(urlsplit(address.url).path))
    try:
        async with asyncio.timeout(within):
            if not address.proxy.startswith("socks5:"):
                return await _ask(address)
            # A proxy that only an engine can speak with is reached once it takes a connection.
            proxy = urlsplit(address.proxy)
            port = proxy.port or SOCKS_PORT
            addresses = await resolve(proxy.hostname or "", port)
            _, writer = await asyncio.open_connection(addresses[0], port)
            writer.close()
            return ""
    except TimeoutError:
        return f"no answer in {within:g} s"
    except aiohttp.ClientHttpProxyError as error:
        return f"the proxy answers {error.status}"
    except (aiohttp.ClientError, OSError) as error:
        return cause_of(error)


async def _ask(address: Address) -> str:
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver(), force_close=True),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
            max_headers=4096,
        ) as client,
        # Not HEAD: some answer it with a body, which is no HTTP. This one is not read.
        client.get(address.url, proxy=address.proxy or None, allow_redirects=False) as answer,
    ):
        by_proxy = address.proxy and answer.status in (407, 502, 503, 504)
        if by_proxy and address.url.startswith("http:"):
            return f"the proxy answers {answer.status}"
    return ""


_CAUSES = {
    aiohttp.ClientSSLError: "no TLS with it",
    aiohttp.ServerDisconnectedError: "it closed the connection without an answer",
    aiohttp.ClientResponseError: "it does not speak HTTP",
    ConnectionResetError: "the connection was cut",
    TimeoutError: "no answer in time",
    ValueError: "its answer cannot be read",
}


def cause_of(error: Exception) -> str:
    """Return why a request got no answer; the library's own text may hold the whole URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        refused = error.certificate_error
        return f"its certificate is refused: {getattr(refused, 'verify_message', refused)}"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    for kind, words in _CAUSES.items():
        if isinstance(error, kind) or isinstance(cause, kind):
            return words
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, socket.gaierror):
        return "no name server answers" if number == socket.EAI_AGAIN else "its name is not known"
    if tls := str(cause).partition("[SSL: ")[2].partition("]")[0].replace("_", " ").lower():
        return f"TLS: {tls}"
    return os.strerror(number).lower() if number else "no connection"


def _look_at_file(path: str) -> str:
    """A stand-in for a network: away until the moment in the file. A worker may change it."""
    with suppress(OSError, ValueError), files.open_plain(Path(path)) as file:
        if float(file.read(LONGEST_FILE)) > time.time():
            return "its network is away (fault drop)"
    return ""


class Resolver(AbstractResolver):
    """Resolves names by `resolve`, for a client of aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        rest: Any = {"hostname": host, "port": port, "proto": 0, "flags": socket.AI_NUMERICHOST}
        found: list[Any] = []
        for it in await resolve(host, port):
            own = socket.AF_INET6 if ":" in it else socket.AF_INET
            found.append({**rest, "host": it, "family": own})
        return found

    async def close(self) -> None: ...


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, at least one; OSError when it has none."""
    with suppress(ValueError):
        return [str(ip_address(host))]
    if not _asked.acquire(blocking=False):
        raise socket.gaierror(socket.EAI_AGAIN, "the name servers do not answer")
    answer = Future[list[str]]()
    answer.set_running_or_notify_cancel()  # a caller that gives up leaves it to its thread

    def ask() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.set_result(list(dict.fromkeys(str(row[4][0]) for row in rows))[:MOST_ADDRESSES])
        except (OSError, UnicodeError) as error:
            known = isinstance(error, OSError)
            answer.set_exception(error if known else OSError("it is no valid name"))
        finally:
            _asked.release()

    threading.Thread(target=ask, name=f"name of {host}", daemon=True).start()
    return await asyncio.wrap_future(answer)


LOOK_EVERY, LOOK_TIMEOUT = 2.0, 3.0
"""Seconds from one look that failed to the next; what one may take."""
FRESH = 5.0
"""Seconds for which a good look, or a connection, stays valid."""
FIRST_TRY, NEXT_TRY = 300.0, 3.0
"""Seconds after which one session tries although the looks fail; factor of each next pause."""
UNSEEN_FIRST, UNSEEN_LONGEST = 5.0, 60.0
"""Seconds between two such tries if no look was good yet: looks may not work here at all."""
LOOKS_APART, ASK_AGAIN = 1.0, 5.0
"""Seconds in which many that lose their connection share one look; after which a session that
waits asks by itself, if it is not woken."""

NOWHERE = Address("")
"""Address of sessions that need none: it is never looked at, and never away."""


@dataclass(slots=True, eq=False)
class Reach:
    """One address. Its methods decide: they take the time and what was found."""

    address: Address
    waiting: dict[InstanceId, Facts] = field(default_factory=dict)
    looking: asyncio.Task[None] | None = None
    looked_at: float = float("-inf")
    well_at: float | None = None
    """Boot time at which a look or a connection last showed that the address can be reached."""
    away_since: float | None = None
    """Boot time since which the looks fail; None = they do not."""
    cause: str = ""
    back_at: float | None = None
    """Boot time at which the address could last be reached again."""
    seen: bool = False
    """True if a look was good once: looks work here."""
    looks_ignored: bool = False
    """True if a session connected although the looks failed: looks are ignored until one is
    good."""
    tries: int = 0
    """Tries in spite of failed looks since the address is away."""
    tried_at: float = 0.0

    @property
    def away(self) -> bool:
        return self.away_since is not None and not self.looks_ignored

    @property
    def sentence(self) -> str:
        return f"cannot reach {self.address.name}: {self.cause}" if self.away else ""

    @property
    def next_moment(self) -> float:
        """Boot time before which no session tries, while the address stays away."""
        if self.away_since is None or self.looks_ignored:
            return 0.0
        begun = self.tried_at if self.tries else self.away_since
        if self.seen:
            return begun + FIRST_TRY * NEXT_TRY ** min(self.tries, 16)
        pause = min(UNSEEN_FIRST * 2.0 ** min(self.tries - 1, 16), UNSEEN_LONGEST)
        return begun + (pause if self.tries else 0.0)

    def is_known(self, now: float) -> bool:
        """True if a session need not look before it tries."""
        fresh = self.well_at is not None and 0 <= now - self.well_at <= FRESH
        return fresh or self.away_since is not None or self.address is NOWHERE

    def look_was_good(self, now: float) -> None:
        """Take in a good look: waiting sessions may try at once."""
        if self.away_since is not None:
            self.back_at = now
        self.well_at, self.away_since, self.cause = now, None, ""
        self.seen, self.looks_ignored, self.tries = True, False, 0

    def look_failed(self, cause: str, begun: float) -> None:
        self.away_since = begun if self.away_since is None else self.away_since
        self.cause = cause

    def connected(self, now: float) -> None:
        """Note that a session that needs the address is connected."""
        self.well_at = now
        if self.away_since is not None:
            # The looks fail and the sessions connect: looks from here cannot see this address.
            self.looks_ignored, self.back_at, self.tries = True, now, 0

    def failed(self, code: str, now: float) -> None:
        """Note that a session lost its connection, or that a try of the agent failed."""
        if code in REACHED_CODES:
            self.connected(now)
        elif code in NETWORK_CODES and not self.away:
            self.looks_ignored, self.well_at = False, None  # looks and tries agree again


@dataclass(slots=True, eq=False, repr=False)
class Reaching:
    """Asked before each login; hears of each failure and success."""

    session_root: Path
    wake: Callable[[InstanceId], None]
    notes: Notes
    _all: dict[Address, Reach] = field(init=False, default_factory=dict)
    _of: dict[InstanceId, tuple[object, Reach]] = field(init=False, default_factory=dict)
    """Instance → the settings by which its address was found, and that address."""
    _places: asyncio.Semaphore = field(init=False, default_factory=partial(asyncio.Semaphore, 32))
    """Places for looks at the same time."""

    def wait_reason(self, facts: Facts) -> str:
        """Return the wait reason while the address is away; "" = it is reached, or unknown."""
        reach = self.of(facts)
        if facts.record.past_looks or not reach.away:
            return ""
        reach.waiting[facts.id] = facts
        return UNREACHABLE if boot_now() < reach.next_moment else ""

    def way_out(self, facts: Facts) -> str:
        """Return server and proxy of the session, to compare, not to show: they may hold a
        password."""
        url, proxy = self.of(facts).address
        return "" if not url or url.startswith("file:") else f"{url} {proxy}"

    def ask(self, facts: Facts, now: float) -> float | None:
        """None: the session may try now. A boot time: ask again then, or when it is woken."""
        reach = self.of(facts)
        if facts.record.past_looks:
            return None
        reach.waiting[facts.id] = facts
        if now < reach.next_moment:
            return max(min(reach.next_moment, now + ASK_AGAIN), now + 0.05)
        if not reach.is_known(now):
            self._begin_look(reach)
            return now + LOOK_TIMEOUT + 1.0
        if reach.away:
            reach.tries, reach.tried_at = reach.tries + 1, now
        del reach.waiting[facts.id]
        return None

    def doubt(self, facts: Facts, apart: float = LOOK_EVERY) -> None:
        """The session's engine waits for the network: look whether the address is away. `apart`:
        seconds since the last look."""
        if (reach := self.of(facts)).away or reach.address is NOWHERE:
            return
        reach.waiting[facts.id] = facts
        if boot_now() - reach.looked_at > apart:
            self._begin_look(reach)

    def failed(self, facts: Facts, code: str) -> None:
        """Note a lost connection of the session, or a failed try; its record has counted that."""
        self.of(facts).failed(code, boot_now())
        if code in NETWORK_CODES:
            # Look before its own delay is over: an address that is away costs no attempt.
            self.doubt(facts, LOOKS_APART)

    def succeeded(self, facts: Facts) -> None:
        reach = self.of(facts)
        reach.waiting.pop(facts.id, None)
        was_away = reach.away
        reach.connected(boot_now())
        if was_away:
            log.info("sessions reach %s, although the agent's probes do not", reach.address.name)
            self._tell(reach, back=True)

    def forget(self, id: InstanceId) -> None:
        if (known := self._of.pop(id, None)) is not None:
            known[1].waiting.pop(id, None)

    async def run(self) -> None:
        """Look again at addresses that are away while a session waits for them."""
        try:
            while True:
                away = [it for it in self._all.values() if it.away_since is not None]
                for reach in away:
                    reach.waiting = {id: it for id, it in reach.waiting.items() if _wants(it)}
                    if reach.waiting:
                        self._begin_look(reach)
                await asyncio.sleep(until_next(LOOK_EVERY if away else 2 * LOOK_EVERY))
        finally:
            for reach in self._all.values():
                if reach.looking is not None:
                    reach.looking.cancel()

    def _begin_look(self, reach: Reach) -> None:
        if reach.looking is None:
            reach.looked_at = boot_now()
            name = f"look at {reach.address.name}"
            reach.looking = asyncio.create_task(self._look(reach), name=name)

    async def _look(self, reach: Reach) -> None:
        was_away = reach.away_since is not None
        try:
            async with self._places:
                cause = await look(reach.address, LOOK_TIMEOUT)
        except Exception as error:
            log.exception("cannot probe %s: internal error", reach.address.name)
            cause = f"the probe failed ({type(error).__name__})"
        reach.looking = None
        if cause:
            reach.look_failed(cause, reach.looked_at)
        else:
            reach.look_was_good(boot_now())
        if was_away is not bool(cause):
            self._tell(reach, back=not cause)
        elif not cause:
            self._wake_waiting(reach, done=True)

    def _tell(self, reach: Reach, *, back: bool) -> None:
        name, waiting = reach.address.name, counted(len(reach.waiting), "session")
        said = f"cannot reach {name}: {reach.cause}; its sessions wait"
        if back:
            said = f"this machine reaches {name} again; {waiting} waited"
        if not reach.address.url.startswith("file:"):  # the sandbox's own is worth no line
            kind, tell = ("address_back", log.info) if back else ("address_away", log.warning)
            tell("%s", said)
            self.notes.write(JournalEntry(kind, said, Category.HEALTH, detail={"address": name}))
        self._wake_waiting(reach, done=back)

    def _wake_waiting(self, reach: Reach, *, done: bool) -> None:
        for id in random.sample(list(reach.waiting), len(reach.waiting)):
            self.wake(id)
        if done:
            reach.waiting.clear()

    def of(self, facts: Facts) -> Reach:
        settings = facts.instance.settings
        if (known := self._of.get(facts.id)) is not None and known[0] is settings:
            return known[1]
        self.forget(facts.id)
        folder = self.session_root / facts.id / "session"
        address = needed_address(facts.instance.engine, settings, folder) or NOWHERE
        reach = self._all.setdefault(address, Reach(address))
        self._of[facts.id] = (settings, reach)
        return reach


def _wants(facts: Facts) -> bool:
    """True if the session should run, is not connected, and may try by itself."""
    over = facts.gone or facts.status == "CONNECTED" or facts.ended_by.hopeless
    return facts.should_run and not over
