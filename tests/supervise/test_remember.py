"""A pass learns operators' own doings, drops (counted once), statuses and their story."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from agent.clock import boot_now
from agent.config.config import Config
from agent.core.breaker import Breaker
from agent.core.health import HealthPolicy, judge_health
from agent.core.model import (
    ConnectionStatus,
    Instance,
    InstanceId,
    JournalEntry,
    Override,
    ProbeFact,
    SessionRecord,
    UnitState,
    UnitStatus,
)
from agent.core.reconcile import ActionKind, Outcome, Plan
from agent.core.reconnect import ReconnectPolicy
from agent.core.session import Run
from agent.core.words import Claim, Happening
from agent.supervise import passes
from agent.supervise.facts import Facts, Settings, is_trouble
from agent.supervise.observe import note_unit
from agent.supervise.record import judge_keys, note_operator, remember, signals_of, take_in
from agent.supervise.registry import Registry, identity_of

SETTINGS = Settings(Config())
BOOT = "boot-1"
NOW = 1000.0
WALL = 1_800_000_000.0
RUNS = UnitStatus(UnitState.ACTIVE, run="r1", main_pid=7, since=900.0)
STOPPED = UnitStatus(UnitState.INACTIVE)


def operated(it: Facts, unit: UnitStatus, *, past_us: bool = True) -> list[JournalEntry]:
    it.unit = unit
    note_operator(it, past_us=past_us)
    return said(it)


def said(it: Facts) -> list[JournalEntry]:
    now, it.unsaid = it.unsaid, []
    return now


def facts(enabled: bool = True, **record: object) -> Facts:
    known = SessionRecord(seen_run="r1", seen_boot=BOOT)
    return Facts(
        Instance(InstanceId("a"), "sandbox", enabled),
        replace(known, **record),  # type: ignore[arg-type]
        observed=True,
        boot=BOOT,
    )


@pytest.mark.parametrize(
    ("known", "unit", "expected"),
    [
        pytest.param({}, STOPPED, Override.STOPPED, id="stopped past us"),
        pytest.param({"stopped_run": "r1"}, STOPPED, Override.NONE, id="we stopped it"),
        pytest.param({"seen_boot": "boot-0"}, STOPPED, Override.NONE, id="the machine booted"),
        pytest.param({}, replace(STOPPED, job_pending=True), Override.NONE, id="a job runs"),
        pytest.param({}, replace(STOPPED, state=UnitState.FAILED), Override.NONE, id="it crashed"),
    ],
)
def test_a_stop_by_hand_is_respected(known, unit, expected):
    it = facts(**known)
    operated(it, unit)
    assert it.record.override is expected


def test_a_start_asked_of_us_after_a_stop_by_hand_is_no_stop_again() -> None:
    it = facts()
    operated(it, STOPPED)
    assert it.record.override is Override.STOPPED
    it.record = replace(it.record, override=Override.NONE, override_boot="")
    assert operated(it, STOPPED) == []
    assert it.record.override is Override.NONE
    operated(it, replace(RUNS, run="r2"))
    assert [one.kind for one in operated(it, STOPPED)] == ["operator"]
    assert it.record.override_boot == BOOT


def test_without_systemd_no_operator_acts_past_the_agent():
    assert operated(facts(), STOPPED, past_us=False) == []


def look(
    it: Facts,
    claim: Claim | None,
    *,
    at: float = NOW,
    probe: ProbeFact | None = None,
    wall: float = WALL,
) -> list[str]:
    """One pass's memory of a running worker that says `claim`."""
    it.unit = RUNS
    if claim is not None:
        it.heard(claim, at)
    it.run.linked_since, it.run.probe, it.at_wall = 900.0, probe, wall + at

    remember(GATE, it, judge_health(it, HealthPolicy(), at))
    return [one.kind for one in said(it)]


GATE: Any = Mock(settings=SETTINGS)
CONNECTED = Claim(ConnectionStatus.CONNECTED, proof_age=0.1, paired=True, account="49")
LOST = Claim(ConnectionStatus.DISCONNECTED, reason="connection_lost", paired=True)


def test_what_a_run_said_is_no_word_of_the_next_one():
    look(it := facts(), CONNECTED)
    note_unit(it, replace(RUNS, run="r2"))
    assert it.run.claim is None


def test_what_began_under_a_clock_that_was_ahead_lasts_as_long_by_the_boot_clock():
    look(it := facts(), CONNECTED, wall=WALL + 9e6)
    it.at, it.status_time = NOW + 300, it.status_time.enter(CONNECTED.status, NOW)
    look(it, CONNECTED, at=NOW + 300)
    assert it.record.status_since_wall == it.connected_since_wall == WALL + NOW


