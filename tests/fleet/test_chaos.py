"""A few rounds of `scripts/chaos fleet`: the faults that are most likely to run a session twice."""

from pathlib import Path

import pytest

from scripts.nemeses.rounds import MACHINES, chaos
from tests.engines.baileys.conftest import cache

__all__ = ["cache"]


@pytest.mark.slow
async def test_no_session_runs_twice_and_all_come_back(tmp_path: Path, cache: Path) -> None:
    async with chaos(tmp_path, 1, cache) as fleet:
        await fleet.play(["machine frozen", "database killed"])
        await fleet.play(["machine cut from both"])
        await fleet.play(["database lost a second"])
        await fleet.play(["machine's clock stepped", "database's clock stepped"])
        await fleet.keep(tmp_path / "kept")
        logins = (tmp_path / "kept/logins.txt").read_text()
        assert {it for it in MACHINES if f" on {it} (login " in logins} == set(MACHINES)
        assert "'address': m" in logins
        done = (tmp_path / "kept/faults.txt").read_text()
        assert "begins: machine cut from both" in done and done.count("ended") == 4
        assert {*MACHINES, "database.sql"} <= {it.name for it in (tmp_path / "kept").iterdir()}
