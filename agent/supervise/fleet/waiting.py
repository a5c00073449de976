"""The sessions of a fleet that should run and whose machine cannot run them, with the reasons."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from agent.core.fleet.takeover import Failover
from agent.errors import WaError
from agent.fleet.coordinator import SessionRow
from agent.fleet.fleet import Fleet
from agent.supervise.fleet.comparing import Comparing
from agent.supervise.fleet.moves import Moves

Waiting = Sequence[tuple[str, str, str]]
"""id, why, machine."""
NONE: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WaitingList:
    fleet: Fleet
    comparing: Comparing
    moves: Moves

    def known(self, lacking: Mapping[str, float] = NONE) -> Waiting:
        """Without a question to the database; `lacking`: whose copy lacks changes, for how long."""
        mine = self.fleet.machine
        reasons = {**self.moves.refused, **self.comparing.problems}
        return [*((id, why, mine) for id, why in reasons.items()), *self._of_lost_machines(lacking)]

    async def everywhere(self) -> Waiting:
        """With those whose files another machine cannot place, as that one said last."""
        there: Sequence[tuple[str, str, int]] = ()
        lacking: Mapping[str, float] = {}
        if not self.fleet.keeper.database_error:
            with suppress(WaError):
                there = await self.fleet.requests.unplaced()
                lacking = await self.fleet.requests.lacking()
        known = self.known(lacking)
        named, name_of = {id for id, *_ in known}, self.fleet.directory.name_of
        return [*known, *((id, why, name_of(by)) for id, why, by in there if id not in named)]

    def _of_lost_machines(self, lacking: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
        directory = self.fleet.directory
        lost = {row.id: row.name for row in directory.others if not row.alive}
        for session in directory.sessions.values():
            if session.machine in lost and session.wanted == "running":
                name = lost[session.machine]
                yield session.id, f"its machine is lost; {_stays(session, lacking)}", name


def _stays(session: SessionRow, lacking: Mapping[str, float]) -> str:
    if session.failover == Failover.WAIT:
        return "it waits for that machine (failover = wait)"
    if session.id in lacking:
        return (
            f"its stored copy lacked changes then, as is said for {lacking[session.id]:.0f} s: it"
            f" waits for that machine, or for wa-agent fleet accept-copy {session.id}"
        )
    return "no copy is stored" if session.copy_at is None else "no other machine has taken it yet"
