"""One connection to the system bus that comes back by itself, the calls to systemd over it, and the
meaning of its refusals. dbus-daemon may be killed at any time: calls under way fail with `BusGone`,
and the keeper reconnects with a growing delay."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from agent.engines.tasks import cancel
from agent.errors import HostError
from agent.host import units

log = logging.getLogger(__name__)

# dbus-fast gives up its connection when the socket's buffer is full: few calls at a time.
CALLS_AT_ONCE = 32
CALL_TIMEOUT = 25.0
RECONNECT_WITHIN = 5.0
FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0

DBUS = "org.freedesktop.DBus"
SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
SOCKET = "org.freedesktop.systemd1.Socket"
JOB = "org.freedesktop.systemd1.Job"
PROPERTIES_INTERFACE = "org.freedesktop.DBus.Properties"
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
POLKIT_PAUSE = 0.2

# Subscribed before the first job: a signal without a subscriber is lost.
RULES = (
    f"type='signal',sender='{SYSTEMD}',path='{MANAGER_PATH}',interface='{MANAGER}'",
    f"type='signal',sender='{SYSTEMD}',interface='{PROPERTIES_INTERFACE}',"
    "member='PropertiesChanged',path_namespace='/org/freedesktop/systemd1/unit'",
)

_DENIED = frozenset(
    {
        "org.freedesktop.DBus.Error.AccessDenied",
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
        "org.freedesktop.DBus.Error.AuthFailed",
    }
)
_POLKIT_MAY_BE_AWAY = _DENIED | {
    "org.freedesktop.DBus.Error.Failed",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.TimedOut",
}


class BusCallFailed(HostError):
    """The other side answered with an error; `name` is D-Bus' word for it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class BusGone(HostError):
    """There is no connection, or it was lost before the answer came."""


@dataclass(slots=True, eq=False, repr=False)
class SystemBus:
    """`on_up` and `on_down` are called in the loop at each connect and each loss, `hear` of each
    message."""

    on_up: Callable[[], None]
    on_down: Callable[[], None]
    hear: Callable[[Message], None]
    _bus: MessageBus | None = field(init=False, default=None)
    _up: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _calls: asyncio.Semaphore = field(
        init=False, default_factory=partial(asyncio.Semaphore, CALLS_AT_ONCE)
    )
    _keeper: asyncio.Task[None] | None = field(init=False, default=None)

    async def open(self) -> None:
        """Connect now, and again whenever the connection is lost, until `close`."""
        try:
            bus = await self._connect()
        except (HostError, OSError, TimeoutError) as error:
            raise HostError(f"cannot connect to the system bus: {_cause(error)}") from error
        self._keeper = asyncio.create_task(self._keep(bus), name="system bus")

    @property
    def connected(self) -> bool:
        return self._up.is_set()

    async def close(self) -> None:
        await cancel(self._keeper)
        self._drop()

    async def call(
        self, path: str, interface: str, member: str, signature: str, *body: Any
    ) -> list[Any]:
        """Call; return the answer's values. BusCallFailed: an error; BusGone: no answer."""
        message = Message(SYSTEMD, path, interface, member, signature=signature, body=list(body))
        try:
            async with asyncio.timeout(CALL_TIMEOUT):
                async with self._calls:
                    return _values(await self._ask(message))
        except TimeoutError as error:
            raise BusGone(f"cannot call {member}: no answer within {CALL_TIMEOUT:g} s") from error

    async def _ask(self, message: Message) -> Message | None:
        try:
            async with asyncio.timeout(RECONNECT_WITHIN):
                await self._up.wait()
        except TimeoutError as error:
            raise BusGone(f"cannot call {message.member}: the system bus is away") from error
        assert self._bus is not None
        return await _ask_on(self._bus, message)

    async def _connect(self) -> MessageBus:
        bus = MessageBus(bus_type=BusType.SYSTEM, auth_timeout=RECONNECT_WITHIN)
        async with asyncio.timeout(2 * RECONNECT_WITHIN):
            try:
                await bus.connect()
            except (OSError, TimeoutError):
                raise
            except Exception as error:  # dbus-fast: authentication, addresses, end of file
                raise BusGone(_cause(error)) from error
            self._bus = bus
            try:
                bus.add_message_handler(self.hear)
                for message in _greeting():
                    _values(await _ask_on(bus, message))
            except BaseException:
                self._drop()
                raise
        self._up.set()
        self.on_up()
        return bus

    async def _keep(self, bus: MessageBus) -> None:
        while True:
            try:
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
                cause = "closed"
            except Exception as error:  # whatever ended the connection, the cure is the same
                cause = _cause(error)
            self._drop()
            self.on_down()
            log.warning("the system bus went away (%s); reconnecting", cause)
            bus = await self._reconnect()
            log.info("the system bus is back")

    async def _reconnect(self) -> MessageBus:
        delay = FIRST_DELAY
        while True:
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY)
            try:
                return await self._connect()
            except (HostError, OSError, TimeoutError) as error:
                log.debug("the system bus is still away: %s", _cause(error))

    def _drop(self) -> None:
        self._up.clear()
        bus, self._bus = self._bus, None
        if bus is not None and bus.connected:
            bus.disconnect()

    # calls

    async def units(self, pattern: str) -> list[Any]:
        """Return rows of loaded units of that name: name, ..., active state (3), job (7), ..."""
        return list((await self.manage("ListUnitsByPatterns", "asas", [], [pattern]))[0])

    async def is_loaded(self, unit: str) -> bool:
        """True if the unit is loaded. A read of its properties would load it; this does not."""
        try:
            await self.manage("GetUnit", "s", unit)
        except BusCallFailed as error:
            if error.name == NO_SUCH_UNIT:
                return False
            raise
        return True

    async def unit_properties(self, unit: str) -> Mapping[str, Any]:
        path = units.object_path(unit)
        asked = (self.property(path, *each) for each in units.PROPERTIES)
        values = await asyncio.gather(*asked)
        return {name: value for (_, name), value in zip(units.PROPERTIES, values, strict=True)}

    async def job_exists(self, path: str) -> bool:
        try:
            await self.property(path, JOB, "State")
        except BusCallFailed:
            return False
        return True

    async def booted_at(self) -> int:
        """Return the boot in microseconds; it tells the boots of a container apart."""
        return int(await self.property(MANAGER_PATH, MANAGER, "UserspaceTimestampMonotonic"))

    async def own_unit(self) -> str:
        """Return the object path of the unit that this process belongs to."""
        return str((await self.manage("GetUnitByPID", "u", os.getpid()))[0])

    async def job_type(self, unit_path: str) -> str:
        """Return the job of a unit: start, stop, restart, ...; "" = none."""
        job_id, job = await self.property(unit_path, units.UNIT, "Job")
        return str(await self.property(job, JOB, "JobType")) if job_id else ""

    async def failed_socket(self, unit: str) -> str:
        """Return the TCP address of a socket unit that failed; "" = it is up, or not wanted."""
        if not await self.is_loaded(unit):
            return ""
        path = units.object_path(unit)
        if await self.property(path, units.UNIT, "ActiveState") != "failed":
            return ""
        listen = await self.property(path, SOCKET, "Listen")
        addresses = (address for kind, address in listen if kind == "Stream")
        return next((address for address in addresses if ":" in address), "")

    async def allowed(self, method: str, signature: str, *body: Any) -> list[Any]:
        """Make a call that polkit must allow, twice if need be: polkitd may be restarting."""
        try:
            return await self.manage(method, signature, *body)
        except BusCallFailed as error:
            if error.name not in _POLKIT_MAY_BE_AWAY:
                raise
            log.debug("systemd refused %s (%s); the agent asks once more", method, error)
        await asyncio.sleep(POLKIT_PAUSE)
        return await self.manage(method, signature, *body)

    async def manage(self, method: str, signature: str = "", *body: Any) -> list[Any]:
        return await self.call(MANAGER_PATH, MANAGER, method, signature, *body)

    async def property(self, path: str, interface: str, name: str) -> Any:
        return (await self.call(path, PROPERTIES_INTERFACE, "Get", "ss", interface, name))[0].value


