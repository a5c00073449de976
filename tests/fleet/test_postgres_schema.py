"""Versions of the tables: which program may use which, and how they get newer."""

import subprocess
import sys

import pytest

from agent.errors import Refused, WaError
from agent.fleet.coordinator import NewSession
from agent.fleet.postgres import schema
from agent.fleet.postgres.schema import STEPS, Step, prepare
from agent.fleet.postgres.tables import VERSION
from tests.fleet.test_postgres import Fleet, fleet, machine, renewed, server, two_machines

__all__ = ["fleet", "server"]

NEWER = VERSION + 1
COLUMN = "ALTER TABLE wa_agent.session ADD COLUMN mood text NOT NULL DEFAULT 'fine'"


def test_the_newest_step_makes_the_tables_that_this_program_is_written_for():
    assert STEPS[-1].version == VERSION


async def versions(fleet: Fleet) -> tuple[int, int]:
    return await fleet.coordinator().schema()


async def test_programs_of_neighbouring_versions_run_side_by_side(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    """As in an upgrade: machine by machine, then the tables."""
    first, a, second, b = await two_machines(fleet)
    await second.close()
    monkeypatch.setattr("agent.fleet.postgres.tables.VERSION", NEWER)
    newer = fleet.coordinator()
    b = await renewed(newer, await newer.join(machine("b")), a.id)
    added = Step(NEWER, VERSION, [COLUMN])
    assert await prepare(fleet.server.url, [*STEPS, added]) == (VERSION, NEWER)
    b = await renewed(newer, b, a.id)
    assert await newer.hand_over(b, "shop", a.id, "drain")
    monkeypatch.setattr("agent.fleet.postgres.tables.VERSION", VERSION)
    assert [it.id for it in await first.owned(a)] == ["shop"]
    await first.close()
    again = fleet.coordinator()
    a = await renewed(again, a, b.id)
    assert await again.create(a, NewSession("bar", "sandbox"), b.id)
    assert await versions(fleet) == (NEWER, VERSION)


async def test_tables_that_an_older_program_may_not_use_are_refused(fleet: Fleet):
    first, *_ = await two_machines(fleet)
    changed = [COLUMN, "ALTER FUNCTION wa_agent.set_drained RENAME TO drain"]
    await prepare(fleet.server.url, [*STEPS, Step(NEWER, NEWER, changed)])
    with pytest.raises(Refused) as refused:
        await fleet.joined("c")
    assert refused.value.code == "fleet_schema"
    assert "upgrade this machine's agent" in str(refused.value)
    with pytest.raises(Refused):
        await first.set_drained("b", True)
    with pytest.raises(Refused, match="upgrade this machine's agent"):
        await first.machines()
    assert await prepare(fleet.server.url) == (NEWER, NEWER), "an older program changes nothing"


@pytest.mark.parametrize("tables", ["older", "none"])
async def test_tables_that_are_too_old_are_refused_with_the_command(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tables: str
):
    if tables == "older":
        monkeypatch.setattr("agent.fleet.postgres.tables.OLDEST", NEWER)
    else:
        fleet.server.sql("DROP TABLE wa_agent.fleet")
    with pytest.raises(Refused, match="wa-agent fleet database prepare") as refused:
        await fleet.joined("a")
    assert refused.value.code == "fleet_schema"


async def test_a_login_without_rights_is_shown_the_command(fleet: Fleet):
    fleet.server.sql("REVOKE wa_agent_machine FROM agent")
    with pytest.raises(Refused, match="allow this login") as refused:
        await fleet.joined("a")
    assert refused.value.code == "fleet_schema"
    await schema.allow(fleet.server.url, "agent")
    await fleet.joined("a")


def test_a_machine_without_the_library_says_how_to_get_it():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from agent.errors import ConfigError\n"
        "try: import agent.fleet.postgres.coordinator\n"
        "except ConfigError as error: print(error.code, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.stdout.startswith("fleet_packages"), done.stderr
    assert "scripts/install --with fleet" in done.stdout


async def test_a_step_that_fails_leaves_the_tables_as_they_were(fleet: Fleet):
    await two_machines(fleet)
    with pytest.raises(WaError):
        await prepare(fleet.server.url, [*STEPS, Step(NEWER, VERSION, [COLUMN, "SELECT 1 / 0"])])
    assert await versions(fleet) == (VERSION, 1)
    assert await prepare(fleet.server.url, [*STEPS, Step(NEWER, VERSION, [COLUMN])]) == (
        VERSION,
        NEWER,
    )


async def test_only_the_owner_of_the_tables_prepares_them(fleet: Fleet):
    with pytest.raises(Refused):
        await prepare(fleet.address, [*STEPS, Step(NEWER, VERSION, [COLUMN])])
    with pytest.raises(Refused):
        await schema.allow(fleet.address, "agent")
    assert await versions(fleet) == (VERSION, 1)
