"""The worker of one pack: one process with its one Node for several sessions of an engine.

Each session runs in it as in a worker of its own: `agent.worker.run` runs it, on a link of its own.
What they share is this process and what the engine shares (of baileys: Node).
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

from agent.core.model import UnitState
from agent.core.words import Happening, InstanceId, counted, parse_instance_id
from agent.engines.baileys.pack import SharedNode
from agent.engines.base import OpenEngine
from agent.errors import WaError
from agent.host.life import Exit, Limits, Worker
from agent.host.notify import Notifier
from agent.link.server import LinkServer
from agent.link.wire import Hello
from agent.worker.calls import Work, answer_with, plain
from agent.worker.identity import Identity, lock_held, read_identity, refuse_foreign_group
from agent.worker.life import MEMBER, Life, ProcessLife, path_of
from agent.worker.run import run_session
from agent.worker.watch import tell_status

log = logging.getLogger(__name__)

BROKEN_OFF_WITHIN = 15.0
"""Seconds for a run that was broken off; then the whole pack ends."""
LEFT_WITHIN = 2.0
APART = 0.2
"""Seconds between two sessions that begin again with their pack: each logs in."""
THREADS = 32
"""Threads of the worker: a disk that hangs for one session leaves some for the others."""
_RUN: ContextVar["Run | None"] = ContextVar("run", default=None)


@dataclass(eq=False)
class Run:
    """One run of a member, and what it started."""

    member: InstanceId
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def cancel(self) -> None:
        for task in list(self.tasks):
            task.cancel()


def follow_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Note each task at the run that began it."""

    def make(
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        **more: Any,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        context: Context | None = more.get("context")
        run = _RUN.get() if context is None else context.get(_RUN)
        if run is not None:
            run.tasks.add(task)
            task.add_done_callback(run.tasks.discard)
        return task

    loop.set_task_factory(make)


def context_of(run: Run) -> Context:
    """Return a context for the run: a task begun in it is a part of this run."""
    context = copy_context()
    context.run(_RUN.set, run)
    context.run(MEMBER.set, run.member)
    return context


class MemberRun:
    """A Child that is no process."""

    def __init__(self, pack: "Members", worker: Worker) -> None:
        self.pid, self.run = os.getpid(), Run(worker.id)
        self._pack, self._worker = pack, worker
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._life: Life | None = None
        self._asked = False
        self._last: asyncio.TimerHandle | None = None
        name, context = f"run of {worker.id}", context_of(self.run)
        task = self._loop.create_task(self._work(), name=name, context=context)
        task.add_done_callback(self._end)

    def send(self, number: Signals) -> None:
        if number is not SIGTERM:
            self.run.cancel()
            words = f"{self._worker.id} cannot be ended alone"
            if self._last is None:
                self._last = self._loop.call_later(BROKEN_OFF_WITHIN, self._pack.broken, words)
        elif self._life is not None:
            self._life.ask()
        self._asked = True

    def release(self) -> None: ...

    async def clear(self) -> int:
        """End all that a run began: nothing of it may go on."""
        self.run.cancel()
        if self.run.tasks:
            await asyncio.wait(set(self.run.tasks), timeout=LEFT_WITHIN)
        if self.run.tasks:
            self._pack.broken(f"{self._worker.id} ended, and a task of it goes on")
        if self._last is not None:
            self._last.cancel()
        return 0

    def _end(self, task: "asyncio.Task[int]") -> None:
        status = SIGKILL if task.cancelled() else task.result()
        result = "exit-code" if status else ""
        self.ended.set_result(Exit("signal" if task.cancelled() else result, status))

    def _notice(self, *said: str) -> None:
        self._worker.notice(dict(each.split("=", 1) for each in said))
        for each in said:
            if each.startswith("EXTEND"):
                self._pack.extend(each)

    async def _work(self) -> int:
        """Run the member; return the exit status that its process would have."""
        pack, id = self._pack, self._worker.id
        folder = pack.links / id
        try:
            identity = await asyncio.to_thread(read_identity, id, pack.root)
            refuse_foreign_group(identity.folder)
            folder.mkdir(mode=0o750, exist_ok=True)
            hello = Hello(id, self._worker.status.run, identity.engine, self.pid)
            life = self._life = Life(hello, Notifier(take=self._notice), pack.watchdog)
            if self._asked:
                life.ask()
            with lock_held(identity.folder, identity.lineage):
                link = folder / "link.sock"
                return await run_session(identity, link, life, lambda _name: pack.open_engine)
        except WaError as error:
            log.error("%s", error)
            return error.exit_status
        except Exception:
            log.exception("the worker ended with an internal error")
            return 1


# The sessions of one pack. Each that is held has a folder for its socket, by which it begins again
# when the pack does; the agent begins a pack without any.


@dataclass(slots=True, eq=False)
class Members:
    """Follows the agent's `hold` and `release`."""

    root: Path
    links: Path
    """The folder with a folder for each member's socket."""
    open_engine: OpenEngine
    watchdog: float | None
    broken: Callable[[str], None]
    """Ends the whole pack at once: a member cannot be ended alone."""
    changed: Callable[[], None] = lambda: None
    extend: Callable[[str], object] = lambda _: None
    """Asks for more time, in the words of a notice, for a member that saves."""
    all: dict[InstanceId, Worker] = field(default_factory=dict)
    _closing: list[InstanceId] = field(default_factory=list)
    """Members that ran when the end of the pack was asked for."""

    def begin(self) -> None:
        """Begin again the members that were held."""
        for number, held in enumerate(sorted(self.links.iterdir()), 1):
            self._worker(parse_instance_id(held.name)).live(after=number * APART)

    def running(self) -> list[InstanceId]:
        return [id for id, worker in self.all.items() if worker.status.runs]

    def works(self) -> dict[str, Work]:
        """The agent's calls; each answer names all members."""

        async def answer(
            done: Callable[[InstanceId], Awaitable[None]] | None, args: Mapping[str, Any]
        ) -> Mapping[str, Any]:
            if done is not None:
                await done(parse_instance_id(args.get("id")))
            return {"members": self.statuses()}

        calls = {"hold": self.hold, "release": self.release}
        return {name: partial(answer, calls.get(name)) for name in ("members", *calls)}

    async def hold(self, id: InstanceId) -> None:
        """Start a member, unless it runs; HostError: it ended before it was ready."""
        worker = self._worker(id)
        if not worker.status.runs:
            worker.reset_failed()  # its limit is against crash loops, not against the agent
        await worker.start()
        self.all[id] = worker  # a release that ended meanwhile forgot it

    async def release(self, id: InstanceId) -> None:
        """Stop a member, and forget it unless another call starts it again."""
        if (worker := self.all.get(id)) is not None:
            await worker.stop()
            with suppress(OSError):
                (self.links / id).rmdir()
            if not worker.status.runs:
                self.all.pop(id, None)  # another release may have forgotten it

    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """Return each member's status. One that ends with its pack was stopped by no person: it
        begins again with the next one."""
        ends = {id: {"state": UnitState.DEACTIVATING} for id in self._closing}
        return {id: asdict(member.status) | ends.get(id, {}) for id, member in self.all.items()}

    async def stop(self) -> bool:
        """All of them; whether each ended in order. Their folders stay, as the run folder of a unit
        that is restarted."""
        self._closing = self.running()
        workers = list(self.all.values())
        await asyncio.gather(*(worker.stop() for worker in workers))
        return all(worker.status.result == "success" for worker in workers)

    def _worker(self, id: InstanceId) -> Worker:
        if id not in self.all:
            limits = Limits(watchdog=self.watchdog or float("inf"), stop_timeout=35.0)
            self.all[id] = Worker(id, limits, partial(MemberRun, self), self.changed)
        return self.all[id]


def read_pack(name: str, _root: Path) -> Identity:
    """Return a pack's identity. It has no file: name and run folder say all."""
    id = parse_instance_id(name)
    return Identity(id, path_of("RUNTIME_DIRECTORY"), id.rpartition("-")[0], {})


async def work_together(identity: Identity, link_path: Path) -> int:
    life, loop = ProcessLife(identity), asyncio.get_running_loop()
    shared = SharedNode(identity.id)
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "pack"))
    follow_tasks(loop)
    links, root = link_path.with_name("members"), path_of("WA_MEMBERS_ROOT")
    refuse_foreign_group(root)
    links.mkdir(mode=0o750, exist_ok=True)
    for left in links.glob("*/link.sock"):  # of a run that was killed
        left.unlink()
    changed = asyncio.Event()

    def broken(why: str) -> None:
        log.error("the pack ends, and all its sessions log in again: %s", why)
        os._exit(1)

    def status() -> str:
        return counted(len(members.running()), "session")

    def tell() -> None:
        changed.set()
        server.happened(Happening("members"))

    async def stop() -> bool:
        life.notifier.send("STOPPING=1", "STATUS=stopping: closing its sessions")
        in_order = await members.stop()
        await shared.close()
        return in_order

    calls: dict[str, Work] = {"end": plain(life.stop)}
    server = await LinkServer.open(link_path, life.hello, partial(answer_with, calls), lambda: None)
    shared_by = (life.watchdog, broken, tell, life.notifier.send)
    members = Members(root, links, shared.open_engine, *shared_by)
    members.begin()
    calls |= members.works()
    told = tell_status(changed, status, life.notifier)
    works = {"shared": shared.watch(partial(life.notifier.send, "WATCHDOG=1")), "status": told}
    try:
        status_code = await life.spend(works, status, stop)
        await life.end(server)
    except BaseException:
        log.exception("the pack ended with an internal error")
        os._exit(1)  # its sessions are in an unknown state: what the disk holds is better
    return status_code
