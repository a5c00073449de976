"""The pace of all sessions: [messages.pace] as it is in force, and what it is reckoned from."""

import time

from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.wings.messages.out.limits import pace_of
from agent.wings.messages.out.session.ledger import Ledger
from agent.wings.messages.out.session.pacing import PaceOf, moment_of
from agent.wings.messages.out.session.people import PeopleReader


class Paces:
    def __init__(self, around: Around) -> None:
        self.rules = pace_of(around.config)
        self.of = PaceOf(lambda: self.rules, self._paired_wall)
        self._around = around

    async def run(self, ledger: Ledger) -> None:
        """Learn whom the sessions know."""
        reader = PeopleReader(
            self._around.messages, lambda: self.rules, lambda: moment_of(time.time())
        )
        await reader.run(ledger)

    async def _paired_wall(self, id: InstanceId) -> float | None:
        """When it was paired last, as far as its history goes."""
        entries = await self._around.store.history(id, limit=1, kinds=("paired",))
        return entries[0].wall if entries else None
