"""Each boundary under the first hostile cases of one seed; and the frame that plays them."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.standin.clients import with_rights
from tests.trial.hostile.frame import case_of, hunt, load, names

SEED = 1


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a client waits is measured by `scripts/fuzz http`, on a machine that is its own."""
    monkeypatch.setattr(with_rights, "SERVED", 20.0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", names())
async def test_no_hostile_case_of_the_suites_seed_breaks_a_boundary(
    name: str, tmp_path: Path
) -> None:
    boundary = load(name)
    numbers = range(boundary.CASES)
    finding, played = await hunt(name, boundary, tmp_path, seed=SEED, numbers=numbers)
    assert finding is None, str(finding)
    assert played == boundary.CASES


class Fragile:
    """Breaks when it is given 7 and later 9, in one case or in two."""

    CASES = 50
    opened = 0

    def draw(self, chance: random.Random) -> list[int]:
        return [chance.randrange(30) for _ in range(12)]

    @asynccontextmanager
    async def world(self, folder: Path) -> AsyncIterator[list[int]]:
        assert folder.is_dir()
        self.opened += 1
        yield []

    async def play(self, world: list[int], case: list[int]) -> None:
        world += case
        assert 7 not in world or 9 not in world[world.index(7) :], "7 came before 9"


async def test_a_finding_is_shrunk_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    fragile = Fragile()
    finding, played = await hunt("fragile", fragile, tmp_path, seed=3, numbers=range(50))
    assert finding is not None
    assert finding.number == played - 1
    again, _ = await hunt(
        "fragile", fragile, tmp_path / "x", seed=3, numbers=range(finding.first, played)
    )
    assert again == finding
    assert f"--seed 3 --case {finding.first}" in str(finding)
    alone = [n for n in range(500) if await _breaks_alone(n)]
    shrunk, _ = await hunt("fragile", fragile, tmp_path / "y", seed=3, numbers=alone[:1])
    assert shrunk is not None
    assert shrunk.case == [7, 9]


async def _breaks_alone(number: int) -> bool:
    case = case_of(Fragile(), 3, number)
    return 7 in case and 9 in case[case.index(7) :]
