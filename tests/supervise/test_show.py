"""The picture of an instance promises nothing that will not happen."""

import time
from dataclasses import replace

import pytest

from agent.config.config import Config
from agent.core.model import (
    ConnectionStatus,
    Health,
    HealthVerdict,
    Instance,
    InstanceId,
    SessionRecord,
)
from agent.supervise.facts import Facts
from agent.supervise.settings import Settings
from agent.supervise.turns.turns import Turns
from agent.supervise.views import ViewSources, view_of


class AnyHost:
    def boot_id(self) -> str:
        return "boot-1"


class NobodyWaits:
    def before(self, id: InstanceId) -> None:
        return None


TURNS = Turns(NobodyWaits(), None, None, None, None)  # type: ignore[arg-type]
SOURCES = ViewSources(
    AnyHost(),  # type: ignore[arg-type]
    TURNS,
    Settings(Config()),
    lambda facts: False,
    lambda backend: f"{backend} 2.3.7",
)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("connection_lost", True),
        ("banned", False),
    ],
)
async def test_a_next_try_is_shown_only_where_one_will_come(reason, told):
    record = SessionRecord(reason=reason, not_before_wall=time.time() + 100)
    facts = Facts(Instance(InstanceId("a"), "sandbox", True), record)
    assert (view_of(facts, SOURCES).next_attempt_wall is not None) is told
    facts.record = replace(record, not_before_wall=0.0)
    assert view_of(facts, SOURCES).next_attempt_wall is None


@pytest.mark.parametrize(
    ("verdict", "reason", "told"),
    [
        ("healthy", "", False),
        ("disconnected", "temporary_ban", False),
        ("corrupted", "session_damaged", False),
        ("disconnected", "network_down", True),
        ("not_found", "not_running", True),
    ],
)
async def test_an_outage_is_shown_only_for_sessions_that_wait_for_its_end(verdict, reason, told):
    facts = Facts(Instance(InstanceId("a"), "sandbox", True), SessionRecord())
    judged = HealthVerdict(Health(verdict), ConnectionStatus.RECONNECTING, reason, "so")
    facts.shown = (facts.unit, judged)
    facts.wait_reason = "network_down"
    assert view_of(facts, SOURCES).wait_reason == ("network_down" if told else "")
    facts.instance = replace(facts.instance, enabled=False)
    assert view_of(facts, SOURCES).wait_reason == ""
