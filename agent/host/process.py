"""The host where no systemd is: workers are plain processes, watched by the agent itself.

Same worker program, same environment, same words. Workers survive a killed agent; the next one
finds them behind their sockets and adopts them.
"""

import asyncio
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent import clock, files
from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus, parse_instance_id
from agent.errors import HostError, InvalidRequest, cause_of
from agent.host.life import UNKNOWN, Exit, Host, Limits, Wake, Worker
from agent.host.machine import Process, all_processes, find_trees, proportional_bytes, variables_of
from agent.log import about, going_on, open_log

log = logging.getLogger(__name__)


_CREDENTIALS = struct.Struct("3i")
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
# For the agent alone: its own manager's socket, its sockets, its settings.
_AGENTS_OWN = (
    *("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY"),
    *("WATCHDOG_", "WA_AGENT_"),
)
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Places:
    run_dir: Path
    session_root: Path
    cache_root: Path | None = None
    """Folder of the cache; None = beside the sessions, as a worker finds by itself."""
    members_root: Path | None = None
    """Folder of the sessions that share a worker."""

    def environment(self, folder: Path, run: str, watchdog: float) -> dict[str, str]:
        """Return the same variables that systemd sets."""
        paths = {
            "WA_CACHE_PATH": self.cache_root,
            "WA_MEMBERS_ROOT": self.members_root,
            "WA_SESSION_ROOT": self.session_root,
            "NOTIFY_SOCKET": folder / "notify",
            "RUNTIME_DIRECTORY": folder,
        }
        return {
            **{it: os.environ[it] for it in os.environ if not it.startswith(_AGENTS_OWN)},
            **{name: str(path.absolute()) for name, path in paths.items() if path is not None},
            "WATCHDOG_USEC": str(round(watchdog * 1_000_000)),
            "INVOCATION_ID": run,
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "1",
        }


def spawn(arguments: list[str], environment: Mapping[str, str], out: int) -> int:
    """Spawn a fresh Python in a session of its own; return its pid. `out`: output and errors."""
    outs = ((os.POSIX_SPAWN_DUP2, out, number) for number in (1, 2))
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", *arguments],
        environment,
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), *outs],
        setsid=True,
        setsigmask=[],
        setsigdef=[*_CLEAN_SIGNALS, signal.SIGCHLD, signal.SIGXFSZ],
    )


class ProcessChild:
    """A worker's process as a child. Its notices come to `notify`, also those of an earlier agent's
    child."""

    pid = 0

    def __init__(self, host: "ProcessHost", worker: Worker) -> None:
        """Make the child. The worker hears of the process of `watch`; the host ends the rest."""
        self._host, self.worker = host, worker
        path = host.folder(worker.id) / "notify"
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._pidfd = -1
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            path.unlink(missing_ok=True)
            with files.short_path(path) as name:
                self._sock.bind(name)
            path.chmod(0o600)
        except OSError:
            self._sock.close()
            raise

    def watch(self, pid: int) -> "ProcessChild":
        """Watch a process. OSError: it is gone already."""
        self._pidfd = os.pidfd_open(pid)
        self.pid = pid
        self._loop.add_reader(self._pidfd, self._end)
        self._loop.add_reader(self._sock, self._hear)
        self._host.notices.register(self._sock, select.EPOLLIN)
        self._host.children[self._sock.fileno()] = self
        return self

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this very process; nothing happens if it is gone."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
                if number is not signal.SIGKILL:
                    # A frozen process gets no other signal.
                    signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)
                    self._loop.add_reader(self._sock, self._hear)

    async def clear(self) -> int:
        return await self._host.sweep(self.pid, self.worker.status.run)

    def release(self) -> None:
        if self._pidfd >= 0:
            for fd in (self._pidfd, self._sock.fileno()):
                self._loop.remove_reader(fd)
            del self._host.children[self._sock.fileno()]
            os.close(self._pidfd)
            self._pidfd = -1
        self._sock.close()

    def _hear(self) -> None:
        """Read what has come; no flood may hold up the loop."""
        with suppress(OSError):
            for _ in range(MOST_AT_ONCE):
                self.read()
        if self.worker.state is UnitState.ACTIVE:  # from here on with the other workers'
            self._loop.remove_reader(self._sock.fileno())  # asyncio would print the socket

    def read(self) -> None:
        text, sent, _, _ = self._sock.recvmsg(4096, _ROOM)
        if self.pid not in [_CREDENTIALS.unpack(data)[0] for _level, _kind, data in sent]:
            return
        if text == b"WATCHDOG=1":  # nearly all of them
            self.worker.ping()
        else:
            lines = text.decode(errors="replace").splitlines()
            self.worker.notice(dict(line.split("=", 1) for line in lines if "=" in line))

    def _end(self) -> None:
        self._hear()
        how = UNKNOWN
        with suppress(ChildProcessError):  # an earlier agent's
            # By pidfd: no other wait can take the status away in between.
            if (end := os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)) is not None:
                how = _exit_of(end)
        self.release()
        self.ended.set_result(how)


