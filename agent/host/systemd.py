"""The host where systemd is: workers are templated units, started and watched over D-Bus.

Needs no privilege: a polkit rule allows its calls. `systemctl` is never used: it rewrites hostile
names instead of refusing them.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from dbus_fast import Message, MessageType

from agent import clock, errors
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.engines.tasks import cancel, to_end
from agent.host import life, units
from agent.host.systemd_bus import NO_SUCH_UNIT, BusCallFailed, BusGone, SystemBus, refusal

log = logging.getLogger(__name__)

# A worker that saves may extend its time; only then a stop takes longer.
STOP_EXTENSION = 90.0
JOB_MARGIN = 15.0

# systemd jobs: begin one, wait for its end, never have many unfinished. Thousands of queued jobs
# throw PID 1 itself off the bus (it adds a match rule for each), so a window bounds them; a job
# counts until JobRemoved says how it ended.

WINDOW = 20
# Starts may hang for their whole time limit; stops must still get through.
STARTS = 16

UNKNOWN = "unknown"
"""The result of a job that ended while the bus was away."""

Begin = Callable[[], Awaitable[str]]
"""Asks systemd for a job; returns the job's object path."""


class Jobs:
    def __init__(self, bus: SystemBus) -> None:
        self._bus = bus
        self._window = asyncio.Semaphore(WINDOW)
        self._starts = asyncio.Semaphore(STARTS)
        self._waiting: dict[str, asyncio.Future[str]] = {}
        # A job may end before the answer that names it is looked at.
        self._beginning = 0
        self._early: dict[str, str] = {}

    @property
    def pending(self) -> int:
        return len(self._waiting) + self._beginning

    def removed(self, path: str, result: str) -> None:
        waiting = self._waiting.get(path)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)
        elif self._beginning:
            self._early[path] = result

    def bus_lost(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BusGone("the system bus went away"))

    async def run(self, begin: Begin, *, start: bool, timeout: float) -> str:
        """Run a job; return systemd's word for its end (done, failed, ...); TimeoutError: none."""
        async with self._starts if start else contextlib.nullcontext(), self._window:
            path = await self._begin(begin)
            try:
                async with asyncio.timeout(timeout):
                    return await self._wait(path)
            finally:
                self._waiting.pop(path, None)

    async def _begin(self, begin: Begin) -> str:
        self._beginning += 1
        try:
            # Then the job is queued, and a stop of all units that follows finds it: a start unknown
            # to the agent would run without it.
            path = await to_end(begin())
            self._waiting[path] = asyncio.get_running_loop().create_future()
            if path in self._early:
                self._waiting[path].set_result(self._early[path])
            return path
        finally:
            self._beginning -= 1
            if not self._beginning:
                self._early.clear()

    async def _wait(self, path: str) -> str:
        while True:
            try:
                return await self._waiting[path]
            except BusGone:
                waiting = self._waiting[path] = asyncio.get_running_loop().create_future()
            # The signal may have come while the bus was away: look whether the job is still there.
            while not waiting.done():
                with contextlib.suppress(BusGone):
                    if not await self._bus.job_exists(path):
                        return UNKNOWN
                    break


