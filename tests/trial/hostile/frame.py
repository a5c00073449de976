"""Hostile cases for one boundary of the program: drawn from a seed, played, and shrunk.

A boundary is a module tests/trial/hostile/NAME.py with four names:

    CASES: int                                     how many the suite plays
    def draw(chance: Random) -> list[Step]         a case: steps that JSON can hold, by chance alone
    def world(folder: Path) -> async context       the real processes; a new one after each failure
    async def play(world, case: list[Step]) -> None    AssertionError says what the case broke

The suite plays the first CASES of one seed; `scripts/fuzz NAME --for 1h` goes on with others. Cases
share a world until one breaks it; that one is shrunk in new worlds, and the finding says how to
repeat it.
"""

import asyncio
import importlib
import json
import pkgutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

Step = Any
"""A value that JSON can hold."""
CASE_LIMIT = 180.0
"""Seconds after which a case hangs."""
SHRINK = 180.0
"""Seconds for making a failing case shorter."""


class Boundary(Protocol):
    CASES: int

    def draw(self, chance: Random) -> list[Step]: ...
    def world(self, folder: Path) -> AbstractAsyncContextManager[Any]: ...
    async def play(self, world: Any, case: list[Step]) -> None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    boundary: str
    seed: int
    first: int
    """The case with which its world began."""
    number: int
    broke: str
    case: list[Step]
    """The shortest that breaks the same; all of it where it needs the cases before it."""

    def __str__(self) -> str:
        alone = self.first == self.number
        which = str(self.number) if alone else f"{self.first}-{self.number}"
        again = f"scripts/fuzz {self.boundary} --seed {self.seed} --case {which}"
        if not alone:
            return f"{self.broke}\nrepeat it: {again}"
        steps = json.dumps(self.case)
        return f"{self.broke}\nrepeat it: {again}\nits steps, for --steps FILE:\n{steps}"


def names() -> list[str]:
    """Names of all boundaries."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    found = (module.name for module in modules if not module.ispkg)
    return [name for name in found if name != "frame" and not name.startswith(("test_", "__"))]


def load(name: str) -> Boundary:
    return cast(Boundary, importlib.import_module(f"tests.trial.hostile.{name}"))


def case_of(boundary: Boundary, seed: int, number: int) -> list[Step]:
    """Through JSON: what is repeated from its printed steps is the same."""
    drawn = boundary.draw(Random(f"{seed}:{number}"))
    return cast(list[Step], json.loads(json.dumps(drawn)))


async def hunt(
    name: str,
    boundary: Boundary,
    folder: Path,
    *,
    seed: int,
    numbers: Iterable[int],
    until: float = float("inf"),
) -> tuple[Finding | None, int]:
    """Play these cases until one breaks something, or until that monotonic time; the finding, and
    how many were played."""
    rooms, played = Rooms(boundary, folder), 0
    async with rooms.one() as world:
        first: int | None = None
        for number in numbers:
            if time.monotonic() > until:
                break
            first = number if first is None else first
            case = case_of(boundary, seed, number)
            played += 1
            if broke := await _broken_by(boundary, world, case):
                break
        else:
            broke = ""
        if not played or not broke:
            return None, played
    assert first is not None
    if alone := await rooms.try_alone(case):
        return Finding(name, seed, number, number, alone, await rooms.shrink(case)), played
    return Finding(name, seed, first, number, broke, case), played


async def _broken_by(boundary: Boundary, world: object, case: list[Step]) -> str:
    try:
        async with asyncio.timeout(CASE_LIMIT):
            await boundary.play(world, case)
    except TimeoutError:
        return f"the case did not end within {CASE_LIMIT:.0f} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Rooms:
    """Worlds of one boundary, each in a folder of its own."""

    def __init__(self, boundary: Boundary, folder: Path) -> None:
        self._boundary, self._folder, self._count = boundary, folder, count()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        folder = self._folder / str(next(self._count))
        folder.mkdir(parents=True)
        async with self._boundary.world(folder) as world:
            yield world

    async def try_alone(self, case: list[Step]) -> str:
        """Return what this case breaks in a new world; "" = nothing."""
        async with self.one() as world:
            return await _broken_by(self._boundary, world, case)

    async def shrink(self, case: list[Step]) -> list[Step]:
        """Without each part, halves first, that it needs not to break something."""
        until, size = time.monotonic() + SHRINK, len(case) // 2
        while size and time.monotonic() < until:
            start = 0
            while start < len(case) and time.monotonic() < until:
                less = case[:start] + case[start + size :]
                if less and await self.try_alone(less):
                    case = less
                else:
                    start += size
            size //= 2
        return case
