"""The host where no systemd is: workers are plain processes, watched by the agent itself.

Same worker program, same environment, same words. Workers survive a killed agent; the next one
finds them by the notes in the run folder and adopts them.
"""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.clock import boot_id
from agent.config.sections import WorkerSection
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus, parse_instance_id
from agent.errors import HostError, InvalidRequest, TryLater
from agent.host.base import Wake
from agent.host.process.child import Child
from agent.host.process.held_up import Pulse
from agent.host.process.launch import Places, make_run_dir, spawn, worker_environment
from agent.host.process.memory_watch import MemoryWatch
from agent.host.process.notify_socket import NotifySocket
from agent.host.process.phase import STATE, Phase
from agent.host.process.run_file import RunNote, read_note, remove_note, write_note
from agent.host.process.strays import Strays, serves_elsewhere, works_elsewhere
from agent.host.process.sweep import Remains, Sweep
from agent.host.process.worker import ProcessWorker
from agent.host.units import INSTANCES, Kind
from agent.log import about
from agent.worker_log import open_log, trim_log

log = logging.getLogger(__name__)

WORKER = ("-m", "agent.worker")
PASSING = frozenset(
    phase
    for phase, state in STATE.items()
    if state in (UnitState.ACTIVATING, UnitState.DEACTIVATING)
)
LOOK_AFTER = 15.0
"""Seconds between two looks at the workers' memory and logs."""
LOOKS_AT_SOCKET = 3
"""Looks at the notify socket in that time: a start waits for its notice, others for their pings."""


