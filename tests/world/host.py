"""The host in the loop: each session's worker is a member in this very process."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agent.core.model import UNIT_ABSENT, InstanceId, UnitState, UnitStatus
from agent.engines.catalog import load_engine
from agent.errors import HostError
from agent.host.base import Wake
from agent.worker.pack.member import House, Member
from agent.worker.pack.tasks import follow_tasks
from tests.world.virtual import kill

WATCHDOG = 30.0


class Machine:
    """What outlives an agent: the workers, and who is woken when one changes."""

    def __init__(self, root: Path, links: Path) -> None:
        self.wake: Wake = lambda _: None
        self.open_engine = load_engine("sandbox")
        self._root, self._links = root, links
        self._members: dict[InstanceId, Member] = {}
        self._looks: asyncio.Task[None] | None = None

    def power_on(self) -> None:
        if self._looks is None:
            follow_tasks(asyncio.get_running_loop())
            self._links.mkdir(parents=True, exist_ok=True)
            self._looks = asyncio.create_task(self._look(), name="machine")

    def member(self, id: InstanceId) -> Member:
        if id not in self._members:
            house = House(
                root=self._root,
                links=self._links,
                check_folder=lambda _: None,
                open_engine=self.open_engine,
                watchdog=WATCHDOG,
                changed=lambda: self.wake(id),
                extend=lambda _: None,
                sharers=lambda: 1,
                broken=_broken,
            )
            self._members[id] = Member(id, house)
        return self._members[id]

    def known(self) -> Mapping[InstanceId, Member]:
        return self._members

    def link_path(self, id: InstanceId) -> Path:
        return self._links / id / "link.sock"

    async def kill(self, id: InstanceId) -> None:
        """Return when nothing of this run is left; the next one begins a moment later."""
        run = self._members[id]._run
        if run is not None and run.tasks:
            kill(run)
            await asyncio.wait(set(run.tasks))

    async def end(self) -> None:
        for member in self._members.values():
            with suppress(HostError):
                await member.stop(hurry=True)
        if self._looks is not None:
            self._looks.cancel()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for member in self._members.values():
                member.look()


def _broken(why: str) -> None:
    raise AssertionError(why)


class LoopHost:
    name = "process"
    connected = True
    jobs_pending = 0

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.link_path = machine.link_path

    async def list(self) -> Mapping[InstanceId, UnitStatus]:
        found = {id: status_of(member) for id, member in self._machine.known().items()}
        return {id: one for id, one in found.items() if one.state is not UnitState.INACTIVE}

    async def status(self, instance: InstanceId) -> UnitStatus:
        member = self._machine.known().get(instance)
        return UNIT_ABSENT if member is None else status_of(member)

    async def start(self, instance: InstanceId) -> None:
        member = self._machine.member(instance)
        await member.start()
        if member.state is not UnitState.ACTIVE:
            raise HostError(f"cannot start {instance}: its worker ended")

    async def stop(self, instance: InstanceId) -> None:
        await self._machine.member(instance).stop()

    async def restart(self, instance: InstanceId) -> None:
        await self.stop(instance)
        await self.start(instance)

    async def reset_failed(self, instance: InstanceId) -> None:
        self._machine.member(instance).reset_failed()

    def limit_memory(self, instance: InstanceId, most: int) -> None: ...

    def enabled_by_operator(self, instance: InstanceId) -> bool:
        return False

    def log_path(self, instance: InstanceId) -> Path | None:
        return None

    def boot_id(self) -> str:
        return "this boot"

    async def agent_is_restarting(self) -> bool:
        return False

    async def missing_address(self) -> str:
        return ""

    async def close(self, *, leave_workers: bool) -> None:
        if not leave_workers:
            members = self._machine.known().values()
            await asyncio.gather(*(member.stop() for member in members))


def status_of(member: Member) -> UnitStatus:
    said = dict(member.status())
    run = str(said.pop("run"))
    state = UnitState(said.pop("state"))
    return UnitStatus(state, run, 0 if member.at_rest else os.getpid(), **said)
