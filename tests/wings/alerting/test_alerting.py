"""The agent's own look at the table: journal, log, Alertmanager; over a restart and a reload."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.core.alerts import AlertPolicy, AlertState
from agent.core.model import (
    Category,
    ConnectionStatus,
    Health,
    HealthVerdict,
    InstanceId,
    JournalEntry,
)
from agent.core.view import AgentStatus
from agent.metrics.exporter import Exporter
from agent.store.database import Store
from agent.wings.alerting.alertmanager import Raised
from agent.wings.alerting.part import Alerting, alertmanager_of
from agent.wings.webhooks.deliveries import WebhookFigures
from tests.conftest import Eventually
from tests.fakes.supervisor import FakeSupervisor, make_view

# A busy machine must not add alerts of its own to those that a test is about.
CALM = {
    "patience": 0.0,
    "host_cpu": 1.0,
    "host_memory_high": 1.0,
    "host_memory_critical": 1.0,
    "disk_free": 0.001,
    "off": ("WaHostCpuHigh", "WaDiskFills", "WaDiskSpaceLow", "WaFileDescriptorsHigh"),
}


@dataclass
class Heard:
    """Stands in for the Alertmanager's end."""

    pictures: list[list[Raised]]
    changed: list[bool]
    problem: str = ""

    def tell(self, picture: list[Raised], *, changed: bool) -> None:
        self.pictures.append(list(picture))
        self.changed.append(changed)


@dataclass
class Bench:
    alerting: Alerting
    supervisor: FakeSupervisor
    store: Store
    heard: Heard
    settings: list[AlertPolicy]
    """The section in force, as its only item."""

    def put(self, id: str, status: ConnectionStatus = ConnectionStatus.CONNECTED) -> None:
        view = make_view(id, status=status)
        self.supervisor.known = {**self.supervisor.known, InstanceId(id): view}

    async def story(self) -> list[tuple[str, str | None, str]]:
        found = await self.store.history(kinds=("alert", "alert_over"), after=0)
        return [(one.kind, one.instance, one.detail["alert"]) for one in found]


def make(tmp_path: Path, store: Any, **changes: Any) -> Bench:
    supervisor, heard = FakeSupervisor(), Heard([], [])
    settings = [AlertPolicy(**{**CALM, "machine": "m1", **changes})]
    alerting = Alerting(
        lambda: replace(Config(), alerts=settings[0]),
        supervisor.views,
        supervisor.status,
        Exporter(supervisor.views, supervisor.status, tmp_path),
        store,
        heard,  # type: ignore[arg-type]
    )
    return Bench(alerting, supervisor, store, heard, settings)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "agent.db")
    yield opened
    await opened.close()


@pytest.fixture
def bench(tmp_path: Path, store: Store) -> Bench:
    return make(tmp_path, store)


async def test_the_begin_and_the_end_of_an_alert_are_stored_sent_and_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.put("a", ConnectionStatus.RECONNECTING)
    await bench.alerting.look()
    await bench.alerting.look()
    bench.put("a")
    await bench.alerting.look()
    await bench.alerting.look()
    assert await bench.story() == [
        ("alert", "a", "WaSessionDown"),
        ("alert_over", "a", "WaSessionDown"),
    ]
    assert bench.heard.changed == [True, False, True, False]
    fires, over = (bench.heard.pictures[at] for at in (0, 2))
    (one,) = [each for each in fires if each.labels["alertname"] == "WaSessionDown"]
    assert one.labels == {
        "alertname": "WaSessionDown",
        "severity": "warning",
        "group": "connectivity",
        "job": "wa-agent",
        "machine": "m1",
        "session": "a",
        "engine": "sandbox",
    }
    assert one.ends_wall is None
    assert abs(one.starts_wall - time.time()) < 60
    (one,) = [each for each in over if each.labels["alertname"] == "WaSessionDown"]
    assert one.ends_wall is not None
    lines = [record.getMessage() for record in caplog.records if "WaSession" in record.message]
    assert [re.sub(r"\d+s$", "some seconds", line) for line in lines] == [
        "WaSessionDown: a should be connected and is not",
        "WaSessionDown is over for a, after some seconds",
    ]


async def test_f61_an_event_that_no_webhook_takes_is_alerted_of(bench: Bench) -> None:
    bench.alerting.of_wings = lambda: {"webhooks": WebhookFigures(waiting=3)}
    await bench.alerting.look()
    oldest = time.time() - 16 * 60
    behind = WebhookFigures(waiting=3, oldest_wall=oldest)
    bench.alerting.of_wings = lambda: {"webhooks": behind}
    await bench.alerting.look()
    await bench.alerting.look()
    assert await bench.story() == [("alert", None, "WaWebhookBacklog")]
    bench.alerting.of_wings = dict
    await bench.alerting.look()
    assert (await bench.story())[-1] == ("alert_over", None, "WaWebhookBacklog")


