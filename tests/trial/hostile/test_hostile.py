"""Each boundary under the first hostile cases of one seed."""

from pathlib import Path

import pytest

from tests.standin.clients import with_rights
from tests.trial.hostile.frame import hunt, load, names

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
