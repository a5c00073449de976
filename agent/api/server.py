"""The HTTP interface: takes its sockets from systemd or binds them, accepts, tries again for
missing ports, closes without a request dropped. Each route of the table stands behind the checks
that every request passes, and within a time: an order goes on after its answer; of a question the
answer is lost."""

import asyncio
import errno
import os
import secrets
import socket
import stat
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from agent.api.http import auth, connection
from agent.api.http.call import Answer, Call, Json, Parts, Route, look_at, plain_path, read_call
from agent.api.present import HEADERS, json_answer, library_refusal, refusal, show_instance
from agent.api.routes import ROUTES
from agent.config.config import is_loopback, split_address
from agent.core import model, setting
from agent.errors import ConfigError, Forbidden, InvalidRequest, NotFound, NotYet, TryLater, WaError
from agent.files import short_path
from agent.log import bound
from agent.supervise.orders import GRACE, in_time
from agent.vault.folder import explain

log = bound(model.Category.API)

BACKLOG = 1024


def take_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The sockets that systemd passed to this process; removes the variables, so that no child uses
    them."""
    meant_for = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(pid) or not count.isdigit():
        return []
    sockets = [socket.socket(fileno=3 + number) for number in range(int(count))]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def bind_tcp(listen: str, *, name_holder: bool = True) -> socket.socket:
    """Bind a port; TryLater while another program has it or the machine lacks the address."""
    refusal: type[WaError] = TryLater
    try:
        host, port = split_address(listen)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, ValueError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            holder = _holder(port) if name_holder else ""
            cause = f"the address is in use{holder}; stop that program or change api.listen"
        elif number == errno.EADDRNOTAVAIL:
            cause = "no interface of this machine has that address; bring it up or change"
            cause += " api.listen"
        else:
            cause = f"{getattr(error, 'strerror', None) or error}; change api.listen"
            refusal = ConfigError
        raise refusal(f"cannot listen on {listen}: {cause}", field="api.listen") from error


def _holder(port: int) -> str:
    """Return the program that has the port, as far as this user may see it."""
    import psutil  # a MiB that an agent which got its port never needs

    with suppress(psutil.Error, OSError):
        for entry in psutil.net_connections("tcp"):
            here = entry.laddr and entry.laddr.port == port
            if here and entry.pid and entry.status == psutil.CONN_LISTEN:
                return f" by {psutil.Process(entry.pid).name()} (pid {entry.pid})"
    return ""


def bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket with mode 0660. A socket that another agent listens on is kept."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with short_path(path) as short:
            _remove_stale(path, short)
            # The file takes its mode from the socket: at no moment is it open to others.
            os.fchmod(sock.fileno(), 0o660)
            sock.bind(short)
            Path(short).chmod(0o660)  # the umask may have removed bits
        sock.listen(BACKLOG)
    except (OSError, TryLater) as error:
        sock.close()
        if isinstance(error, TryLater):
            raise
        if error.errno == errno.EADDRINUSE:
            raise TryLater(f"cannot listen on {path}: another agent bound it first") from error
        cause = f"cannot listen on {path}: {error.strerror or error}"
        cure = "move away what is in its way, or point [api] socket elsewhere"
        raise ConfigError(f"{cause}; {cure}", field="api.socket") from error
    return sock


def _remove_stale(path: Path, short: str) -> None:
    try:
        status = os.lstat(short)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "what has that path is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        failed = probe.connect_ex(short)
    if failed == errno.ECONNREFUSED:
        Path(short).unlink()
    elif failed != errno.ENOENT:
        cause = os.strerror(failed) if failed else "another agent listens there; stop that agent"
        raise TryLater(f"cannot listen on {path}: {cause}")


def describe(sock: socket.socket) -> str:
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(address)}"
    shown = f"[{address[0]}]" if sock.family == socket.AF_INET6 else address[0]
    return f"http://{shown}:{address[1]}"


_ASKS_AGAIN = 0.5
"""Seconds in which clients that are connected at the end may ask once more: the answer says that
their connection ends. Closed without that, a request on its way would be lost."""
_UNSENT = 1 << 16
"""Bytes of an answer that the kernel takes before its client has room for them. It would take 4 MB,
and a client that does not read would keep its place until then."""
PORT_AGAIN = 2.0
"""Seconds between two tries to bind a port that another program has."""


class Server:
    def __init__(self, parts: Parts) -> None:
        self.addresses: tuple[str, ...] = ()
        """Addresses such as `http://127.0.0.1:8470` and `unix:/run/wa-agent/api.sock`."""
        self._listening: list[asyncio.Server] = []
        self._entrance = connection.Entrance(head_seconds=parts.section.head_timeout)
        self._parts = parts
        parts.metrics.http.expect((route.method, plain_path(route.path)) for route in ROUTES)
        self._runner = web.AppRunner(build_app(parts), shutdown_timeout=15.0)

    def _connect(self) -> connection.Connection:
        assert self._runner.server is not None
        return connection.Connection(
            self._entrance,
            self._runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            logger=log,
            max_headers=64,
            lingering_time=2.0,
            auto_decompress=False,
        )

    async def open(
        self, socket_path: Path | None, environ: MutableMapping[str, str], listen: str
    ) -> None:
        """Listen on systemd's sockets, and bind those that it did not pass. A failure leaves some
        open: `close` ends them.

        `socket_path`: the Unix socket if `section.socket` names none; `listen`: the address that
        systemd should have opened, if it is not `section.listen`.
        """
        section = self._parts.section
        path = Path(section.socket) if section.socket else socket_path
        listen = section.listen and (listen or section.listen)
        await self._runner.setup()
        passed = take_sockets(environ, os.getpid())
        families = {sock.family for sock in passed}
        for sock in passed:
            await self._listen(sock, describe(sock))
        if listen and not families & {socket.AF_INET, socket.AF_INET6}:
            try:
                sock = bind_tcp(listen)
            except TryLater as error:  # sessions run without it
                self._parts.not_listening[listen] = str(error)
            else:
                await self._listen(sock, describe(sock))
        if path is not None and socket.AF_UNIX not in families:
            await self._listen(bind_unix(path), f"unix:{path}")
        log.info("listening on %s", ", ".join(self.addresses) or "nothing")
        for cause in self._parts.not_listening.values():
            again = f"the agent tries to bind it every {PORT_AGAIN:g} s"
            log.error("%s; sessions run without it, and %s", cause, again)

    async def _listen(self, sock: socket.socket, address: str) -> None:
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        # Out of descriptors, asyncio tries (and logs) again as often as its backlog says before
        # it pauses. So it gets 1, and the kernel's queue its length afterwards.
        loop = asyncio.get_running_loop()
        self._listening.append(await loop.create_server(self._connect, sock=sock, backlog=1))
        sock.listen(BACKLOG)
        self.addresses += (address,)

    async def get_missing_ports(self) -> None:
        """Try to bind the ports that another program has, until each is bound."""
        missing = self._parts.not_listening
        while missing:
            await asyncio.sleep(PORT_AGAIN)
            for address in list(missing):
                try:
                    sock = bind_tcp(address, name_holder=False)
                except (TryLater, ConfigError) as error:
                    log.debug("%s", error)
                    continue
                await self._listen(sock, describe(sock))
                log.info("listening on %s", self.addresses[-1])
                del missing[address]

    def announce_end(self) -> None:
        """Let each answer from now on end its connection: few clients are left at the close."""
        self._entrance.closing = True

    async def close(self) -> None:
        """Refuse new connections, answer the open ones, then end, within the runner's limit. The
        Unix socket stays in its folder: the next agent replaces it."""
        self.announce_end()
        await self._stop_accepting()
        if self._entrance.connections:
            await asyncio.sleep(_ASKS_AGAIN)
        for subscription in tuple(self._parts.listeners):
            subscription.end("the agent stops")
        await self._runner.cleanup()

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


# Refuses requests that a foreign web page could make a browser send, and secrets in addresses.


_KEYS = ("token", "key", "api_key", "apikey", "access_token", "auth", "authorization", "bearer")
SECRET_PARAMETERS = frozenset(_KEYS)


def check_entrance(request: web.Request, allowed_hosts: set[str]) -> None:
    for name in request.rel_url.query:
        if name.lower() in SECRET_PARAMETERS:
            words = f"cannot take {name!r} from the address, which logs would show: send a header"
            raise InvalidRequest(words, field=name, code="token_in_query")
    for name in ("Authorization", "Idempotency-Key"):  # which one holds is not guessed
        if len(request.headers.getall(name, ())) > 1:
            raise InvalidRequest(f"cannot take two {name} headers: send one", field=name)
    if not connection.connection_of(request).local:
        _check_host(request, allowed_hosts)
    _check_origin(request)


def _check_host(request: web.Request, allowed_hosts: set[str]) -> None:
    """Refuse a foreign name that leads to this machine: it may be DNS rebinding."""
    hosts = request.headers.getall("Host", [])
    name = auth.host_name(hosts[0]) if len(hosts) == 1 else None
    if name is None:
        words = "cannot read the Host header: send one, with this agent's name or address"
        raise InvalidRequest(words, field="Host", code="invalid_host")
    # An address of this machine (not a name) cannot be rebound.
    here = connection.connection_of(request).here.partition("%")[0]
    if name not in allowed_hosts and name != here and not is_loopback(name):
        words = "cannot answer for this Host: add it to allowed_hosts in [api]"
        raise Forbidden(words, field="Host", code="host_not_allowed")


def _check_origin(request: web.Request) -> None:
    """Refuse pages that are not the agent's own: requests may be forged, WebSockets foreign."""
    origins = request.headers.getall("Origin", [])
    own = [f"{scheme}://{request.host}".lower() for scheme in ("http", "https")]
    foreign = len(origins) > 1 or any(origin.lower() not in own for origin in origins)
    # A browser that leaves Origin out still sends this.
    site = request.headers.get("Sec-Fetch-Site", "none")
    if foreign or (request.method not in ("GET", "HEAD") and site not in ("none", "same-origin")):
        words = "cannot answer a page of another origin: open the agent's own page"
        raise Forbidden(words, field="Origin", code="origin_not_allowed")


