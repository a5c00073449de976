"""The agent's own figures: what is still to be brought back after a start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agent.config import Config
from agent.core.figures.durations import Durations
from agent.core.figures.repair_statistics import RepairStatistics
from agent.core.model import ConnectionStatus, Instance, InstanceId, SessionRecord
from agent.link.client import LinkStats
from agent.supervise.agent_status import CheckTimes, StatusFigures
from agent.supervise.facts import Facts
from agent.supervise.settings import Settings
from agent.supervise.turns.incidents import Incidents

S = ConnectionStatus


def figures(facts: dict[InstanceId, Facts]) -> StatusFigures:
    parts: dict[str, Any] = {
        "host": SimpleNamespace(name="process", connected=True, jobs_pending=0),
        "store": SimpleNamespace(stats=SimpleNamespace(writes=0, write_seconds=0.0, errors={})),
        "loop": SimpleNamespace(passes=0, pass_seconds=0.0, turned_at=0.0, late=0),
        "registry": SimpleNamespace(facts=facts, durations=Durations()),
        "ladder": SimpleNamespace(statistics=RepairStatistics()),
        "gates": SimpleNamespace(waiting=0, logins_left=lambda _now: None),
    }
    incidents = Incidents(
        lambda: None,
        facts,
        lambda _: None,
        lambda _: None,
        wanted=None,
        out_of_reach=None,
        way_out=None,
        reconnect=None,
    )  # type: ignore
    return StatusFigures(
        **parts,
        link_stats=LinkStats(),
        incidents=incidents,
        settings=Settings(Config()),
        checks=CheckTimes(),
        database=Path("/nowhere/agent.db"),
    )


def known(*names: str) -> dict[InstanceId, Facts]:
    found = {}
    for name in names:
        id = InstanceId(name)
        found[id] = Facts(
            Instance(id, "sandbox", True, {}, 0.0), SessionRecord(S.INITIALIZING, 0.0)
        )
    return found


def settle(facts: Facts, status: ConnectionStatus) -> None:
    facts.observed, facts.record = True, SessionRecord(status, 0.0)


def test_sessions_to_restore_are_counted_until_all_are_back() -> None:
    facts = known("a", "b")
    own = figures(facts)
    own.status()  # read before the number of instances is known
    own.expect(facts)
    assert (own.status().ready, own.status().restoring) == (False, (0, 2))
    a, b = facts.values()
    settle(a, S.CONNECTED)
    assert (own.status().ready, own.status().restoring) == (False, (1, 2))
    settle(b, S.RECONNECTING)
    assert (own.status().ready, own.status().restoring) == (True, (1, 2))
    settle(b, S.QR_REQUIRED)
    assert own.status().restoring == (2, 2)


def test_a_session_that_never_comes_back_does_not_make_others_count_as_restored_later() -> None:
    facts = known("a", "b", "c")
    own = figures(facts)
    own.expect(facts)
    a, b, c = facts.values()
    for one, status in ((a, S.CONNECTED), (b, S.RECONNECTING), (c, S.CONNECTED)):
        settle(one, status)
    assert own.status().restoring == (2, 3)
    settle(a, S.RECONNECTING)
    facts |= known("made later")
    assert (own.status().ready, own.status().restoring) == (True, (2, 3))
    del facts[InstanceId("b")]
    assert own.status().restoring == (3, 3), "deleted ones are not waited for"
