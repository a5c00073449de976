"""The line between the machines of a fleet: copies go over it, sealed, and forwarded requests.

With machine.pem below the state folder it is TLS on both sides, and the name in a certificate says
which machine asks. Without one it is plain HTTP, for loopback addresses alone.
"""

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from agent.config.config import is_loopback, split_address
from agent.core.words import ID_PATTERN, InstanceId
from agent.errors import ConfigError, Refused, TryLater, VaultError, WaError
from agent.fleet.copies.change import LARGEST, Sealed
from agent.fleet.copies.standby import Standby
from agent.log import log
from agent.supervise.reach import cause_of

if TYPE_CHECKING:
    from agent.fleet.joined import Joined

T = TypeVar("T")
Rows = dict[str, dict[str, Any]]
"""Sessions in JSON, as the API shows them."""
LARGEST_BODY = 3 * LARGEST
TAKES, CONNECTS = 5.0, 2.0
"""Seconds for a request, and those of them in which the connection must be made."""
SLOWEST = 1 << 20
"""Bytes a second: a large request or answer has more time."""
NAME = "X-Machine"
"""Header with the name of the machine that asks, where no certificate says it."""
_ID = f"{{id:{ID_PATTERN}}}"
OWNER = "owner"
"""Host header of requests that are forwarded."""


class Taken(msgspec.Struct, frozen=True, array_like=True):
    """A machine's answer to a change."""

    code: str
    """"" = the change is on the disk; else `needs_base`, `older`, `not_owner`, or why it is not."""
    epoch: int = 0
    number: int = 0
    """Number of the newest change that the machine has."""


