"""The machines that the database lists, as places for sessions."""

from collections.abc import Iterable

from agent.core.fleet.placement import Place, Placing, place
from agent.fleet.coordinator import MachineRow, NewSession


def place_of(row: MachineRow) -> Place:
    engines = frozenset(row.engines)
    return Place(row.name, row.capacity, row.sessions, row.labels, engines, row.drained)


def machines_for(sessions: Iterable[NewSession], rows: Iterable[MachineRow]) -> dict[str, int]:
    """A living machine for each session of a lost one, as far as there is any: id → its number."""
    alive = [row for row in rows if row.alive]
    chosen = place(
        [Placing(it.id, it.engine, it.labels, it.only_on) for it in sessions],
        [place_of(row) for row in alive],
    )
    ids = {row.name: row.id for row in alive}
    return {session: ids[name] for session, name in chosen.on.items()}
