"""What an outage of a backend does to its sessions: they wait (`backend_down`), and the agent
checks them one after another when it is over."""

import asyncio
import random
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_now
from agent.config.sections import BackendsSection
from agent.core.backends.outage import Turn, judge_outage
from agent.core.model import InstanceId
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.notes import Say, note_cause
from agent.supervise.facts import Facts


@dataclass(slots=True, eq=False, repr=False)
class Returns:
    members: Callable[[BackendFacts], list[Facts]]
    wake: Callable[[InstanceId], None]
    settings: Callable[[], BackendsSection]
    say: Say
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)

    def look(self, backend: BackendFacts) -> None:
        """Judge the backend's outage after a look; tell its sessions what changed."""
        before = backend.outage
        backend.outage, turn = judge_outage(
            backend.outage, up=backend.up, now=boot_now(), patience=self.settings().patience
        )
        if turn is Turn.LEFT:
            self._left(backend)
        elif turn is Turn.RETURNED:
            self._returned(backend)
        elif turn is Turn.BLINKED:
            self._begin(backend, self._look_again(backend))
        elif backend.outage.down:
            note_cause(backend, self.say)
        elif before.since is None and backend.outage.since is not None:
            for facts in self.members(backend):
                self.wake(facts.id)  # nothing measures it now

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _left(self, backend: BackendFacts) -> None:
        backend.since_wall = time.time()
        members = self.members(backend)
        backend.away = {facts.id for facts in members}
        backend.asking.clear()
        note_cause(backend, self.say)
        for facts in members:
            self.wake(facts.id)

    def _returned(self, backend: BackendFacts) -> None:
        backend.since_wall = time.time()
        members = [facts for facts in self.members(backend) if facts.id in backend.away]
        sentence = f"it is up; the agent checks its {len(members)} sessions in turn"
        self.say(backend, "backend_up", sentence)
        backend.away = {facts.id for facts in members}
        random.shuffle(members)
        self._begin(backend, self._bring_back(backend, members))

    def _begin(self, backend: BackendFacts, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"bring back {backend.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_again(self, backend: BackendFacts) -> None:
        """After a blink: only probes show which sessions it hit."""
        for facts in self.members(backend):
            facts.next_probe, facts.asked.try_at_once = 0.0, True
            await self._wake_in_turn(facts)

    async def _bring_back(self, backend: BackendFacts, members: Collection[Facts]) -> None:
        for facts in members:
            if backend.outage.down:
                return  # `_returned` begins again after the next return
            backend.away.discard(facts.id)
            # Claims from before the outage prove nothing.
            facts.run.claim, facts.run.probe, facts.next_probe = None, None, 0.0
            facts.asked.try_at_once = True  # its delay dates from before the outage
            facts.run.linked_since = boot_now()
            await self._wake_in_turn(facts)

    async def _wake_in_turn(self, facts: Facts) -> None:
        self.wake(facts.id)
        await asyncio.sleep(1.0 / self.settings().back_rate)