def _greeting() -> Iterator[Message]:
    """Yield a new connection's first calls. If one of them fails, the connect has failed."""
    for rule in RULES:
        yield Message(DBUS, "/org/freedesktop/DBus", DBUS, "AddMatch", signature="s", body=[rule])
    yield Message(SYSTEMD, MANAGER_PATH, MANAGER, "Subscribe")


async def _ask_on(bus: MessageBus, message: Message) -> Message | None:
    if not bus.connected:
        raise BusGone(f"cannot call {message.member}: the system bus went away")
    try:
        return await bus.call(message)
    except (OSError, EOFError) as error:
        raise BusGone(f"cannot call {message.member}: {_cause(error)}") from error


def _values(reply: Message | None) -> list[Any]:
    if reply is None:  # dbus-fast's answer to a call that was under way at a quiet close
        raise BusGone("the system bus went away")
    if reply.message_type is MessageType.ERROR:
        text = reply.body[0] if reply.body and isinstance(reply.body[0], str) else ""
        raise BusCallFailed(reply.error_name or "", text)
    return list(reply.body)


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__


def refusal(verb: str, unit: str, error: BusCallFailed | BusGone) -> HostError:
    """Return the error for people: what was refused, and what to look at."""
    name = error.name if isinstance(error, BusCallFailed) else ""
    # Polkit's own unit may be the masked one: systemd passes on why it could not ask.
    if name == f"{SYSTEMD}.UnitMasked" and unit in str(error):
        return HostError(f"cannot {verb} {unit}: an operator masked it", code="masked")
    if name == NO_SUCH_UNIT:
        unknown = f"systemd does not know {unit.partition('@')[0]}@.service"
        cure = "is wa-agent installed on this machine?"
        return HostError(f"cannot {verb} {unit}: {unknown}; {cure}")
    if name in _DENIED or "polkit" in str(error):
        cure = "is polkitd running, and is wa-agent's rule in /usr/share/polkit-1/rules.d?"
        words = f"cannot {verb} {unit}: systemd denies it ({error}); {cure}"
        return HostError(words, code="denied")
    return HostError(f"cannot {verb} {unit}: {error}")
