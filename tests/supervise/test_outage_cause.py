"""One cause of a backend's outage is told: the narrowest, once it is known."""

from typing import Any

import pytest

from agent.clock import boot_now
from agent.config import BackendDeclaration
from agent.core.backends.outage import Outage
from agent.core.model import InstanceId, ServerClaim, UnitState, UnitStatus
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.notes import note_cause, note_warning

NAME = InstanceId("evo")


@pytest.fixture
def away() -> BackendFacts:
    """Its worker runs and has told nothing yet; two sessions wait."""
    declared = BackendDeclaration("evo", "evolution", "http://127.0.0.1:1")
    circuit: Any = None
    backend = BackendFacts(declared, NAME, {}, circuit)
    backend.unit = UnitStatus(UnitState.ACTIVE)
    backend.outage = Outage(boot_now(), down=True)
    backend.away = {InstanceId("a"), InstanceId("b")}
    return backend


def told(backend: BackendFacts) -> list[str]:
    said: list[str] = []

    def say(_backend: BackendFacts, _kind: str, sentence: str, **_: object) -> Any:
        said.append(sentence)

    note_cause(backend, say)
    return said


def test_the_end_of_a_warning_names_the_warning(away: BackendFacts) -> None:
    said: list[str] = []

    def say(_backend: BackendFacts, _kind: str, sentence: str, **_: object) -> Any:
        said.append(sentence)

    link: Any = object()
    away.link = link
    for warning in ("2 answers lack a proof", "3 answers lack a proof", "", "its log is away", ""):
        away.server = ServerClaim(True, sentence=warning)
        note_warning(away, say)
    assert said == [
        "2 answers lack a proof",
        "its last warning is over: 3 answers lack a proof",
        "its log is away",
        "its last warning is over: its log is away",
    ]


def test_an_outage_is_told_once_with_the_cause_that_its_worker_finds(away: BackendFacts) -> None:
    assert told(away) == []
    link: Any = object()
    away.link, away.server = link, ServerClaim(False, "refused_key", "it refuses the key")
    assert told(away) == ["it is down: it refuses the key; 2 sessions wait for it"]
    assert told(away) == []


def test_of_a_worker_that_does_not_run_that_is_told_at_once(away: BackendFacts) -> None:
    away.unit = UnitStatus(UnitState.FAILED)
    assert told(away) == [
        "it is down: its worker is failed and does not answer; 2 sessions wait for it"
    ]