# The application


Enter = Callable[[web.Request], Awaitable[auth.Caller]]
_APART, _MADE = "/api/fleet/sessions/{id}", "/api/instance/{id}"
_ASKED = [it for it in ROUTES if 101 not in it.answers and "/backends/" not in it.path]
_OWNERS = [it for it in _ASKED if "{id}" in it.path.removesuffix(_APART) or it.made == _MADE]
"""Routes that a machine answers for its own sessions, whichever machine of the fleet is asked."""


def build_app(parts: Parts, enter: Enter | None = None) -> web.Application:
    """Make the application. `enter`: returns the caller of a request forwarded by a machine."""
    app = web.Application(middlewares=[_front_door(parts, enter)])
    for route in _OWNERS if enter else ROUTES:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            run = partial(_answer, route, parts)
            app.router.add_route(method, route.path, run, expect_handler=_expect)
    return app


async def _answer(route: Route, parts: Parts, request: web.Request) -> web.StreamResponse:
    id = model.parse_instance_id(request.match_info["id"]) if "id" in request.match_info else None
    auth.require(request[auth.CALLER], route.right, id)
    ask = parts.forward if route in _OWNERS or route.path.endswith("/live") else None
    if ask and (theirs := await ask(id or "", request)) is not None:
        return theirs
    try:
        answered = await run_in_time(await read_call(request, route, parts))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise explain("write below", parts.supervisor.root, error) from error
    except NotFound as error:
        there = [*filter(request[auth.CALLER].sees, parts.supervisor.views())]
        if id in (None, *there) or not (near := setting.nearest(str(id), there)):
            raise
        raise NotFound(f"{error}; {near}", field=error.field, code=error.code) from error
    if isinstance(answered, web.StreamResponse):
        return answered
    status, content = answered if isinstance(answered, tuple) else (route.answers[0], answered)
    answer = json_answer(content, status)
    if route.made and status == 201:
        answer.headers["Location"] = route.made.format_map(content)
    return answer


