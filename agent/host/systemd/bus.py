"""One connection to the system bus that comes back by itself. dbus-daemon may be killed at any
time: calls under way fail with `BusGone`, and the keeper reconnects with a growing delay."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from agent.errors import HostError

log = logging.getLogger(__name__)

# dbus-fast gives up its connection when the socket's buffer is full: few calls at a time.
CALLS_AT_ONCE = 32
CALL_TIMEOUT = 25.0
RECONNECT_WITHIN = 5.0
FIRST_DELAY = 0.05
LONGEST_DELAY = 5.0

DBUS = "org.freedesktop.DBus"


class BusCallFailed(HostError):
    """The other side answered with an error; `name` is D-Bus' word for it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class BusGone(HostError):
    """There is no connection, or it was lost before the answer came."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """A new connection's first questions: matches, then methods without arguments. If one of them
    fails, the connect has failed."""

    rules: tuple[str, ...]
    calls: tuple[tuple[str, str, str, str], ...] = ()
    """destination, path, interface, member"""


@dataclass(slots=True, eq=False, repr=False)
class SystemBus:
    """`on_up` and `on_down` are called in the loop at each connect and each loss."""

    greeting: Greeting
    on_up: Callable[[], None]
    on_down: Callable[[], None]
    on_signal: Callable[[Message], None]
    _bus: MessageBus | None = field(init=False, default=None)
    _up: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _calls: asyncio.Semaphore = field(
        init=False, default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE)
    )
    _keeper: asyncio.Task[None] | None = field(init=False, default=None)
    reconnects: int = field(init=False, default=0)

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
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._drop()

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        *,
        signature: str = "",
        body: Sequence[Any] = (),
        timeout: float = CALL_TIMEOUT,
    ) -> list[Any]:
        """The answer's values. `BusCallFailed` when it is an error, `BusGone` without one."""
        message = Message(
            destination=destination,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        try:
            async with asyncio.timeout(timeout):
                async with self._calls:
                    return _values(await self._ask(message))
        except TimeoutError as error:
            raise BusGone(f"cannot call {member}: no answer within {timeout:g} s") from error

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
                bus.add_message_handler(self._signalled)
                for message in _greeting_calls(self.greeting):
                    _values(await _ask_on(bus, message))
            except BaseException:
                self._drop()
                raise
        self._up.set()
        self.on_up()
        return bus

    def _signalled(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            self.on_signal(message)

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
            self.reconnects += 1
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


def _greeting_calls(greeting: Greeting) -> Iterator[Message]:
    for rule in greeting.rules:
        yield Message(
            destination=DBUS,
            path="/org/freedesktop/DBus",
            interface=DBUS,
            member="AddMatch",
            signature="s",
            body=[rule],
        )
    for destination, path, interface, member in greeting.calls:
        yield Message(destination=destination, path=path, interface=interface, member=member)


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