def _exit_of(end: os.waitid_result) -> Exit:
    if end.si_code == os.CLD_EXITED:
        return Exit("exit-code" if end.si_status else "", end.si_status)
    if end.si_status in _CLEAN_SIGNALS:
        return Exit("", end.si_status)
    return Exit("core-dump" if end.si_code == os.CLD_DUMPED else "signal", end.si_status)


def listener(path: Path) -> int:
    """Return the process that listens at this socket, by the kernel. OSError: there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, files.short_path(path) as name:
        sock.setblocking(False)
        sock.connect(name)
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(peer)[0])


WORKER = ("-m", "agent.worker")
MOST_AT_ONCE = 20
"""Notices that are read of one worker in a turn of the loop."""
HEAR_EVERY = 4.0
"""Seconds between two readings of the notices of workers that are well, at most."""


ROUNDS, PAUSE = 10, 0.01
"""Rounds of kills: a killed process takes a moment to go, and may have forked just before."""

Left = tuple[int, str]
"""An ended worker: its pid led its group and its session (0: it is another process by now); its
run is in its children's environment."""


def _kill_all(asked: set[Left], living: set[int]) -> int:
    leaders = {leader for leader, _ in asked if leader}
    runs = {run for _, run in asked if run}
    spared, killed = {0, os.getsid(0), *living} - leaders, set()

    def is_left(it: Process) -> bool:
        return it.session in leaders or variables_of(it.pid).get("INVOCATION_ID", "") in runs

    for turn in range(1, ROUNDS + 1):
        every = (it for it in all_processes() if not it.zombie and it.session not in spared)
        left = [it.pid for it in every if is_left(it)]
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= set(left)
        time.sleep(turn * PAUSE)
    return len(killed)