class ProcessHost:
    name = "process"

    def __init__(
        self,
        wake: Wake,
        places: Places,
        worker: WorkerSection,
        program: Sequence[str],
    ) -> None:
        self._wake = wake
        self._places = places
        self._boot = boot_id()
        self._workers: dict[InstanceId, ProcessWorker] = {}
        self._by_pid: dict[int, ProcessWorker] = {}
        self._memory_max: dict[InstanceId, int] = {}
        self.notices = NotifySocket.open(places.notify_socket, self._notice, self._by_pid)
        self._sweep = Sweep(self._by_pid.keys)
        self._strays = Strays(places.session_root, self._by_pid, places.run_dir)
        self._program = program
        self.settings = worker
        self._pulse = Pulse(self._held_up, limit=worker.watchdog / 4)
        self._memory = MemoryWatch()
        self._caretaker = asyncio.create_task(self._take_care(), name="process host")

    @classmethod
    async def open(
        cls,
        wake: Wake,
        run_dir: Path,
        session_root: Path,
        worker: WorkerSection,
        kind: Kind = INSTANCES,
        *,
        cache_root: Path | None = None,
        members_root: Path | None = None,
        program: Sequence[str] = WORKER,
    ) -> "ProcessHost":
        """`run_dir` belongs to one kind of workers. `program`: what Python runs, before the kind's
        arguments."""
        try:
            make_run_dir(run_dir, parents=True)
            places = Places(run_dir, session_root, cache_root, members_root)
            self = cls(wake, places, worker, [*program, *kind.arguments])
        except OSError as error:
            raise HostError(f"cannot use {run_dir} for the workers: {error}") from error
        for folder in sorted(run_dir.iterdir()):
            await self._adopt(folder)
        for instance, stray in self._strays.find().items():
            self._worker(instance).replace_stray(stray)
        return self

    async def close(self, *, leave_workers: bool) -> None:
        """Without systemd no program watches workers that outlive the agent."""
        self._caretaker.cancel()
        self._pulse.close()
        if not leave_workers:
            await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        for worker in self._workers.values():
            worker.let_go()
        self.notices.close()

    @property
    def connected(self) -> bool:
        return True

    @property
    def jobs_pending(self) -> int:
        """Workers on their way up or down."""
        return sum(worker.phase in PASSING for worker in self._workers.values())

    def boot_id(self) -> str:
        return self._boot

    def link_path(self, instance: InstanceId) -> Path:
        return self._places.folder(parse_instance_id(instance)) / "link.sock"

    def log_path(self, instance: InstanceId) -> Path | None:
        return self._places.folder(parse_instance_id(instance)) / "worker.log"

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return False

    async def missing_address(self) -> str:
        return ""

    async def agent_is_restarting(self) -> bool:
        return False

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        return {
            id: worker.status
            for id, worker in self._workers.items()
            if worker.phase is not Phase.DEAD
        }

    async def status(self, instance: InstanceId) -> UnitStatus:
        worker = self._workers.get(instance)
        return worker.status if worker is not None else UNIT_ABSENT

    async def start(self, instance: InstanceId) -> None:
        await self._worker(instance).start()

    async def stop(self, instance: InstanceId) -> None:
        await self._worker(instance).stop()

    async def restart(self, instance: InstanceId) -> None:
        await self.stop(instance)
        await self.start(instance)

    async def reset_failed(self, instance: InstanceId) -> None:
        self._worker(instance).reset_failed()

    def limit_memory(self, instance: InstanceId, most: int) -> None:
        self._memory_max[instance] = most

    def _worker(self, instance: InstanceId) -> ProcessWorker:
        if instance not in self._workers:
            self._workers[instance] = ProcessWorker(parse_instance_id(instance), self)
        return self._workers[instance]

    async def launch(self, instance: InstanceId, run: str) -> Child:
        for stray in self._strays.in_the_way_of(instance):
            await stray.end(self.settings.stop_timeout)
            await self.kill_remains(stray, "")
        try:
            return self._spawn(instance, run)
        except HostError:
            self._strays.suspect(instance)
            raise

    def _spawn(self, instance: InstanceId, run: str) -> Child:
        folder = self._places.folder(instance)
        environment = worker_environment(instance, run, self._places, self.settings)
        try:
            make_run_dir(folder)
            (folder / "link.sock").unlink(missing_ok=True)
            out = open_log(folder)
        except OSError as error:
            raise HostError(f"cannot prepare {folder} for {instance}: {error}") from error
        try:
            return Child.spawned(spawn([*self._program, instance], environment, out))
        except OSError as error:
            raise HostError(f"cannot start a worker for {instance}: {error}") from error
        finally:
            os.close(out)

    async def kill_remains(self, child: Child, run: str) -> int:
        return await self._sweep.kill_remains(Remains(child.pid, run, child.start_ticks))

    def changed(self, worker: ProcessWorker) -> None:
        child, folder = worker.child, self._places.folder(worker.id)
        if child is not None and worker.phase in (Phase.STARTING, Phase.RUNNING):
            self._by_pid[child.pid] = worker
            ready = worker.phase is Phase.RUNNING
            told = (child.pid, child.start_ticks, worker.run, self._boot, ready, worker.restarts)
            self._note(folder, RunNote(*told, str(self._places.session_root.absolute())))
        elif child is not None and worker.phase is Phase.SWEEPING:
            self._by_pid.pop(child.pid, None)
            self.notices.forget(child.pid)
            remove_note(folder)
            if worker.status.exit_status == TryLater.exit_status:
                self._strays.suspect(worker.id)
        self._wake(worker.id)

    def _note(self, folder: Path, note: RunNote) -> None:
        try:
            write_note(folder, note)
        except OSError as error:
            # A full disk costs the adoption by a later agent, not the worker.
            log.error("cannot write the run file in %s: %s", folder, error)

    def _notice(self, pid: int, said: Mapping[str, str]) -> None:
        worker = self._by_pid.get(pid)
        if worker is not None:
            worker.notice(said)

    async def _adopt(self, folder: Path) -> None:
        try:
            instance = parse_instance_id(folder.name)
        except InvalidRequest:
            return
        note = read_note(folder)
        if note is None:
            return
        if note.boot == self._boot and serves_elsewhere(instance, note.pid, folder.parent):
            remove_note(folder)
            return
        child = None
        if note.boot == self._boot:
            child = Child.adopted(note.pid, note.start_ticks)
        if child is None:
            remove_note(folder)
            if note.boot == self._boot:
                # Its helpers may have outlived it; only this look finds them.
                await self._sweep.kill_remains(Remains(0, note.run, note.start_ticks))
            return
        if works_elsewhere(instance, note.pid, note.sessions, self._places.session_root):
            self._worker(instance).replace_stray(child)
            return
        log.info("adopted the worker of %s (process %s)", instance, note.pid, extra=about(instance))
        self._worker(instance).adopt(child, note.run, ready=note.ready, restarts=note.restarts)

    def _held_up(self, seconds: float) -> None:
        log.warning(
            "this agent was delayed for %.1f s: pings that workers missed meanwhile do not count",
            seconds,
        )
        for worker in self._by_pid.values():
            worker.spare()

    async def _take_care(self) -> None:
        while True:
            for _ in range(LOOKS_AT_SOCKET):
                await asyncio.sleep(LOOK_AFTER / LOOKS_AT_SOCKET)
                self.notices.is_reached()
            try:
                await self._look_after()
            except (HostError, OSError) as error:
                log.warning("cannot check the workers: %s", error)

    async def _look_after(self) -> None:
        workers, run_dir = list(self._by_pid.values()), self._places.run_dir
        for worker in workers:
            trim_log(f"{run_dir}/{worker.id}/worker.log")
        limits = {
            worker.child.pid: limit
            for worker in workers
            if worker.child is not None and (limit := self._memory_max.get(worker.id))
        }
        if not limits:
            return
        for pid, used in (await asyncio.to_thread(self._memory.over_limit, limits)).items():
            if large := self._by_pid.get(pid):
                words = "%s uses %s bytes, over its limit"
                log.warning(words, large.id, used, extra=about(large.id))
                large.out_of_memory()
