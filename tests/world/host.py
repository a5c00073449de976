"""The host in the loop: each session's worker is a member in this very process."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGTERM

from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.engines.catalog import load_engine
from agent.errors import HostError
from agent.host.life import Limits, Wake, Worker
from agent.worker.pack import MemberRun, Members, follow_tasks
from tests.world.virtual import kill

WATCHDOG = 30.0


class Machine:
    """Holds what outlives an agent: the workers, and the callback for a change of one."""

    def __init__(self, root: Path, links: Path) -> None:
        self.wake: Wake = lambda _: None
        self.open_engine = load_engine("sandbox")
        self._root, self._links = root, links
        self._workers: dict[InstanceId, Worker] = {}

    def power_on(self) -> None:
        follow_tasks(asyncio.get_running_loop())
        self._links.mkdir(parents=True, exist_ok=True)

    def worker(self, id: InstanceId) -> Worker:
        if id not in self._workers:
            pack = Members(self._root, self._links, self.open_engine, WATCHDOG, _broken)
            launch = partial(MemberRun, pack)
            self._workers[id] = Worker(id, Limits(WATCHDOG), launch, lambda: self.wake(id))
        return self._workers[id]

    def known(self) -> Mapping[InstanceId, Worker]:
        return self._workers

    def link_path(self, id: InstanceId) -> Path:
        return self._links / id / "link.sock"

    async def kill(self, id: InstanceId) -> None:
        """Return when nothing of this run is left; the next one begins a moment later."""
        child = self._workers[id].child
        if isinstance(child, MemberRun) and child.run.tasks:
            kill(child.run)
            await asyncio.wait(set(child.run.tasks))

    async def end(self) -> None:
        for worker in self._workers.values():
            stop = asyncio.ensure_future(worker.stop())
            await asyncio.sleep(0)
            if worker.child is not None:
                worker.child.send(SIGTERM)  # asked again, it hurries
            with suppress(HostError):
                await stop


def _broken(why: str) -> None:
    raise AssertionError(why)


class LoopHost:
    name, boot = "process", "this boot"
    connected = True
    jobs_pending = 0

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.link_path = machine.link_path

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        found = {id: worker.status for id, worker in self._machine.known().items()}
        return {id: one for id, one in found.items() if one.state is not UnitState.INACTIVE}

    async def status(self, instance: InstanceId) -> UnitStatus:
        worker = self._machine.known().get(instance)
        return UNIT_ABSENT if worker is None else worker.status

    async def start(self, instance: InstanceId) -> None:
        await self._machine.worker(instance).start()

    async def stop(self, instance: InstanceId) -> None:
        await self._machine.worker(instance).stop()

    async def restart(self, instance: InstanceId) -> None:
        await self.stop(instance)
        await self.start(instance)

    async def reset_failed(self, instance: InstanceId) -> None:
        self._machine.worker(instance).reset_failed()

    def limit_memory(self, instance: InstanceId, most: int) -> None: ...

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return False

    def log_path(self, instance: InstanceId) -> Path | None:
        return None

    async def agent_is_restarting(self) -> bool:
        return False

    async def missing_address(self) -> str:
        return ""

    async def close(self, *, leave_workers: bool) -> None:
        if not leave_workers:
            await asyncio.gather(*(it.stop() for it in self._machine.known().values()))
