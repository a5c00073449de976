"""Faults of the processes at random moments."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.benches.processes import tree
from scripts.messages.beds import Bed
from scripts.messages.supervised import Supervised
from tests.daemon.conftest import RunningAgent, workers_in

LONGEST_FREEZE, LONGEST_CUT = 6.0, 8.0
WEIGHTS = {
    "worker killed": 5,
    "{below} killed": 5,
    "worker frozen": 2,
    "{below} frozen": 2,
    "agent killed": 2,
    "agent frozen": 1,
    "webhook's target killed": 2,
    "webhook's target frozen": 1,
    "network cut": 1,
}
OF_PACKS = {"pack killed": 3, "pack frozen": 1}
"""Sessions of a pack have one worker with one Node."""


class Faults:
    """`bot`: a plain bot; each kill of a worker and of a Node may be one of it, too."""

    def __init__(
        self,
        *,
        bed: Bed,
        agent: RunningAgent,
        ids: Sequence[str],
        packed: bool,
        target: Supervised,
        bot: Supervised | None,
        chance: random.Random,
    ) -> None:
        self._bed, self._agent = bed, agent
        self._victims: list[str | Supervised] = [*ids, bot] if bot else [*ids]
        self._target, self._chance = target, chance
        self._weights = {
            name.format(below=bed.below): weight
            for name, weight in WEIGHTS.items()
            if bed.below or "{below}" not in name
        } | (OF_PACKS if packed else {})
        self._starting = asyncio.Lock()
        self.done: Counter[str] = Counter()

    async def go_on(self, every: float) -> None:
        """Until cancelled; what was frozen goes on then."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(self._chance.uniform(0.0, 2 * every))
                name = self._chance.choices([*self._weights], [*self._weights.values()])[0]
                self.done[name] += 1
                tasks.create_task(self._do(name), name=name)

    async def _do(self, name: str) -> None:
        who, _, what = name.rpartition(" ")
        if what == "cut":
            await self._bed.cut(self._chance.uniform(0.5, LONGEST_CUT))
        elif who == "agent":
            await self._to_agent(what)
        elif who == "webhook's target":
            await self._hurt(self._target.pids, what)
        else:
            victim = self._chance.choice(self._victims)
            if isinstance(victim, Supervised):
                await self._hurt(victim.pids, what)
                return
            worker, keeper, below = self._processes(victim)
            some = [self._chance.choice(below)] if below else []
            await self._hurt({"worker": [worker], "pack": [keeper]}.get(who, some), what)

    async def _to_agent(self, what: str) -> None:
        process = self._agent.process
        if process is None or process.returncode is not None:
            return
        if what == "killed":
            await self._agent.kill()
            await self.start_agent()
        else:
            await self._hurt([process.pid], what)

    async def start_agent(self) -> None:
        """Unless it runs."""
        async with self._starting:
            process = self._agent.process
            if process is None or process.returncode is not None:
                await self._agent.start(self._bed.environment, ready=False)

    async def _hurt(self, pids: Sequence[int], what: str) -> None:
        if what == "killed":
            _signal(pids, signal.SIGKILL)
            return
        _signal(pids, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(0.5, LONGEST_FREEZE))
        finally:
            _signal(pids, signal.SIGCONT)

    def _processes(self, id: str) -> tuple[int, int, list[int]]:
        """A session's own worker, that of its pack, and those below; 0 while there is none."""
        state = self._agent.state
        worker = workers_in(state / "run").get(id, 0)
        held = (state / "run-packs").glob("*/members.json")
        packs = [note.parent for note in held if id in _read(note, "members", {})]
        keeper = workers_in(state / "run-packs").get(packs[0].name, 0) if packs else 0
        _, *below = [*tree(keeper or worker)] if keeper or worker else [0]
        return worker, keeper, below


def _read(note: Path, name: str, default: Any) -> Any:
    with suppress(OSError, ValueError, KeyError):
        return json.loads(note.read_text())[name]
    return default


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, number)
