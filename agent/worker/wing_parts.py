"""What runs in a session's worker of each wing that brings such a part."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from agent.core.words import Happening, InstanceId
from agent.engines.base import Engine, Keeper, KeepsNothing
from agent.wing import wings
from agent.worker.calls import Work


class WorkerPart(Keeper, Protocol):
    """A wing's `open_worker_part` opens it."""

    @property
    def works(self) -> Mapping[str, Work]:
        """The calls of the link that it answers, by name."""

    def serve(self, engine: Engine) -> None:
        """The session's engine, once it is there."""

    async def close(self) -> None: ...


OpenWorkerPart = Callable[
    [Path, InstanceId, Mapping[str, Any], Callable[[Happening], None]], WorkerPart | None
]
"""The folder of the instance, its id, the wing's settings, what tells the agent; None: it has
nothing to do here."""


class WorkerParts:
    """Those of all wings, as one. What arrives is kept when each of them has it."""

    def __init__(self, parts: Sequence[WorkerPart]) -> None:
        self._parts = parts
        self.works = {name: work for part in parts for name, work in part.works.items()}

    @property
    def keeper(self) -> Keeper:
        """Of what arrives."""
        keeping = [part for part in self._parts if part.keeps]
        return _All(keeping) if len(keeping) > 1 else keeping[0] if keeping else KeepsNothing()

    def serve(self, engine: Engine) -> None:
        for part in self._parts:
            part.serve(engine)

    async def close(self) -> None:
        for part in self._parts:
            await part.close()


class _All:
    def __init__(self, parts: Sequence[Keeper]) -> None:
        self._parts = parts
        self.keeps = True

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        for part in self._parts:
            await part.keep(records)


def open_worker_parts(
    folder: Path,
    id: InstanceId,
    settings: Mapping[str, Any],
    tell: Callable[[Happening], None],
) -> WorkerParts:
    """`settings`: each wing's, by its name."""
    opened = (
        wing.take(wing.worker).open_worker_part(folder, id, settings.get(wing.name, {}), tell)
        for wing in wings()
        if wing.worker
    )
    return WorkerParts([part for part in opened if part is not None])
