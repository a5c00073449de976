"""The sessions of one pack, and the file by which they begin again when the pack does."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.clock import boot_id
from agent.core.model import InstanceId, UnitState, parse_instance_id
from agent.errors import InvalidRequest
from agent.files import write_whole
from agent.host.life import Limits, Worker
from agent.worker.calls import Work
from agent.worker.pack.member import House, MemberRun

log = logging.getLogger(__name__)

FILE = "members.json"
"""In the pack's run folder: its members that run."""
APART = 0.2
"""Seconds between two sessions that begin again with their pack: each logs in."""


class Members:
    """Follows the agent's `hold` and `release`."""

    def __init__(self, folder: Path, house: House, changed: Callable[[], None]) -> None:
        """`folder`: the pack's run folder. `changed`: once for what changes in a turn of the
        loop."""
        self.all: dict[InstanceId, Worker] = {}
        self._path, self._house, self._changed = folder / FILE, house, changed
        self._told: asyncio.Handle | None = None
        self._closing: set[InstanceId] = set()
        """Those that ran when the end of the pack was asked for."""
        for number, id in enumerate(self._read(), 1):
            # It ran when the pack ended by itself, in this boot of the machine.
            self._worker(id).live(after=number * APART)

    def running(self) -> list[InstanceId]:
        return [id for id, worker in self.all.items() if not worker.at_rest]

    def works(self) -> dict[str, Work]:
        """The agent's calls; each answer names all members."""

        def work(done: Callable[[InstanceId], Awaitable[None]] | None = None) -> Work:
            async def answer(args: Mapping[str, Any]) -> Mapping[str, Any]:
                if done is not None:
                    await done(parse_instance_id(args.get("id")))
                return {"members": self.statuses()}

            return answer

        calls = {"hold": self.hold, "release": self.release, "forget": self.forget}
        return {"members": work(), **{name: work(call) for name, call in calls.items()}}

    async def hold(self, id: InstanceId) -> None:
        """Start it, unless it runs; HostError: it ended before it was ready."""
        worker = self._worker(id)
        if worker.at_rest:
            worker.reset_failed()  # its limit is against crash loops, not against the agent
        await worker.start()

    async def release(self, id: InstanceId) -> None:
        if (worker := self.all.get(id)) is not None:
            await worker.stop()

    async def forget(self, id: InstanceId) -> None:
        await self.release(id)
        if id in self.all and self.all[id].at_rest:
            del self.all[id]

    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """One that ends with its pack was stopped by no person: it begins again with it."""
        told = {id: worker.status for id, worker in self.all.items()}
        for id in self._closing:
            told[id] = replace(told[id], state=UnitState.DEACTIVATING)
        return {id: asdict(status) for id, status in told.items()}

    async def stop(self) -> bool:
        """All of them; whether each ended in order. The file stays: a unit that is restarted keeps
        its run folder."""
        self._write()
        self._closing = set(self.running())
        workers = list(self.all.values())
        await asyncio.gather(*(worker.stop() for worker in workers))
        return all(worker.status.result == "success" for worker in workers)

    def _worker(self, id: InstanceId) -> Worker:
        if id not in self.all:
            limits = Limits(watchdog=self._house.watchdog or math.inf, stop_timeout=35.0)
            self.all[id] = Worker(id, limits, partial(MemberRun, self._house), self._note)
        return self.all[id]

    def _note(self) -> None:
        if self._told is None:
            self._told = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._told = None
        if not self._closing:
            self._write()
        self._changed()

    def _write(self) -> None:
        """What a kill of the pack brings back is what runs, or is about to."""
        content = json.dumps({"boot": _boot(), "members": self.running()})
        try:
            write_whole(self._path, content.encode(), durable=False)
        except OSError as error:
            log.error("cannot write %s: %s", self._path, error.strerror)

    def _read(self) -> list[InstanceId]:
        try:
            raw = json.loads(self._path.read_bytes())
            return [parse_instance_id(id) for id in raw["members"] if raw["boot"] == _boot()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, InvalidRequest) as error:
            log.error("cannot read %s: %s", self._path, error)
            return []


def _boot() -> str:
    """A unit may not read it, and its run folder does not outlive a boot."""
    try:
        return boot_id()
    except OSError:
        return ""
