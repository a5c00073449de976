"""Each row of the table begins when it must and not before; what covers what; what is unknown."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent.core.model import ConnectionStatus, Health, HealthVerdict, InstanceId, Signal
from agent.core.session import BackendView
from agent.core.troubles import TABLE, Key, Look, Sight, Trouble, Windows, counted_of, look
from agent.core.words import ServerClaim
from tests.fakes.supervisor import make_view

S = ConnectionStatus
WELL = {
    "wa_host_memory_total_bytes": 100.0,
    "wa_host_memory_used_bytes": 20.0,
    "wa_host_cpu_usage_ratio": 0.2,
    "wa_host_filesystem_size_bytes": 100.0,
    "wa_host_filesystem_avail_bytes": 80.0,
    "process_open_fds": 10.0,
    "process_max_fds": 100.0,
}
WALL = 1_800_000_000.0


def verdict(health: Health, reason: str = "", status: ConnectionStatus = S.CONNECTED) -> Any:
    return HealthVerdict(health, status, reason, "")


class World:
    """A machine with one session, `a`, looked at every five seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.windows = Windows()
        self.present: Mapping[Key, Trouble] = {}
        self.changes: dict[str, Any] = {}
        self.sessions = {"a": make_view("a")}
        self.told: list[tuple[str, str]] = []

    def put(self, id: str = "a", **more: Any) -> None:
        self.sessions[id] = make_view(id, **more)

    def look(self, **changes: Any) -> Look:
        self.changes.update(changes)
        extra = {"lost": 0, "sends_failed": 0, **self.changes.get("counted", {})}
        counted = {id: {**counted_of(view), **extra} for id, view in self.sessions.items()}
        self.windows.note({"": self.changes.get("agent", {}), **counted}, self.now)
        fields = {it: self.changes[it] for it in self.changes.keys() - {"counted", "agent"}}
        fields["machine"] = {**WELL, **fields.get("machine", {})}
        sight = Sight(self.now, WALL + self.now, self.sessions, windows=self.windows, **fields)
        found = self.present, begun, over = look(TABLE, self.present, sight)
        self.told += [("begun", one.row.name) for one in begun]
        self.told += [("over", one.row.name) for one in over]
        self.now += 5.0
        return found

    def run(self, seconds: float, **changes: Any) -> set[str]:
        for _ in range(int(seconds / 5)):
            self.look(**changes)
        return {one.row.name for one in self.present.values() if one.begun_wall is not None}


def bad(reason: str, status: ConnectionStatus = S.DISCONNECTED) -> dict[str, Any]:
    return {"status": status, "reason": reason, "verdict": verdict(Health.DEGRADED, reason, status)}


def backend(**more: Any) -> dict[str, BackendView]:
    claim = ServerClaim(more.pop("up", False), "failing", "it answers 502")
    return {"evo": BackendView("evo", "evolution", "http://x", claim, **more)}


def test_none_begins_while_it_is_well() -> None:
    world = World()
    world.put(verdict=verdict(Health.CORRUPTED, "keys"))
    assert world.run(400) == set()
    world.put(reconnects={"backend_down": 11})
    assert world.run(20) == world.run(900) == set()
    world.put(status=S.INITIALIZING, reason="not_told")
    assert world.run(900) == set(), "its program tells nothing, and runs"


STORIES: tuple[tuple[str, float, dict[str, Any], dict[str, Any]], ...] = (
    ("down", 300, {"status": S.RECONNECTING, "reason": "connection_lost"}, {}),
    ("needs_scan", 300, {"status": S.QR_REQUIRED}, {}),
    ("unstable", 0, bad("worker_failed", S.RECONNECTING), {}),
    ("given_up", 0, bad("passkey_required", S.QR_REQUIRED), {}),
    ("corrupted", 600, {"verdict": verdict(Health.CORRUPTED, "keys")}, {}),
    ("degraded", 0, {"verdict": verdict(Health.DEGRADED, "silent_inbound")}, {}),
    ("slow", 300, {"response_seconds": 5.1}, {}),
    ("memory_critical", 60, {"memory_bytes": 96, "memory_limit": 100}, {}),
    ("incident", 0, {}, {"groups": {"baileys": "client_outdated"}}),
    ("backend_down", 120, {}, {"backends": backend()}),
    ("backend_logs", 0, {}, {"backends": backend(up=True, warning="a log is unreadable")}),
    ("machine_memory_critical", 60, {}, {"machine": {"wa_host_memory_used_bytes": 96.0}}),
    ("machine_cpu", 600, {}, {"machine": {"wa_host_cpu_usage_ratio": 0.91}}),
    ("disk_low", 300, {}, {"machine": {"wa_host_filesystem_avail_bytes": 9.0}}),
    ("disk_full", 0, {}, {"machine": {"free_files": 0.01}}),
    ("outbox_lost", 0, {}, {"outbox_lost": "it was removed"}),
    ("fleet", 60, {}, {"fleet": "b: it is lost"}),
    ("folder_lost", 0, {"signals": (Signal("folder_lost", Health.DEGRADED, "moved"),)}, {}),
    ("messages", 0, {}, {"outbox_oldest": {"a": WALL}}),
    ("unstable", 0, {"restarts": {"watchdog": 3}}, {}),
    ("unstable", 0, {"reconnects": {"connection_lost": 6, "conflict": 5}}, {}),
    ("keys_not_renewed", 0, {"key_regenerations": {"failed": 1}}, {}),
    ("messages", 0, {}, {"counted": {"lost": 1}}),
    ("messages", 0, {}, {"counted": {"sends_failed": 6}}),
)
"""A row, the seconds that it waits, how the session is then, and what else is so."""