def test_a_drop_is_counted_once_until_the_next_try_or_the_last_word():
    it = facts()
    look(it, CONNECTED)
    for _ in range(3):
        look(it, LOST, at=NOW + 1)
    assert (it.record.breaker.failures, it.record.reason) == (1, "connection_lost")
    look(it, Claim(ConnectionStatus.LOADING, phase="login", paired=True), at=NOW + 30)
    assert it.record.status is ConnectionStatus.LOADING
    look(it, LOST, at=NOW + 40)
    assert it.record.status is ConnectionStatus.RECONNECTING
    assert it.record.status_since_wall == WALL + NOW + 1, "a try that fails is no new outage"
    look(it, replace(LOST, reason="logout", paired=False), at=NOW + 42)
    assert it.record.reason == "logout"
    assert it.counters.errors == {"connection_lost": 2, "logout": 1}


def test_what_ends_in_a_ban_is_no_second_ban_and_makes_it_no_shorter():
    it, ban = facts(), Claim(ConnectionStatus.DISCONNECTED, reason="temporary_ban", paired=True)
    look(it, ban)
    until_wall = it.record.not_before_wall
    for step, claim in enumerate((ban, LOST, replace(ban, until_wall=until_wall + 9)), 1):
        it.run = Run()  # its host began another one
        look(it, claim, at=NOW + step)
        assert (it.record.reason, it.record.strikes) == ("temporary_ban", 1)
    # The identity keeps the ban's end through a takeover, or without the database.
    assert identity_of(it).record.not_before_wall == until_wall + 9
    it.unit, it.at_wall = replace(STOPPED, state=UnitState.FAILED), it.at_wall + 1
    remember(GATE, it, judge_health(it, HealthPolicy(), NOW))
    assert it.record.not_before_wall == until_wall + 9
    look(it, replace(ban, reason="logout"), at=NOW + 9)
    assert it.record.reason == "logout"


def test_a_page_that_reconnects_by_itself_is_counted_by_its_reason():
    it, status = facts(), ConnectionStatus.RECONNECTING
    for step, claim in enumerate((CONNECTED, replace(LOST, status=status), CONNECTED)):
        look(it, claim, at=NOW + step)
    assert it.counters.by_word["reconnects"] == {"connection_lost": 1}


def test_a_zombie_is_counted_once_until_it_is_connected_again():
    """A repair connects it again: what it claims on the way is no new failure."""
    it, silent = facts(), ProbeFact(False, NOW, 10.0, 3)
    look(it, CONNECTED)
    for step, status in enumerate(("CONNECTED", "INITIALIZING", "LOADING", "CONNECTED")):
        look(it, Claim(ConnectionStatus(status), proof_age=0.1), at=NOW + step, probe=silent)
    assert it.record.breaker.failures == 1
    assert it.counters.errors["zombie"] == 1
    look(it, CONNECTED, at=NOW + 10)
    look(it, CONNECTED, at=NOW + 20, probe=silent)
    assert it.counters.errors["zombie"] == 2


def test_an_agent_that_restarts_does_not_count_a_drop_again():
    it = facts(reason="connection_lost", status=ConnectionStatus.RECONNECTING)
    it.observed = False
    look(it, LOST)
    assert it.record.breaker.failures == 0


def test_waiting_for_a_scan_uses_up_no_attempts():
    it = facts(attempts=3)
    look(it, Claim(ConnectionStatus.QR_REQUIRED))
    assert it.record.attempts == 0
    assert it.record.status is ConnectionStatus.QR_REQUIRED


def test_a_pairing_is_remembered_and_told():
    it = facts()
    assert "paired" in look(it, CONNECTED)
    assert (it.record.paired, it.record.account) == (True, "49")
    assert "paired" not in look(it, CONNECTED, at=NOW + 1)


def test_a_start_by_hand_after_a_ban_is_a_persons_wish_and_a_boots_is_not():
    new_run = replace(RUNS, run="r2", since=990.0)
    by_hand = facts(reason="temporary_ban", not_before_wall=9.0, stopped_run="r1")
    operated(by_hand, new_run)
    assert (by_hand.record.reason, by_hand.record.restart_of) == ("", "r2")
    booted = facts(reason="banned", stopped_run="r1", seen_boot="boot-0")
    operated(booted, new_run)
    assert (booted.record.reason, booted.record.restart_of) == ("banned", "")


