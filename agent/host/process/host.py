"""The host where no systemd is: workers are plain processes, watched by the agent itself.

Same worker program, same environment, same words. Workers survive a killed agent; the next one
finds them among the machine's processes and adopts them.
"""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from agent.clock import boot_id
from agent.config.sections import WorkerSection
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus, parse_instance_id
from agent.errors import HostError, InvalidRequest
from agent.host.base import Wake
from agent.host.machine.proc_table import Process, all_processes, variables_of
from agent.host.process.child import Child
from agent.host.process.launch import Places, make_run_dir, spawn, worker_environment
from agent.host.process.memory_watch import MemoryWatch
from agent.host.process.sweep import Remains, Sweep
from agent.host.process.worker import ProcessWorker
from agent.host.units import INSTANCES, Kind
from agent.log import about
from agent.worker_log import open_log, trim_log

log = logging.getLogger(__name__)

WORKER = ("-m", "agent.worker")
READ_EVERY = 5
"""Seconds between two looks at the notices of the workers that run."""
LOOK_AFTER = 15.0
"""Seconds between two looks at the workers' memory and logs."""


class ProcessHost:
    name = "process"
    connected = True

    def __init__(
        self, wake: Wake, places: Places, worker: WorkerSection, program: Sequence[str]
    ) -> None:
        self.wake, self.settings = wake, worker
        self._places, self._program, self._boot = places, program, boot_id()
        self._workers: dict[InstanceId, ProcessWorker] = {}
        self._memory_max: dict[InstanceId, int] = {}
        self._sweep, self._memory = Sweep(lambda: self._living().keys()), MemoryWatch()
        self._caretakers = (
            asyncio.create_task(self._take_care(), name="process host"),
            asyncio.create_task(self._notice_delays(), name="process host's pulse"),
        )

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
            await self._adopt()
        except OSError as error:
            raise HostError(f"cannot use {run_dir} for the workers: {error}") from error
        return self

    async def close(self, *, leave_workers: bool) -> None:
        """Without systemd no program watches workers that outlive the agent."""
        for task in self._caretakers:
            task.cancel()
        if not leave_workers:
            await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        for worker in self._workers.values():
            worker.let_go()

    @property
    def jobs_pending(self) -> int:
        """Workers on their way up or down."""
        passing = (UnitState.ACTIVATING, UnitState.DEACTIVATING)
        return sum(worker.state in passing for worker in self._workers.values())

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
        all = self._workers.items()
        return {id: its.status for id, its in all if its.state is not UnitState.INACTIVE}

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

    async def launch(self, worker: ProcessWorker) -> Child:
        id, folder = worker.id, self._places.folder(worker.id)
        environment = worker_environment(id, worker.run, self._places, self.settings)
        try:
            make_run_dir(folder)
            (folder / "link.sock").unlink(missing_ok=True)
            worker.hear(folder / "notify")
            out = open_log(folder)
        except OSError as error:
            raise HostError(f"cannot prepare {folder} for {id}: {error}") from error
        try:
            return Child(spawn([*self._program, id], environment, out))
        except OSError as error:
            raise HostError(f"cannot start a worker for {id}: {error}") from error
        finally:
            os.close(out)

    async def kill_remains(self, child: Child, run: str) -> int:
        return await self._sweep.kill_remains(Remains(child.pid, run, child.start_ticks))

    async def _adopt(self) -> None:
        """The workers of an earlier agent go on. One whose sessions lie somewhere else by now, as
        after a state folder was renamed, gives way to another; helpers of one that died meanwhile
        are killed."""
        places = self._places
        for id, process in find_workers(places.run_dir, self._program):
            known, worker = variables_of(process.pid), self._worker(id)
            try:
                worker.hear(places.folder(id) / "notify")
                child = Child(process.pid)
            except OSError as error:
                log.warning("cannot adopt process %s: %s", process.pid, error, extra=about(id))
                continue
            root = Path(known.get("WA_SESSION_ROOT", "/")).absolute()
            moved = root != places.session_root.absolute() and not _same(root, places.session_root)
            done = "replaced" if moved else "adopted"
            log.info("%s the worker of %s (process %s)", done, id, process.pid, extra=about(id))
            worker.live(child, known.get("INVOCATION_ID", ""), replace=moved)
        left: dict[str, int] = {}
        living = set()
        for process in all_processes():
            known = variables_of(process.pid)
            folder, run = Path(known.get("RUNTIME_DIRECTORY", "/")), known.get("INVOCATION_ID", "")
            if run and _same(folder.parent, places.run_dir):
                left[run] = min(left.get(run, process.start_ticks), process.start_ticks)
                living |= {run} if _is_worker(process.pid, self._program, folder.name) else set()
        for run in left.keys() - living:
            await self._sweep.kill_remains(Remains(0, run, left[run]))

    def _living(self) -> dict[int, ProcessWorker]:
        """Those that are well, by the pid."""
        up = (UnitState.ACTIVATING, UnitState.ACTIVE)
        workers = (its for its in self._workers.values() if its.child and its.state in up)
        return {its.child.pid: its for its in workers if its.child}

    async def _notice_delays(self) -> None:
        """A process that was frozen must not take the others' silence meanwhile for their death."""
        loop = asyncio.get_running_loop()
        for beat in count():
            if beat % READ_EVERY == 0:
                for worker in self._workers.values():
                    worker.read()
            due = loop.time() + 1.0
            await asyncio.sleep(1.0)
            if (late := loop.time() - due) > self.settings.watchdog / 4:
                log.warning("this agent was delayed for %.1f s: pings missed do not count", late)
                for worker in self._workers.values():
                    worker.spare()

    async def _take_care(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AFTER)
            try:
                await self._look_after()
            except (HostError, OSError) as error:
                log.warning("cannot check the workers: %s", error)

    async def _look_after(self) -> None:
        limits = {}
        for pid, worker in self._living().items():
            trim_log(self._places.folder(worker.id) / "worker.log")
            if most := self._memory_max.get(worker.id):
                limits[pid] = most
        over = await asyncio.to_thread(self._memory.over_limit, limits) if limits else {}
        for pid, used in over.items():
            if large := self._living().get(pid):
                words = "%s uses %s bytes, over its limit"
                log.warning(words, large.id, used, extra=about(large.id))
                large.kill("oom-kill")


def find_workers(run_dir: Path, program: Sequence[str]) -> Iterator[tuple[InstanceId, Process]]:
    """The kernel knows them: their output goes to the log in this folder, wherever it lies by now,
    and their command line is a worker's, which their helpers' is not."""
    for process in all_processes():
        try:
            out = Path(f"/proc/{process.pid}/fd/1").readlink()
            id = parse_instance_id(out.parent.name)
        except (OSError, InvalidRequest):
            continue
        if _same(out.parent.parent, run_dir) and _is_worker(process.pid, program, id):
            yield id, process


def _is_worker(pid: int, program: Sequence[str], id: str) -> bool:
    words = "\0".join((*program, id, ""))
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().endswith(f"\0{words}".encode())
    return False


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