def _front_door(parts: Parts, enter: Enter | None) -> Middleware:
    audit, section = parts.audit, parts.section
    hosts = {auth.host_name(entry) or entry.lower() for entry in section.allowed_hosts if entry}
    hosts |= {split_address(section.listen)[0].lower()} if section.listen else set()

    async def enter_here(request: web.Request) -> auth.Caller:
        caller = auth.ANONYMOUS
        try:
            caller = auth.identify(request, section, parts.ring)
        finally:  # a client without rights waits for its turn, also to be refused
            holder = caller.key or caller.name if caller is not auth.ANONYMOUS else ""
            await connection.connection_of(request).admit(holder)
        check_entrance(request, hosts)
        return caller

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id, not_yet = enter and request.headers.get("X-Request-Id"), False
        request_id = request_id or secrets.token_hex(8)
        request[auth.REQUEST_ID] = request_id
        with parts.metrics.http.observe(request.method) as seen:
            try:
                request[auth.CALLER] = await (enter or enter_here)(request)
                answered = await handler(request)
                audit.answered(request, answered.status, answered.headers.get("Location", ""))
            except WaError as error:
                not_yet = isinstance(error, NotYet)
                audit.answered(request, error.http, error.code)
                if error.http >= 500 and not not_yet:
                    audit.failed(request, error)
                answered = refusal(error.http, error.code, str(error), request_id, error.field)
            except web.HTTPException as error:
                answered = library_refusal(error.status, request_id)
                if "Allow" in error.headers:
                    answered.headers["Allow"] = error.headers["Allow"]
            except ConnectionError:
                raise  # the client is gone
            except Exception:
                what = f"{request.method} {auth.path_of(request)}"
                log.exception("request %s failed: %s", request_id, what)
                answered = library_refusal(500, request_id)
            seen.route, seen.code = auth.route_of(request) or "other", answered.status
            seen.failed = answered.status >= 500 and not (not_yet or answered.prepared)
        if not answered.prepared:
            for name, value in {"X-Request-Id": request_id, **HEADERS}.items():
                answered.headers.setdefault(name, value)
        return answered

    return answer