async def test_the_dead_mans_switch_is_sent_and_never_journaled(bench: Bench) -> None:
    await bench.alerting.look()
    assert [one.labels["alertname"] for one in bench.heard.pictures[0]] == ["WaDeadMansSwitch"]
    assert await bench.story() == []


async def test_an_alert_that_fired_before_a_restart_is_not_announced_again(
    bench: Bench, tmp_path: Path, store: Store
) -> None:
    for name in ("a", "b"):
        bench.put(name, ConnectionStatus.RECONNECTING)
    await bench.alerting.look()
    (begun,) = {entry.wall for entry in await store.history(kinds=("alert",), limit=1)}
    later = make(tmp_path, store, patience=1.0)
    later.put("a", ConnectionStatus.RECONNECTING)
    later.put("b")
    await later.alerting._take_over()
    await later.alerting.look()
    story = await bench.story()
    assert story[2:] == [("alert_over", "b", "WaSessionDown")]
    (one,) = [one for one in later.alerting.board().alerts if one.session == "a"]
    assert one.state is AlertState.FIRING
    assert abs((later.alerting.board().wall_of(one.fired_at) or 0) - begun) < 1


async def test_after_a_restart_an_alert_keeps_the_value_that_it_was_told_with(
    tmp_path: Path, store: Store
) -> None:
    detail = {"alert": "WaErrorRateHigh", "labels": {}, "value": 0.416}
    await store.append(JournalEntry("alert", "told then", Category.SYSTEM, detail=detail))
    later = make(tmp_path, store, patience=1.0)
    await later.alerting._take_over()
    (one,) = later.alerting.board().alerts
    assert one.sentence == "41.6% of the operations or HTTP requests fail"


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ((4000, 900, 600, 1), "WaAgentRestarting: the agent started 3 times in half an hour"),
        ((4000, 900, 1), None),
        ((900, 600, 1), None),
        ((4000, 1), None),
        ((1,), None),
    ],
)
async def test_starts_of_agents_before_this_one_count_and_its_own_once(
    bench: Bench, store: Store, starts: tuple[float, ...], said: str | None
) -> None:
    """As Prometheus counts: by how the beginning of the process changed."""
    now = time.time()
    for ago in starts:
        began = JournalEntry("agent_started", "it started", Category.SYSTEM, wall=now - ago)
        await store.append(began)
    # The process began a moment before it wrote that into the journal.
    bench.alerting.exporter.machine.started_wall = now - 1.7
    await bench.alerting._take_over()
    await bench.alerting.look()
    told = await store.history(kinds=("alert",), limit=10)
    assert [entry.sentence for entry in told] == ([] if said is None else [said])


async def test_a_reload_turns_an_alert_off_and_changes_limits(bench: Bench) -> None:
    bench.put("a", ConnectionStatus.RECONNECTING)
    await bench.alerting.look()
    (before,) = bench.settings
    bench.settings[0] = replace(before, off=(*before.off, "WaSessionDown"))
    await bench.alerting.look()
    assert (await bench.story())[-1] == ("alert_over", "a", "WaSessionDown")
    bench.settings[0] = replace(bench.settings[0], host_memory_high=0.0001)
    await bench.alerting.look()
    assert (await bench.story())[-1] == ("alert", None, "WaHostMemoryHigh")


