"""The agent's own look at the table: journal, log, gauge, route and command; over a restart."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.config.config import ApiSection, Config
from agent.core.model import ConnectionStatus, InstanceId
from agent.core.troubles import TroublesPolicy
from agent.daemon.troubles import Troubles
from agent.messages.sending import Sending
from agent.metrics.exporter import Exporter
from agent.store.database import Store
from agent.supervise.facts import Settings
from tests.api.conftest import serve_fakes
from tests.cli.conftest import Cli
from tests.conftest import Eventually
from tests.fakes.messages import FakeMessages
from tests.fakes.supervisor import FakeKeys, FakeSupervisor, make_view

S = ConnectionStatus
CALM = replace(Config(), troubles=TroublesPolicy(cpu=1.0))


@dataclass
class Bench:
    troubles: Troubles
    supervisor: FakeSupervisor
    store: Store
    exporter: Exporter
    clock: list[float]

    def put(self, id: str, status: ConnectionStatus = S.CONNECTED, **more: Any) -> None:
        self.supervisor.known[InstanceId(id)] = make_view(id, status=status, **more)

    async def look(self, later: float = 0.0) -> set[str]:
        self.clock[0] += later
        await self.troubles.look()
        return {one.row.name for one in self.troubles.present()}

    async def story(self) -> list[tuple[str, str | None, str]]:
        found = await self.store.history(kinds=("trouble", "trouble_over"), after=0)
        return [(one.kind, one.instance, one.detail["trouble"]) for one in found]


def make(tmp_path: Path, store: Store, clock: list[float]) -> Bench:
    supervisor = FakeSupervisor()
    supervisor.registry = SimpleNamespace(facts=supervisor.known, present=supervisor.view)
    exporter = Exporter(supervisor.views, supervisor.status, [tmp_path])
    exporter.machine.values = lambda: {  # type: ignore[method-assign]
        "wa_host_memory_used_bytes": 1.0,
        "wa_host_memory_total_bytes": 2.0,
        "wa_host_cpu_usage_ratio": 0.1,
        "process_open_fds": 1.0,
        "process_max_fds": 2.0,
    }
    reader = FakeMessages().reader
    sending = Sending(tmp_path, supervisor, store, supervisor.bus, reader)
    supervisor.settings, supervisor.store = Settings(CALM), store
    webhooks = cast(Any, SimpleNamespace(oldest=lambda: None))
    troubles = Troubles(supervisor, exporter, reader, sending, webhooks)
    return Bench(troubles, supervisor, store, exporter, clock)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "agent.db")
    yield opened
    await opened.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("agent.daemon.troubles.boot_now", lambda: now[0])
    return now


@pytest.fixture
def bench(tmp_path: Path, store: Store, clock: list[float]) -> Bench:
    return make(tmp_path, store, clock)


async def test_begin_and_end_are_in_the_journal_the_log_and_the_gauge(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.put("a", S.RECONNECTING, reason="connection_lost")
    await bench.look()
    assert await bench.look(299) == set()
    assert await bench.look(2) == {"down"}
    (family,) = bench.troubles.families()
    labels = {"kind": "down", "severity": "warning", "session": "a"}
    assert (family.name, family.rows) == ("wa_trouble", [(labels, 1)])
    bench.put("a")
    assert await bench.look(5) == set()
    assert [family.rows for family in bench.troubles.families()] == [[]]
    assert await bench.story() == [("trouble", "a", "down"), ("trouble_over", "a", "down")]
    begun, over = await bench.store.history(kinds=("trouble", "trouble_over"), after=0)
    assert begun.detail["advice"].startswith("`wa-agent why a`")
    assert begun.sentence.startswith("a should be connected and is not: the connection was lost")
    assert over.sentence == f"it is over: {begun.sentence}"
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [one for one in told if one[1] in (begun.sentence, over.sentence)] == [
        ("WARNING", begun.sentence),
        ("INFO", over.sentence),
    ]


async def test_f61_an_event_that_no_webhook_takes(bench: Bench) -> None:
    bench.troubles.webhooks.oldest = lambda: (1.0, "sales")
    await bench.look()
    assert await bench.look(301) == {"not_delivered"}
    assert "webhook sales" in (await bench.store.history(after=0))[-1].sentence
    bench.troubles.webhooks.oldest = lambda: None
    assert await bench.look(5) == set()


async def test_what_has_begun_is_not_told_again_by_the_next_agent(
    bench: Bench, tmp_path: Path, store: Store, clock: list[float]
) -> None:
    for name in ("a", "b"):
        bench.put(name, S.RECONNECTING, reason="timeout")
    await bench.look()
    await bench.look(301)
    later = make(tmp_path, store, clock)
    later.put("a", S.RECONNECTING)
    later.put("b")
    await later.troubles._take_over()
    assert all(one.sentence.endswith("not: waits for a scan") for one in later.troubles.present())
    await later.look(30)
    assert len(await later.story()) == 2
    await later.look(60)
    assert (await later.story())[2:] == [("trouble_over", "b", "down")]
    (one,) = later.troubles.present()
    assert one.begun_wall in {it.begun_wall for it in bench.troubles.present() if it.who == "a"}


async def test_in_the_next_agent_the_time_to_wait_and_a_trouble_go_on(
    bench: Bench, tmp_path: Path, store: Store, clock: list[float]
) -> None:
    bench.put("a", S.RECONNECTING)
    bench.put("b", restarts={})
    await bench.look()
    bench.put("b", key_regenerations={"failed": 1})
    assert await bench.look(200) == {"keys_not_renewed"}
    clock[0] = 50.0
    later = make(tmp_path, store, clock)
    later.put("a", S.RECONNECTING)
    later.put("b")
    await later.troubles._take_over()
    assert await later.look() == {"keys_not_renewed"}
    assert await later.look(99) == {"keys_not_renewed"}
    assert await later.look(2) == {"keys_not_renewed", "down"}
    (down,) = [one for one in later.troubles.present() if one.row.name == "down"]
    assert down.begun_wall == pytest.approx(time.time() - 301, abs=9), "when its cause began"
    assert await later.look(800) == {"down"}, "the quarter of an hour is over"


@pytest.mark.parametrize("row", ["{", '[["down", "a"]]', '[["down", "a", 0, null, ""]]'])
async def test_a_row_that_is_broken_or_old_is_none(bench: Bench, store: Store, row: str) -> None:
    bench.put("a", S.RECONNECTING)
    await store.put_facts({"troubles": row})
    await bench.troubles._take_over()
    assert await bench.look() == set()


async def test_what_a_store_does_not_take_is_shown_and_written_once_it_does(
    bench: Bench, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench.supervisor.store = await Store.open(tmp_path / "fails.db")
    await bench.supervisor.store.close()
    bench.put("a", S.RECONNECTING)
    await bench.look()
    assert await bench.look(301) == await bench.look(10) == {"down"}
    bench.supervisor.store = store
    assert await bench.look(10) == {"down"}
    assert await bench.story() == [("trouble", "a", "down")]
    assert caplog.text.count("cannot write what is wrong: cannot use") == 1


async def test_nothing_is_looked_at_before_the_sessions_are_restored(
    bench: Bench, eventually: Eventually
) -> None:
    asked: list[bool] = []
    status = bench.supervisor.status

    def ready() -> Any:
        asked.append(status()["ready"])
        return status()

    bench.supervisor.status = ready  # type: ignore[method-assign]
    bench.supervisor.agent = bench.supervisor.agent | {"ready": False}
    bench.put("a", S.DISCONNECTED, reason="passkey_required")
    task = asyncio.create_task(bench.troubles.run())
    await eventually(lambda: len(asked) >= 3)
    assert not bench.troubles.present()
    bench.supervisor.agent = bench.supervisor.agent | {"ready": True}
    await eventually(lambda: len(bench.troubles.present()), 1)
    task.cancel()


async def test_the_route_and_the_command_name_what_is_wrong(
    bench: Bench, tmp_path: Path, cli: Cli
) -> None:
    bench.put("sales", S.DISCONNECTED, reason="passkey_required")
    bench.put("shop", S.RECONNECTING)
    await bench.look()
    await bench.look(301)
    path = tmp_path / "troubled.sock"
    parts = (ApiSection(listen=""), bench.supervisor, FakeKeys(), bench.exporter, path)
    server = await serve_fakes(*parts, troubles=bench.troubles.present)
    said = await cli("list", "--trouble", "--socket", path)
    found = (await cli("list", "--trouble", "--json", "--socket", path)).json()["troubles"]
    wrong = await cli("list", "--trouble", "--status", "CONNECTED", "--socket", path)
    await server.close()
    assert said.status == 1
    first, advice, second, _ = said.out.splitlines()
    assert first.startswith("critical given_up since ")
    assert first.endswith("asks the account's owner for a passkey before it links a device")
    assert "`wa-agent why sales` says what to do" in advice
    assert second.startswith("warning down since ")
    about = [(one["kind"], one["instance"]) for one in found]
    assert about == [("given_up", "sales"), ("down", "shop")]
    assert wrong.status == 2
