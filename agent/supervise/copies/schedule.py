"""Snapshots on a clock, of sessions that are connected and stable."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, Health, InstanceId
from agent.errors import WaError
from agent.log import going_on
from agent.supervise.copies.snapshots import Snapshots
from agent.supervise.facts import Facts
from agent.supervise.registry import Registry
from agent.supervise.settings import Settings
from agent.vault.copies.snapshots import newest_good
from agent.vault.copies.take import OUTSIDE

LOOK_EVERY = 30.0
AFTER_FAILURE = 600.0


@dataclass(slots=True, eq=False, repr=False)
class SnapshotClock:
    keeping: Snapshots
    registry: Registry
    root: Path
    settings: Settings
    _not_before: dict[InstanceId, float] = field(init=False, default_factory=dict)

    async def run(self) -> None:
        await self._look_at_what_is_there()
        while True:
            for facts in list(self.registry.facts.values()):
                if self._is_due(facts, time.time()):
                    await self._take(facts)
            interval = self.settings.config.sessions.snapshot_interval
            await asyncio.sleep(min(LOOK_EVERY, max(interval / 4, 0.25)))

    def _is_due(self, facts: Facts, now_wall: float) -> bool:
        chosen = self.settings.config.sessions
        if not chosen.snapshots or not chosen.snapshot_interval or facts.gone:
            return False
        if facts.instance.backend:
            return False  # its files are its server's
        since, last = facts.connected_since_wall, facts.last_snapshot_wall
        well = (
            facts.record.status is ConnectionStatus.CONNECTED
            and facts.verdict.health is Health.HEALTHY
            and facts.link is not None
        )
        if not well or since is None or now_wall - since < chosen.snapshot_stable:
            return False
        if boot_now() < self._not_before.get(facts.id, 0.0):
            return False
        # A clock that was set back must not end all snapshots.
        return last is None or not 0 <= now_wall - last < chosen.snapshot_interval

    async def _take(self, facts: Facts) -> None:
        pause = min(AFTER_FAILURE, self.settings.config.sessions.snapshot_interval)
        try:
            taken = await self.keeping.take(facts, "by the clock")
            if taken.good:
                self._not_before.pop(facts.id, None)
                return
            assert taken.manifest is not None
            facts.snapshot_failure = f"its last snapshot is {taken.manifest.state}"
        except WaError as error:
            if error.code == OUTSIDE:
                facts.snapshot_failure = ""  # the settings mean it so; `snapshot` tells
            elif not facts.gone:
                sentence = f"the agent could not make a snapshot: {error}"
                facts.snapshot_failure = sentence
                await self.keeping.say(facts, "snapshot_failed", sentence, reason=error.code)
        self.registry.touch(facts)
        self._not_before[facts.id] = boot_now() + pause

    async def _look_at_what_is_there(self) -> None:
        for facts in list(self.registry.facts.values()):
            with going_on():
                snapshot = await asyncio.to_thread(newest_good, self.root, facts.id)
                if snapshot is not None and snapshot.manifest is not None:
                    facts.last_snapshot_wall = snapshot.manifest.taken_wall
                    self.registry.touch(facts)
