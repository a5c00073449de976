"""A few rounds of `scripts/chaos fleet`: the faults that are most likely to run a session twice."""

from pathlib import Path

import pytest

from scripts.nemeses.__main__ import chaos
from tests.engines.baileys.conftest import cache

__all__ = ["cache"]


@pytest.mark.slow
async def test_no_session_runs_twice_and_all_come_back(tmp_path: Path, cache: Path) -> None:
    async with chaos(tmp_path, 1, cache) as fleet:
        await fleet.play(["machine frozen", "database killed"])
        await fleet.play(["machine cut from both"])
        await fleet.play(["database lost a second"])