def tls_of(folder: Path, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> ssl.SSLContext | None:
    """Return TLS with the certificates of the folder; None: there are none."""
    ca, own = folder / "ca.pem", folder / "machine.pem"
    if not (ca.exists() or own.exists()):
        return None
    try:
        made = ssl.create_default_context(purpose, cafile=ca if ca.exists() else None)
        made.verify_mode = ssl.CERT_REQUIRED
        if own.exists():
            made.load_cert_chain(own, own.with_suffix(".key"))
        return made
    except OSError as error:
        why = f"{error.strerror or error}; the agent's user must own them"
        raise ConfigError(f"cannot use the certificates in {folder}: {why}") from error


class Peers:
    def __init__(self, fleet: "Joined", standby: Standby) -> None:
        self._fleet, self._address, self._standby = fleet, fleet.settings.address, standby
        self._own, self._locks = fleet.folder / "machine.pem", dict[str, asyncio.Lock]()
        self._session: aiohttp.ClientSession | None = None
        self.deaf = ""
        """Why this machine does not listen to the others; "" = it does."""

    def _tls(self, purpose: ssl.Purpose) -> ssl.SSLContext | None:
        return tls_of(self._own.parent, purpose) if self._own.exists() else None

    # This machine answers.

    async def run(self) -> None:
        """Listen until it is cancelled."""
        tls = await asyncio.to_thread(self._tls, ssl.Purpose.CLIENT_AUTH)
        host, port = split_address(self._address)
        if tls is None and not is_loopback(host):
            cause = f"{self._own} is missing, and without it only loopback addresses are served"
            raise ConfigError(f"cannot listen on [fleet] address: {cause}", field="fleet.address")
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/copies", self._take)
        app.router.add_get(f"/copies/{_ID}", self._show)
        app.router.add_post(f"/messages/{_ID}", self._messages)
        app.router.add_get("/sessions", self._sessions)
        app.add_domain(OWNER, self._fleet.api())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
            self.deaf = ""
            await asyncio.Event().wait()
        except OSError as error:
            cause = f"{error.strerror or error}; make it free, or change [fleet] address"
            self.deaf = f"cannot listen on {self._address}: {cause}"
            raise TryLater(self.deaf) from error
        finally:
            await runner.cleanup()

    def asks(self, request: web.Request) -> str:
        """Return the machine that asks."""
        if not self._own.exists():
            return request.headers.get(NAME, "")
        found = request.get_extra_info("peercert") or {}  # none once the line was cut
        return next((it[0][1] for it in found.get("subject", ()) if it[0][0] == "commonName"), "")

    def lock(self, id: str) -> asyncio.Lock:
        """Return the lock around each use of the session's copy here."""
        return self._locks.setdefault(id, asyncio.Lock())

    async def _take(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(TAKES + (request.content_length or 0) / SLOWEST):
                changes = msgspec.msgpack.decode(await request.read(), type=list[Sealed])
        except (msgspec.MsgspecError, ValueError, TimeoutError):
            raise web.HTTPBadRequest from None
        return _packed([await self._keep(self.asks(request), it) for it in changes])

    async def _keep(self, peer: str, sealed: Sealed) -> Taken:
        async with self.lock(sealed.id):
            code = "" if peer and self._fleet.elsewhere(sealed.id) == peer else "not_owner"
            try:
                if not code:
                    await asyncio.to_thread(self._standby.take, sealed)
            except WaError as error:
                code = error.code
            return Taken(code, *(self._standby.newest(sealed.id) or (0, 0)))

    async def _show(self, request: web.Request) -> web.Response:
        """Show what is here of a copy; with `?whole=1` all of it."""
        id = InstanceId(request.match_info["id"])
        try:
            async with self.lock(id):
                if request.query.get("whole"):
                    return _packed(await asyncio.to_thread(list, self._standby.read(id)))
                if (newest := self._standby.newest(id)) is not None:
                    return _packed(newest)
        except (VaultError, OSError) as error:
            log.warning("cannot show a copy: %s", error)
        raise web.HTTPNotFound

    async def _messages(self, request: web.Request) -> web.Response:
        """Take messages; if not now, the other machine brings them again."""
        try:
            files = msgspec.msgpack.decode(await request.read(), type=dict[str, bytes])
            await self._fleet.take_messages(InstanceId(request.match_info["id"]), files)
        except msgspec.MsgspecError:
            raise web.HTTPBadRequest from None
        except WaError as error:
            return _packed(error.code)
        return _packed("")

    async def _sessions(self, _: web.Request) -> web.Response:
        return _packed(self._fleet.own())

    # This machine asks. `name`: of the machine at that address, which its certificate must have.

    async def send(self, address: str, name: str, changes: Sequence[Sealed]) -> list[Taken]:
        """Send changes. TryLater: the machine did not answer; it may have taken them."""
        return await self.get(address, name, "/copies", list[Taken], changes)

    async def pass_on(self, address: str, name: str, id: InstanceId, files: Any) -> None:
        if code := await self.get(address, name, f"/messages/{id}", str, files):
            raise TryLater(f"cannot bring the messages of {id} to machine {name} now: {code}")

    async def ask(
        self, address: str, name: str, method: str, path: str, times: Any, **how: Any
    ) -> aiohttp.ClientResponse:
        """Ask a machine; return the answer, of which the head has come."""
        tls = None if self._session else await asyncio.to_thread(self._tls, ssl.Purpose.SERVER_AUTH)
        if self._session is None:
            line = aiohttp.TCPConnector(ssl=tls or True, limit=0)
            self._session = aiohttp.ClientSession(connector=line, headers={NAME: self._fleet.name})
            self._session._retry_connection = False  # the library asks twice for a DELETE
        url = URL(f"{'https' if self._own.exists() else 'http'}://{address}{path}", encoded=True)
        how |= {"allow_redirects": False, "server_hostname": name, "timeout": times}
        try:
            return await self._session.request(method, url, **how)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise _unreached(address, name, error) from error

    async def get(self, address: str, name: str, path: str, kind: type[T], body: Any = None) -> T:
        """Return the whole answer. With a body it is a POST."""
        data = None if body is None else msgspec.msgpack.encode(body)
        much = len(data) if data else LARGEST
        times = aiohttp.ClientTimeout(total=TAKES + much / SLOWEST, sock_connect=CONNECTS)
        method = "GET" if data is None else "POST"
        try:
            async with await self.ask(address, name, method, path, times, data=data) as reply:
                if reply.status == 404:
                    raise Refused(f"machine {name} has no copy of it", code="no_copy")
                if reply.status != 200 or (reply.content_length or 0) > LARGEST_BODY:
                    raise TryLater(f"machine {name} answers {reply.status}")
                return msgspec.msgpack.decode(await reply.read(), type=kind)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreached(address, name, error) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _unreached(address: str, name: str, error: Exception) -> TryLater:
    words = f"cannot reach machine {name} at {address}: {cause_of(error)}"
    return TryLater(words, code="owner_away")


def _packed(found: Any) -> web.Response:
    return web.Response(body=msgspec.msgpack.encode(found))