async def test_a_reconnect_and_how_it_ended_stand_under_one_category(monkeypatch) -> None:
    monkeypatch.setattr(passes, "carry_out", AsyncMock(return_value=Outcome(True, 1.0)))
    it, means = facts(reason="connection_lost"), AsyncMock(settings=SETTINGS)
    it.lost_because = "connection_lost"
    await passes.carry_through(means, it, Plan("start", (ActionKind.START,), "it should run"))
    assert [one.category for one in said(it)] == ["RECONNECT", "RECONNECT"]


def test_a_circuit_is_noted_when_it_opens_and_when_it_closes_and_never_in_between() -> None:
    policy, it = ReconnectPolicy().breaker, facts(reason="connection_lost")
    closed = it.record
    it.record = replace(closed, breaker=Breaker(5, WALL))
    passes.note_circuit(it, closed, policy)
    (told,) = said(it)
    assert is_trouble(told), "the log tells it as a warning"
    assert "600 s" in told.sentence and "wa-agent recover a" in told.sentence
    before, it.record = it.record, replace(closed, breaker=Breaker(6, WALL + 600))
    passes.note_circuit(it, before, policy)
    assert not it.unsaid, "a trial failed: it stays open"
    before, it.record = it.record, closed
    passes.note_circuit(it, before, policy)
    passes.note_circuit(it, closed, policy)
    assert [one.kind for one in said(it)] == ["session_circuit_closed"]


def test_troubles_that_the_log_shows_as_warnings() -> None:
    def status(before: str, now: str, reason: str, **more: object) -> JournalEntry:
        detail = {"before": before, "status": now, "reason": reason, **more}
        return JournalEntry("status", "", detail=detail)

    def verdict(health: str, reason: str) -> JournalEntry:
        return JournalEntry("verdict", "", detail={"verdict": health, "reason": reason})

    for entry, warns in (
        (status("CONNECTED", "RECONNECTING", "connection_lost"), True),
        (status("CONNECTED", "DISCONNECTED", "stopped"), False),
        (status("CONNECTED", "AUTH_FAILURE", "logout", asked=True), False),
        (status("RECONNECTING", "CONNECTED", ""), False),
        (status("LOADING", "DISCONNECTED", "banned"), True),
        (status("LOADING", "QR_REQUIRED", "waiting_for_scan"), False),
        (verdict("stuck", "start_stuck"), True),
        (verdict("disconnected", "qr_idle"), False),
    ):
        assert is_trouble(entry) is warns, entry


def test_a_proof_that_grew_too_old_since_the_last_pass_is_no_connection() -> None:
    """As after a suspend of the machine, until the loop of passes turns."""
    it = facts(status=ConnectionStatus.CONNECTED)
    it.unit, it.verdict = RUNS, judge_health(it, HealthPolicy(), NOW)
    registry = Registry(Mock(), Mock(settings=SETTINGS), Path(), {it.id: it})
    for old, status in ((60.0, "CONNECTED"), (3600.0, "RECONNECTING")):
        it.heard(Claim(ConnectionStatus.CONNECTED, proof_age=old), boot_now())
        assert registry.view(it.id).status == status


def test_a_phase_that_began_under_an_agent_before_us_began_then() -> None:
    it, loading = facts(), partial(Claim, ConnectionStatus.LOADING)
    it.heard(loading(phase="login", still_for=170.0), 1000.0)
    assert it.run.claim.phase_since == 830.0
    it.heard(loading(phase="login", still_for=171.5), 1001.0)
    assert it.run.claim.phase_since == 830.0, "once known, it is not moved by a word's delay"
    it.heard(loading(phase="sync", still_for=0.5), 1010.0)
    assert it.run.claim.phase_since == 1009.5


def after(errors: int, peers: int, **more: str) -> Facts:
    it = facts(paired=True)
    for number in range(errors):
        peer, id = f"55119000000{number % peers:02}", f"{number % peers}"
        detail = {"text": "Bad MAC", "peer": peer, "id": id, **more}
        take_in(Mock(settings=SETTINGS), it, Happening("crypto_error", detail))
    return it


@pytest.mark.parametrize(("errors", "peers"), [(8, 1), (400, 90)])
def test_strangers_ask_for_no_step_however_much_they_write(errors: int, peers: int) -> None:
    """Contacts of whom the session holds no keys: what they write costs it nothing."""
    policy, later = SETTINGS.config.crypto, boot_now() + 60
    assert judge_keys(after(errors, peers), policy, later).signal is not None
    it = after(errors, peers, stranger="true")
    found = judge_keys(it, policy, later)
    assert (found.signal, found.peers) == (None, ())
    assert it.counters.errors == {"crypto_stranger": errors}
    assert not [signal for signal in signals_of(SETTINGS, it) if "crypto" in signal.name]
