"""Virtual time: the clocks move only when nothing is ready, and then to the next deadline.

Threads run in line, so the same test takes the same way each time. What waits for real fails.
"""

import asyncio
import contextlib
import os
import random
import select
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar
from unittest.mock import patch

from agent.core.words import Address
from agent.daemon.main import stop_in_order
from agent.host.machine import Usage
from agent.store.writer import Writer
from agent.worker import pack
from agent.worker.pack import Run
from tests import clocks
from tests.clocks import Clock

T = TypeVar("T")
DELIVERED = 0.001
"""Real seconds: what one socket of this machine wrote, another can read after them."""
SYN_SENT = 2
"""The kernel's number of the state in which a connection waits to be taken or refused."""
STANDS_STILL = 5.0
"""Real seconds without anything to do: no clock would ever move again."""

BUSY = 50_000
"""Turns of the loop in which no clock moves."""


class _Selector(selectors.EpollSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self._still = clock, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            self._still += 1
            assert self._still < BUSY, "nothing but work, and no clock moves"
            return ready
        self._still = 0
        if timeout is None:
            ready = super().select(STANDS_STILL)
            assert ready, "the world stands still: nothing is ready, and nothing is planned"
            return ready
        self._clock.moved += timeout
        if self._clock.moved > self._clock.most:
            self._clock.most *= 2  # for what ends the test
            raise AssertionError(f"no end after {self._clock.moved:.0f} virtual seconds")
        return super().select(0)


class _InLine(ThreadPoolExecutor):
    """Does at once what would wait in a thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_Selector(clocks.stopped()))
        super().set_default_executor(_InLine(1))

    def set_default_executor(self, executor: Any) -> None:
        """It keeps the one that works in line."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """It has no threads."""


class _Patient(_Selector):
    """It waits for the kernel as long as something is on its way over TCP."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._tcp = set[Any]()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if _is_tcp(fileobj):
            self._tcp.add(fileobj)
        return super().register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self._tcp.discard(fileobj)
        return super().unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """In the order of descriptors: a busy kernel delivers in another one each time. This
        machine takes or refuses each connection to itself."""
        until_delivered = select.poll()
        while any(map(_connects, self._tcp)):
            until_delivered.poll(1)
        ready = selectors.EpollSelector.select(self, DELIVERED) if self._tcp and timeout else []
        return sorted(ready or super().select(timeout), key=lambda it: it[0].fd)


def _is_tcp(fileobj: object) -> bool:
    if not isinstance(fileobj, int):
        return False
    try:
        one = socket.socket(fileno=fileobj)
    except OSError:
        return False
    try:
        listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return one.family == socket.AF_INET and not listens
    finally:
        one.detach()


def _connects(fd: int) -> bool:
    """True if the other side has neither taken nor refused the connection."""
    with socket.socket(fileno=fd) as one:
        state = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        one.detach()
    return state == SYN_SENT


class PatientLoop(Loop):
    """Virtual time for real sockets: it moves once the kernel has nothing on its way."""

    def __init__(self) -> None:
        asyncio.SelectorEventLoop.__init__(self, _Patient(clocks.stopped()))
        asyncio.SelectorEventLoop.set_default_executor(self, _InLine(1))


class _InLineWriter(Writer):
    """A database's, without its thread: one commit for each job."""

    _db: Any

    @classmethod
    async def open(cls, path: Any, connect: Any) -> Writer:
        made = cls(path, connect)
        made._open()
        made._db.execute("pragma synchronous = off")
        return made

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._db.close()

    async def _submit(self, job: Any) -> Any:
        if not self._closed:
            self._do([job])
            return await job.future
        return await Writer._submit(self, job)


def _run_in_line(thread: threading.Thread) -> None:
    thread.run()


@contextlib.contextmanager
def virtual_time(seed: int = 0) -> Iterator[None]:
    """This process' clocks are in virtual time; a Loop moves them."""
    state = random.getstate()
    random.seed(seed)
    memory_of.clear()
    try:
        with (
            clocks.stopped_clocks(),
            patch.object(threading.Thread, "start", _run_in_line),
            patch("agent.store.database.Writer", _InLineWriter),
            patch("agent.messages.outbox.Writer", _InLineWriter),
            patch("agent.daemon.main.start_threads", _nothing),
            patch("agent.backends.evolution.WHATSAPP", Address("http://127.0.0.1:9/")),
            patch("agent.supervise.upkeep.measure_whole", _measure),
            patch("agent.worker.run.open_files", lambda _: 21),  # those of the world are many
            patch("agent.metrics.exporter.MachineFigures._process_and_host", _quiet_machine),
            patch("sdnotify.SystemdNotifier", _NoManager),
            patch("agent.daemon.main.stop_in_order", _stop_in_order),
            patch.object(os, "kill", _kill),
            patch("os.fsync", _nothing_synced),
            patch("os.fdatasync", _nothing_synced),
            contextlib.ExitStack() as changes,
        ):
            for name in ("link", "mkdir", "rename", "replace", "rmdir", "unlink", "write"):
                changes.enter_context(patch.object(os, name, _of_the_living(getattr(os, name))))
            yield
    finally:
        random.setstate(state)


async def _nothing() -> None: ...


def kill(run: Run) -> None:
    """As by SIGKILL: no task of it goes on, and what it would save at its end it does not."""
    if getattr(run, "killed", False):
        return  # dead already; what closes its sockets goes on
    run.killed = True
    for task in list(run.tasks):
        task.cancel()


def _of_the_living(change: Callable[..., T]) -> Callable[..., T]:
    """A killed process changes no file, whatever its code does on its way out."""

    def changed(*args: Any, **more: Any) -> T:
        run = pack._RUN.get()
        if run is not None and getattr(run, "killed", False):
            raise asyncio.CancelledError
        return change(*args, **more)

    return changed


def _kill(pid: int, number: int) -> None:
    """A process of the world kills itself: which one the present task is a part of."""
    run = pack._RUN.get()
    assert (pid, number) == (os.getpid(), signal.SIGKILL), (pid, number)
    assert run is not None
    kill(run)
    with contextlib.suppress(RuntimeError):
        if asyncio.current_task() is not None:
            raise asyncio.CancelledError


async def _stop_in_order(supervisor: Any, server: Any, state: Any, **more: Any) -> bool:
    run = pack._RUN.get()
    if run is None or not getattr(run, "killed", False):
        return await stop_in_order(supervisor, server, state, **more)
    # The kernel closes a killed process' sockets.
    pack._RUN.set(None)
    if server is not None:
        await server.close()
    for facts in supervisor.registry.facts.values():
        if facts.link is not None:
            await facts.link.close()
    return True


class _NoManager:
    socket = None

    def notify(self, message: str) -> None: ...


def _nothing_synced(_fd: int) -> None:
    """No power fails in a world."""


memory_of: dict[str, int] = {}
"""In bytes, where a test says it: this process is no worker, and its own figures say nothing."""


def _quiet_machine(_figures: object) -> Iterator[tuple[str, float]]:
    """Yield invented figures of memory, processors and descriptors; the disk is the real one."""
    yield from (("process_resident_memory_bytes", 64 << 20),)
    yield from (("process_open_fds", 40), ("process_max_fds", 65_536))
    yield from (("process_start_time_seconds", 1.0), ("wa_host_memory_total_bytes", 8 << 30))
    yield from (("wa_host_memory_used_bytes", 1 << 30), ("wa_host_cpu_usage_ratio", 0.1))


async def _measure(pids: Mapping[Any, int], _facts: object) -> dict[Any, Usage]:
    return {id: Usage(memory_of.get(id, 12 << 20), 0.1, 1) for id in pids}