@pytest.mark.parametrize(("name", "wait", "session", "around"), STORIES, ids=str)
def test_a_trouble_begins_after_its_time_and_ends_with_its_cause(
    name: str, wait: float, session: dict[str, Any], around: dict[str, Any]
) -> None:
    world = World()
    assert world.run(20) == set()
    world.put(**session)
    if wait:
        assert name not in world.run(wait, **around)
    assert name in world.run(10, **around)
    assert world.told.count(("begun", name)) == 1
    assert not [row.name for row in TABLE if "/var/" in row.advice], "the state may lie elsewhere"
    world.put(restarts={}, reconnects={}, key_regenerations={})
    world.changes.clear()
    assert world.run(1900) == set()
    assert world.told.count(("over", name)) == 1


@pytest.mark.parametrize(
    "session",
    [
        {"restarts": {"watchdog": 2}},
        {"reconnects": {"connection_lost": 10}},
        {"memory_bytes": 80, "memory_limit": 0},
        {"messages": {"in": 90}, "errors": {"crypto": 10}},
        {"errors": {"crypto": 3}, "counts_messages": False},
    ],
    ids=str,
)
def test_at_its_limit_nothing_begins(session: dict[str, Any]) -> None:
    world = World()
    world.run(20)
    world.put(**session)
    assert world.run(700) == set()


def test_the_share_of_messages_that_cannot_be_read() -> None:
    world = World()
    found: set[str] = set()
    for minute in range(11):
        world.put(messages={"in": 80 * minute}, errors={"crypto": 20 * minute})
        found = world.run(60)
    assert found == {"key_errors"}
    (one,) = world.present.values()
    assert one.sentence == "a cannot decrypt 20% of its messages"


def test_counters_before_the_first_look_and_one_that_began_again_count_nothing() -> None:
    world = World()
    world.put(restarts={"watchdog": 50})
    assert world.run(60) == set()
    world.put(restarts={"watchdog": 2})
    assert world.run(60) == set()


def test_corrupted_goes_on_while_its_own_repair_reconnects_it() -> None:
    world = World()
    sick = {"verdict": verdict(Health.CORRUPTED, "keys")}
    well = {"verdict": verdict(Health.HEALTHY)}
    for _ in range(3):
        world.put(**sick)
        world.run(150)
        world.put(**well)
        found = world.run(100)
    assert found == {"corrupted"}
    for _ in range(3):
        world.put(**sick)
        world.run(150)
        world.put(**well)
        assert world.run(200) == {"corrupted"}
    assert world.run(110) == set()
    assert world.told == [("begun", "corrupted"), ("over", "corrupted")]


@pytest.mark.parametrize(
    ("session", "only"),
    [
        ({**bad("attempts_used_up"), "circuit": "open"}, "given_up"),
        ({**bad("client_outdated"), "circuit": "open"}, "down"),
        ({"status": S.DISCONNECTED, "reason": "temporary_ban", "not_before_wall": 2e9}, "banned"),
        ({"memory_bytes": 97, "memory_limit": 100}, "memory_critical"),
    ],
    ids=str,
)
def test_one_cause_is_told_once(session: dict[str, Any], only: str) -> None:
    world = World()
    world.put(**session)
    assert world.run(900) == {only}
    assert world.told == [("begun", only)]
    (one,) = world.present.values()
    assert re.fullmatch(r"|\d+%|: .*|2033-05-1\d \d\d:33:20", one.value), "as the log has times"


def test_several_at_once_have_one_cause() -> None:
    world = World()
    for id in "abc":
        world.put(id, verdict=verdict(Health.CORRUPTED, "keys"))
    assert world.run(900) == {"corrupted_together"}
    world = World()
    world.sessions = {id: make_view(id) for id in "abcd"}
    world.run(10)
    for id in "abc":
        world.put(id, errors={"logout": 1}, status=S.QR_REQUIRED)
    assert world.run(10) == {"ended_together"}


def test_of_sessions_on_a_server_that_is_down_nothing_new_is_told() -> None:
    world = World()
    instance = replace(make_view("a").instance, settings={"backend": "evo"})
    world.put(instance=instance, **bad("temporary_ban"))
    assert world.run(10, backends=backend(up=True)) == {"given_up"}
    world.put(instance=instance, status=S.RECONNECTING)
    world.put("b", instance=replace(instance, id=InstanceId("b")), status=S.RECONNECTING)
    assert world.run(900, backends=backend()) == {"given_up", "backend_down"}
    said = world.present["backend_down", "evo"].sentence
    assert said.endswith("the state of its sessions is unknown: it answers 502")
    world.put(instance=instance)
    assert world.run(10, backends=backend(up=True)) == set()