class SystemdHost(life.Host):
    """The workers of one kind; `units` has the names of their units."""

    name = "systemd"

    def __init__(self, wake: life.Wake, limits: life.Limits, kind: units.Kind) -> None:
        self._wake, self._limits, self._kind = wake, limits, kind
        self._files, self._cache = units.UnitFiles(), units.UnitCache()
        self._files_changed = asyncio.Event()
        self.boot = self._own_unit = ""
        self._bus = SystemBus(self._bus_up, self._bus_down, self._hear)
        self._jobs = Jobs(self._bus)
        self._files_reader = asyncio.create_task(self._read_files_again(), name="unit files")

    @classmethod
    async def open(
        cls, wake: life.Wake, limits: life.Limits, kind: units.Kind = units.INSTANCES
    ) -> "SystemdHost":
        """Open the host with a connection of its own: two kinds do not disturb each other."""
        self = cls(wake, limits, kind)
        try:
            self._files = await asyncio.to_thread(units.read_unit_files, kind)
            await self._bus.open()
        except BaseException:
            self._files_reader.cancel()
            raise
        try:
            self.boot = f"{clock.boot_id()}.{await self._bus.booted_at():x}"
        except errors.HostError as error:
            await self.close(leave_workers=True)
            raise errors.HostError(f"cannot ask systemd when it booted: {error}") from error
        with contextlib.suppress(errors.HostError):  # not started by systemd: the agent has no unit
            self._own_unit = await self._bus.own_unit()
        return self

    async def close(self, *, leave_workers: bool) -> None:
        """Close the connection. The workers are systemd's: they live on or systemd stops them."""
        await cancel(self._files_reader)
        await self._bus.close()

    @property
    def connected(self) -> bool:
        return self._bus.connected

    @property
    def jobs_pending(self) -> int:
        return self._jobs.pending

    def link_path(self, instance: InstanceId) -> Path:
        return self._kind.runtime_directory(instance) / "link.sock"

    def log_path(self, instance: InstanceId) -> Path | None:
        return None  # the journal has it, and the agent's user may not read that

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return instance in self._files.enabled

    async def agent_is_restarting(self) -> bool:
        try:
            async with asyncio.timeout(2.0):
                own = self._own_unit or await self._bus.own_unit()
                return await self._bus.job_type(own) == "restart"
        except (errors.HostError, TimeoutError) as error:
            # At power-off the bus may be gone already.
            log.info("cannot ask systemd why the agent stops (%s): the workers stop too", error)
            return False

    async def missing_address(self) -> str:
        try:
            async with asyncio.timeout(2.0):
                return await self._bus.failed_socket(units.AGENT_HTTP_SOCKET)
        except (errors.HostError, TimeoutError) as error:
            log.info("cannot ask systemd for %s: %s", units.AGENT_HTTP_SOCKET, error)
            return ""

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        """Return all loaded units of this kind; ask again for rows that differ from the cache."""
        try:
            rows = await self._bus.units(self._kind.pattern)
        except (BusCallFailed, BusGone) as error:
            raise errors.HostError(f"cannot list the workers' units: {error}") from error
        loaded = {id: row for row in rows if (id := self._kind.id_of(row[0])) is not None}
        self._cache.listed({id: (row[3], row[7]) for id, row in loaded.items()})
        statuses = await asyncio.gather(*map(self.status, loaded))
        masked = self._files.masked - loaded.keys()
        return dict(zip(loaded, statuses, strict=True)) | {id: self._absent(id) for id in masked}

    async def status(self, instance: InstanceId) -> UnitStatus:
        unit = self._kind.unit(instance)
        known = self._cache.status(instance) if self._bus.connected else None
        if known is None:
            known = await self._ask(instance, unit)
        return self._absent(instance) if known is UNIT_ABSENT else known

    async def _ask(self, instance: InstanceId, unit: str) -> UnitStatus:
        self._cache.mark_stale(instance, stale=False)
        try:
            if not await self._bus.is_loaded(unit):
                self._cache.note_absent(instance)
                return UNIT_ABSENT
            properties = await self._bus.unit_properties(unit)
        except BaseException as error:
            self._cache.mark_stale(instance)
            if isinstance(error, BusCallFailed | BusGone):
                raise errors.HostError(f"cannot ask systemd about {unit}: {error}") from error
            raise
        return self._cache.answered(instance, properties)

    def _absent(self, instance: InstanceId) -> UnitStatus:
        if instance in self._files.masked:
            return UnitStatus(UnitState.INACTIVE, masked=True)
        return UNIT_ABSENT

    async def start(self, instance: InstanceId) -> None:
        await self._job("start", "StartUnit", instance, self._limits.start_timeout + JOB_MARGIN)

    async def restart(self, instance: InstanceId) -> None:
        timeout = self._limits.start_timeout + self._stop_timeout()
        await self._job("restart", "RestartUnit", instance, timeout)

    async def stop(self, instance: InstanceId) -> None:
        await self._job("stop", "StopUnit", instance, self._stop_timeout())

    def _stop_timeout(self) -> float:
        return self._limits.stop_timeout + STOP_EXTENSION + JOB_MARGIN

    async def reset_failed(self, instance: InstanceId) -> None:
        unit = self._kind.unit(instance)
        try:
            await self._bus.allowed("ResetFailedUnit", "s", unit)
        except (BusCallFailed, BusGone) as error:
            if isinstance(error, BusCallFailed) and error.name == NO_SUCH_UNIT:
                return  # not loaded: nothing to reset
            raise refusal("reset", unit, error) from error
        self._cache.mark_stale(instance)

    async def _job(self, verb: str, method: str, instance: InstanceId, timeout: float) -> None:
        unit = self._kind.unit(instance)

        async def begin() -> str:
            return str((await self._bus.allowed(method, "ss", unit, "replace"))[0])

        try:
            result = await self._jobs.run(begin, start=verb != "stop", timeout=timeout)
        except TimeoutError as error:
            raise errors.HostError(f"cannot {verb} {unit}: no end within {timeout:g} s") from error
        except (BusCallFailed, BusGone) as error:
            if verb == "stop" and isinstance(error, BusCallFailed) and error.name == NO_SUCH_UNIT:
                return  # not loaded, so no process of it runs
            raise refusal(verb, unit, error) from error
        finally:
            self._cache.mark_stale(instance)
        if result == UNKNOWN:
            state = (await self.status(instance)).state
            stopped = state in (UnitState.INACTIVE, UnitState.FAILED)
            if not (stopped if verb == "stop" else state is UnitState.ACTIVE):
                after = f"it is {state} after the system bus was away"
                raise errors.HostError(f"cannot {verb} {unit}: {after}")
        elif result != "done":
            raise errors.HostError(f"cannot {verb} {unit}: {await self._why(instance, result)}")

    async def _why(self, instance: InstanceId, job_result: str) -> str:
        with contextlib.suppress(errors.HostError):
            unit = await self.status(instance)
            if unit.result != "success":
                return f"its worker ended ({life.words(unit)})"
        return f"its job ended as {job_result!r}"

    def _bus_up(self) -> None:
        self._files_changed.set()
        for instance in self._cache.known():
            self._cache.mark_stale(instance)
            self._wake(instance)

    def _bus_down(self) -> None:
        self._jobs.bus_lost()

    def _hear(self, message: Message) -> None:
        """Which units grow stale, and whom that wakes. A signal that a unit came or went is not
        believed but asked about: a reload removes each unit and makes it again."""
        if message.message_type is not MessageType.SIGNAL:
            return
        body = message.body
        if message.member == "PropertiesChanged":
            instance = self._kind.id_of(units.unit_of_path(message.path or ""))
            plain = {name: value.value for name, value in body[1].items()}
            if instance is not None and self._cache.changed(instance, plain, body[2]):
                self._wake(instance)
        elif message.member in ("JobRemoved", "UnitNew", "UnitRemoved"):
            job = message.member == "JobRemoved"
            if (instance := self._kind.id_of(body[2] if job else body[0])) is not None:
                self._cache.mark_stale(instance)
                if job:
                    self._jobs.removed(body[1], body[3])
                self._wake(instance)
        elif message.member == "UnitFilesChanged" or (
            message.member == "Reloading" and body == [False]
        ):
            self._files_changed.set()

    async def _read_files_again(self) -> None:
        while True:
            await self._files_changed.wait()
            self._files_changed.clear()
            was = self._files
            now = await asyncio.to_thread(units.read_unit_files, self._kind)
            self._files = now
            for instance in (was.enabled ^ now.enabled) | (was.masked ^ now.masked):
                self._cache.mark_stale(instance)
                self._wake(instance)