async def _expect(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        return None  # `invite` says so, once its sender may do what it asks
    return library_refusal(417)


_CAUSE = "its worker or its server has not finished"


async def run_in_time(call: Call) -> Answer:
    """Return the handler's answer, or at the deadline how far it is."""
    if not call.route.timely:
        return await call.route.run(call)
    deadline = time.monotonic() + call.wait
    answer = await in_time(_to_the_end(call, deadline + GRACE), deadline)
    return await _going_on(call) if answer is None else answer


async def _to_the_end(call: Call, answered_at: float) -> Answer:
    try:
        return await call.route.run(call)
    except WaError as error:
        if time.monotonic() > answered_at:  # the client has its 202 already
            said, asked = "%s %s was answered before its end, and failed: %s", call.request
            log.warning(said, asked.method, auth.path_of(asked), error)
        raise


async def _going_on(call: Call) -> Answer:
    if 202 not in call.route.answers:
        words = f"cannot answer within {call.wait:g} s: {_CAUSE}; to wait longer: ?wait=300"
        raise TryLater(words, code="slow")
    given = call.request.match_info
    id, name = given.get("id", ""), given.get("name", "")
    if id:  # it may have another machine by now
        await call.supervisor.gate.fleet.kept(model.InstanceId(id))
    view = call.supervisor.views().get(model.InstanceId(id))
    look: Json = {"state": f"/api/backends/{name}" if name else "/api/health"}
    goes_on = {"ending": "goes_on", "sentence": f"it goes on: {_CAUSE}"}
    state = show_instance(view) if view else {}
    return 202, {**state, **goes_on, "look": look_at(id) if id else look}