async def test_a_store_that_fails_stops_no_alert(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await Store.open(tmp_path / "agent.db")
    await store.close()
    bench = make(tmp_path, store)
    bench.put("a", ConnectionStatus.RECONNECTING)
    await bench.alerting.look()
    assert "WaSessionDown" in {one.labels["alertname"] for one in bench.heard.pictures[0]}
    assert "the journal lacks alert: cannot use" in caplog.text


async def test_nothing_is_looked_at_before_what_is_to_be_restored_was(
    bench: Bench, eventually: Eventually
) -> None:
    asked = 0

    def status() -> AgentStatus:
        nonlocal asked
        asked += 1
        return bench.supervisor.status()

    bench.alerting.status = status
    bench.supervisor.agent = replace(bench.supervisor.agent, ready=False)
    bench.put("a", ConnectionStatus.RECONNECTING)
    task = asyncio.create_task(bench.alerting.run())
    await eventually(lambda: asked >= 3)
    assert bench.alerting.board().looked_wall is None
    bench.supervisor.agent = replace(bench.supervisor.agent, ready=True)
    await eventually(lambda: bench.alerting.board().looked_wall)
    task.cancel()


async def test_a_silenced_alert_is_shown_as_silenced(bench: Bench) -> None:
    beyond = HealthVerdict(Health.DISCONNECTED, ConnectionStatus.DISCONNECTED, "banned", "banned")
    view = make_view("a", status=ConnectionStatus.DISCONNECTED, verdict=beyond)
    bench.supervisor.known = {InstanceId("a"): view}
    await bench.alerting.look()
    board = bench.alerting.board()
    quiet = {name: by for (name, _), by in board.silenced.items()}
    assert quiet == {"WaSessionDown": "WaSessionGivenUp"}
    entries = await bench.store.history(kinds=("alert",), limit=10)
    by = {one.detail["alert"]: one.detail.get("silenced_by") for one in entries}
    assert by["WaSessionDown"] == "WaSessionGivenUp"
    assert by["WaSessionGivenUp"] is None


async def test_others_run_whenever_a_look_computed_for_its_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.wings.alerting.alert_table.AT_A_TIME", 0.0)
    bench.put("a")
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(others())
    await bench.alerting.look()
    running.cancel()
    assert turns >= len(bench.alerting.config().alert_table)


def test_no_address_means_no_alertmanager() -> None:
    assert alertmanager_of(AlertPolicy()) is None
    made = alertmanager_of(AlertPolicy(alertmanager="http://127.0.0.1:9093"))
    assert made is not None
    assert made.url == "http://127.0.0.1:9093"


def test_deliveries_to_an_alertmanager_are_counted_where_one_is_set(bench: Bench) -> None:
    bench.alerting.alertmanager = None
    assert not [*bench.alerting.samples()]
    assert [*bench.alerting.tasks()] == ["alerts"]
    made = alertmanager_of(AlertPolicy(alertmanager="http://127.0.0.1:9093"))
    assert made is not None
    made.deliveries["failed"] = 2
    bench.alerting.alertmanager = made
    ((family, text),) = bench.alerting.samples()
    assert f'{family.name}{{result="failed"}} 2' in text
    assert [*bench.alerting.tasks()] == ["alerts", "alertmanager"]


async def test_the_time_that_a_condition_holds_goes_on_over_a_restart_of_the_agent(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("agent.wings.alerting.part.boot_now", lambda: now[0])
    before = make(tmp_path, store, patience=1.0)
    before.put("a", ConnectionStatus.RECONNECTING)
    await before.alerting.look()
    now[0] = 1200.0
    await before.alerting.look()
    now[0] = 1230.0  # the agent was away for half a minute
    after = make(tmp_path, store, patience=1.0)
    after.put("a", ConnectionStatus.RECONNECTING)
    await after.alerting._take_over()
    await after.alerting.look()
    assert await after.story() == []
    now[0] = 1300.0
    await after.alerting.look()
    assert await after.story() == [("alert", "a", "WaSessionDown")]


@pytest.mark.parametrize("gap", ["an hour", "another boot"])
async def test_a_condition_from_before_a_long_absence_counts_no_more(
    gap: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("agent.wings.alerting.part.boot_now", lambda: now[0])
    before = make(tmp_path, store, patience=1.0)
    before.put("a", ConnectionStatus.RECONNECTING)
    await before.alerting.look()
    if gap == "an hour":
        now[0] += 3600
    else:
        monkeypatch.setattr("agent.wings.alerting.alerts_kept.boot_id", lambda: "another")
    after = make(tmp_path, store, patience=1.0)
    after.put("a", ConnectionStatus.RECONNECTING)
    await after.alerting._take_over()
    await after.alerting.look()
    (one,) = [one for one in after.alerting.board().alerts if one.name == "WaSessionDown"]
    assert one.since == now[0]


async def test_a_restart_of_the_agent_ends_no_alert_about_the_last_quarter_of_an_hour(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("agent.wings.alerting.part.boot_now", lambda: now[0])
    before = make(tmp_path, store, patience=1.0)
    before.put("a")
    await before.alerting.look()
    view = make_view("a", key_regenerations={"failed": 1})
    before.supervisor.known = {InstanceId("a"): view}
    await before.alerting.look()
    after = make(tmp_path, store, patience=1.0)
    after.put("a")
    await after.alerting._take_over()
    await after.alerting.look()
    now[0] += 890.0
    await after.alerting.look()
    assert await after.story() == [("alert", "a", "WaKeyRegenerationFailed")]
    now[0] += 20.0
    await after.alerting.look()
    assert ("alert_over", "a", "WaKeyRegenerationFailed") in await after.story()
