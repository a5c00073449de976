"""The sessions of one pack, and the file by which they begin again when the pack does."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.clock import boot_id
from agent.core.model import UnitState
from agent.core.words import Happening, InstanceId, parse_instance_id
from agent.errors import InvalidRequest
from agent.files import write_whole
from agent.link.server import LinkServer
from agent.worker.pack.member import House, Member

log = logging.getLogger(__name__)

FILE = "members.json"
"""In the pack's run folder: its members that run, and how often each began again."""
APART = 0.2
"""Seconds between two sessions that begin again with their pack: each logs in."""
LOOK_EVERY = 2.0


class Members:
    """Follows the agent's `hold` and `release`."""

    def __init__(self, folder: Path, make_house: Callable[["Members"], House]):
        """`folder`: the pack's run folder."""
        self.all: dict[InstanceId, Member] = {}
        self._path = folder / FILE
        self._house = make_house(self)
        self._server: LinkServer | None = None
        self._written = ""
        self._told: asyncio.Handle | None = None
        self._closing: set[InstanceId] = set()
        """Those that ran when the end of the pack was asked for."""
        for id, restarts in self._read().items():
            # It ran when the pack ended by itself, in this boot of the machine.
            self.all[id] = Member(id, self._house, restarts + 1)
            self.all[id].line_up()

    def attach(self, server: LinkServer) -> None:
        self._server = server

    @property
    def count(self) -> int:
        """Of those that run."""
        return sum(not member.at_rest for member in self.all.values())

    def changed(self) -> None:
        """The agent is told once for what changes in one turn of the loop."""
        if self._told is None:
            self._told = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._told = None
        if self._server is not None:
            self._server.happened(Happening("members"))

    async def hold(self, id: InstanceId) -> Mapping[str, Any]:
        """Start it, unless it runs; its status once it is ready or has ended."""
        member = self.all.get(id)
        if member is None:
            member = self.all[id] = Member(id, self._house)
        work = member.start()
        await self._with_file(work)
        return member.status()

    async def release(self, id: InstanceId) -> Mapping[str, Any]:
        member = self.all.get(id)
        if member is None:
            return {}
        await self._with_file(member.stop())
        return member.status()

    def forget(self, id: InstanceId) -> None:
        """A member that is at rest, and is no session of this pack any more."""
        if (member := self.all.get(id)) is not None and member.at_rest:
            del self.all[id]

    def reset_failed(self, id: InstanceId) -> None:
        if (member := self.all.get(id)) is not None:
            member.reset_failed()

    def statuses(self) -> dict[InstanceId, Mapping[str, Any]]:
        """One that ends with its pack was stopped by nobody: it begins again with it."""
        told = {id: member.status() for id, member in self.all.items()}
        ending = {"state": str(UnitState.DEACTIVATING)}
        return {
            id: {**each, **ending} if id in self._closing else each for id, each in told.items()
        }

    async def begin(self) -> None:
        """Start those in line."""
        for member in list(self.all.values()):
            if member.in_line:
                asyncio.get_running_loop().create_task(member.start())
                await asyncio.sleep(APART)

    async def watch(self) -> None:
        while True:
            for member in list(self.all.values()):
                member.look()
            self._write()
            await asyncio.sleep(LOOK_EVERY)

    async def stop(self, hurry: asyncio.Event) -> bool:
        """All of them; whether each ended in order. The file stays: a unit that is restarted keeps
        its run folder."""
        self._write()
        self._closing = {id for id, member in self.all.items() if not member.at_rest}
        stops = [asyncio.ensure_future(member.stop()) for member in self.all.values()]
        hurried = asyncio.ensure_future(hurry.wait())
        done = asyncio.ensure_future(self._all_of(stops))
        looks = asyncio.ensure_future(self._look_on())
        either: set[asyncio.Future[Any]] = {done, hurried}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            await asyncio.gather(*(member.stop(hurry=True) for member in self.all.values()))
        hurried.cancel()
        looks.cancel()
        return all(member.status()["result"] == "success" for member in self.all.values())

    async def _all_of(self, stops: list[asyncio.Task[None]]) -> None:
        await asyncio.gather(*stops, return_exceptions=True)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            for member in self.all.values():
                member.look()

    async def _with_file(self, work: Any) -> None:
        """What a kill of the pack brings back is what runs, or was about to."""
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        self._write()
        await asyncio.shield(task)
        self._write()

    def _write(self) -> None:
        running = {id: each.restarts for id, each in self.all.items() if not each.at_rest}
        if self._closing:
            return
        content = json.dumps({"boot": _boot(), "members": running})
        if content == self._written:
            return
        try:
            write_whole(self._path, content.encode(), durable=False)
        except OSError as error:
            log.error("cannot write %s: %s", self._path, error.strerror)
            return
        self._written = content

    def _read(self) -> dict[InstanceId, int]:
        try:
            raw = json.loads(self._path.read_bytes())
            if raw["boot"] != _boot():
                return {}
            return {parse_instance_id(id): int(count) for id, count in raw["members"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, InvalidRequest) as error:
            log.error("cannot read %s: %s", self._path, error)
            return {}


def _boot() -> str:
    """A unit may not read it, and its run folder does not outlive a boot."""
    try:
        return boot_id()
    except OSError:
        return ""