class ProcessHost(Host):
    name = "process"
    connected = True

    def __init__(self, wake: Wake, places: Places, limits: Limits, program: Sequence[str]) -> None:
        self._wake, self._places, self._limits = wake, places, limits
        self._program, self.boot = program, clock.boot_id()
        self._pause = min(limits.watchdog / 5, HEAR_EVERY)
        self._polled = replace(limits, polled=self._pause)
        self._left: set[Left] = set()
        self._looking = asyncio.Lock()
        self._workers: dict[InstanceId, Worker] = {}
        self.children: dict[int, ProcessChild] = {}
        """Descriptor of a notify socket → the child."""
        self.notices = select.epoll()
        self._memory_max: dict[InstanceId, int] = {}
        self._caretaker = asyncio.create_task(self._take_care(), name="process host")

    @classmethod
    async def open(
        cls, wake: Wake, places: Places, limits: Limits, program: Sequence[str] = WORKER
    ) -> "ProcessHost":
        """Open the host. `places.run_dir`: of one kind of workers; `program`: what Python runs."""
        try:
            places.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            places.run_dir.chmod(0o700)
            self = cls(wake, places, limits, program)
            await self._adopt()
        except OSError as error:
            why = f"{cause_of(error)}; move away what is in its way"
            raise HostError(f"cannot use {places.run_dir} for workers: {why}") from error
        return self

    async def close(self, *, leave_workers: bool) -> None:
        """Close the host. Without systemd no program watches workers that outlive the agent."""
        self._caretaker.cancel()
        if not leave_workers:
            await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        for worker in self._workers.values():
            worker.let_go()

    @property
    def jobs_pending(self) -> int:
        """Number of workers on their way up or down."""
        all = self._workers.values()
        return sum(own.status.runs and own.state is not UnitState.ACTIVE for own in all)

    def link_path(self, instance: InstanceId) -> Path:
        return self.folder(instance) / "link.sock"

    def log_path(self, instance: InstanceId) -> Path | None:
        return self.folder(instance) / "worker.log"

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        all = self._workers.items()
        return {id: own.status for id, own in all if own.state is not UnitState.INACTIVE}

    async def status(self, instance: InstanceId) -> UnitStatus:
        return self._workers[instance].status if instance in self._workers else UNIT_ABSENT

    async def start(self, instance: InstanceId) -> None:
        await self._worker(instance).start()

    async def stop(self, instance: InstanceId) -> None:
        await self._worker(instance).stop()

    async def reset_failed(self, instance: InstanceId) -> None:
        self._worker(instance).reset_failed()

    def limit_memory(self, instance: InstanceId, most: int) -> None:
        self._memory_max[instance] = most

    def folder(self, instance: InstanceId) -> Path:
        return self._places.run_dir / parse_instance_id(instance)

    def _worker(self, instance: InstanceId) -> Worker:
        if instance not in self._workers:
            id = parse_instance_id(instance)
            self._workers[id] = Worker(id, self._polled, self._launch, partial(self._wake, id))
        return self._workers[instance]

    def _launch(self, worker: Worker) -> ProcessChild:
        id, folder = worker.id, self.folder(worker.id)
        environment = self._places.environment(folder, worker.status.run, self._limits.watchdog)
        try:
            self._keep_place()
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "link.sock").unlink(missing_ok=True)
            child, out = ProcessChild(self, worker), open_log(folder)
        except OSError as error:
            raise HostError(f"cannot prepare {folder} for {id}: {cause_of(error)}") from error
        try:
            return child.watch(spawn([*self._program, id], environment, out))
        except OSError as error:
            child.release()
            raise HostError(f"cannot start a worker for {id}: {cause_of(error)}") from error
        finally:
            os.close(out)

    def _keep_place(self) -> None:
        """Make the folder of all workers again where a cleaner removed it: their notices are lost,
        and the next agent would not find them. OSError: the state folder was moved away."""
        if not (place := self._places.run_dir).is_dir():
            place.mkdir(mode=0o700)
            log.warning("%s was removed; its workers are restarted, each in its turn", place)
            for child in self.children.values():
                child.worker.lose()

    async def sweep(self, leader: int, run: str) -> int:
        """Return when nothing of that worker is left, and how many processes there were. Workers
        that end together share one look at the processes of the machine; none of those of a
        living worker is touched."""
        if leader > 1:  # 0 would be this process's own group
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        self._left.add((leader, run))
        async with self._looking:
            left, self._left = self._left, set()
            living = {child.pid for child in self.children.values()}
            return await asyncio.to_thread(_kill_all, left, living) if left else 0

    async def _adopt(self) -> None:
        """The workers of an earlier agent go on. One whose sessions lie somewhere else by now, as
        after a state folder was renamed, gives way to another. Helpers of one that died meanwhile,
        and a worker that nothing can talk to, are killed."""
        places, running = self._places, set()
        for id, pid in find_workers(places.run_dir):
            known, worker = variables_of(pid), self._worker(id)
            try:
                child = ProcessChild(self, worker).watch(pid)
            except OSError as error:
                log.warning("cannot adopt process %s: %s", pid, cause_of(error), extra=about(id))
                continue
            root = Path(known.get("WA_SESSION_ROOT", "/")).absolute()
            moved = root != places.session_root.absolute() and not _same(root, places.session_root)
            done = "replaced" if moved else "adopted"
            log.info("%s the worker of %s (process %s)", done, id, pid, extra=about(id))
            worker.adopt(child, known.get("INVOCATION_ID", ""), moved=moved)
            running.add(worker.status.run)
        left, elsewhere = set(), {""}
        for process in all_processes():
            known, lock = variables_of(process.pid), Path()
            if _same(Path(known.get("RUNTIME_DIRECTORY", "/")).parent, places.run_dir):
                run = known.get("INVOCATION_ID", "")
                left.add(run)
                with suppress(OSError, IndexError):  # of the state folder that has its log
                    lock = Path(f"/proc/{process.pid}/fd/1").readlink().parents[2] / "lock"
                if lock.is_file() and not _same(lock.parent, places.run_dir.parent):
                    elsewhere.add(run)  # of a state folder that was moved away: left as it is
        for run in left - running - elsewhere:
            await self.sweep(0, run)

    async def _take_care(self) -> None:
        while True:
            for _ in range(8):  # from one look at their memory to the next
                # Each ping by itself would wake the agent.
                await asyncio.sleep(clock.until_next(self._pause))
                with suppress(OSError):
                    self._keep_place()
                for _ in range(MOST_AT_ONCE):
                    if not (heard := self.notices.poll(0)):
                        break
                    for fd, _event in heard:
                        with suppress(OSError, KeyError):  # a notice may end another worker
                            self.children[fd].read()
                now = asyncio.get_running_loop().time()
                silent = (it for it in self._workers.values() if it.until <= now)
                for worker in [it for it in silent if it.state is UnitState.ACTIVE]:
                    worker.look()
            most, every = self._memory_max, self.children.values()
            well = (it for it in every if it.worker.state is not UnitState.DEACTIVATING)
            limits = {it.pid: most[it.worker.id] for it in well if most.get(it.worker.id)}
            over: Mapping[int, int] = {}
            with going_on("cannot check the workers"):
                over = await asyncio.to_thread(over_limit, limits) if limits else {}
            for child in [it for it in every if it.pid in over]:
                id, what = child.worker.id, "%s uses %s bytes, over its limit"
                log.warning(what, id, over[child.pid], extra=about(id))
                child.worker.kill("oom-kill")


def over_limit(limits: Mapping[int, int]) -> dict[int, int]:
    """Return leader → bytes of its whole tree, for those above their limit."""
    trees = find_trees(frozenset(limits)).items()
    # Resident memory counts shared pages for each process, so it is an upper bound.
    high = {it: tree for it, tree in trees if sum(one.rss_bytes for one in tree) > limits[it]}
    used = {it: sum(proportional_bytes(one.pid) for one in tree) for it, tree in high.items()}
    return {it: size for it, size in used.items() if size > limits[it]}


def find_workers(run_dir: Path) -> Iterator[tuple[InstanceId, int]]:
    for folder in run_dir.iterdir():
        with suppress(InvalidRequest, OSError):
            yield parse_instance_id(folder.name), listener(folder / "link.sock")


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
