"""`?wait=` answers as the API did before messages were kept: its own tests, over an outbox."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.config.sections import AgentSection
from agent.core.model import InstanceId
from agent.daemon.wing_parts import Around
from agent.metrics.exporter import Exporter
from agent.supervise.messages.kept_messages import KeptMessages
from agent.wings.messages.out.outbox import Outbox, open_outbox
from tests.api.conftest import House, OpenHouse
from tests.api.handlers import test_messages as before
from tests.fakes.supervisor import FakeKeys, FakeSupervisor, make_view

ID = InstanceId("sales")
PATH = "/api/instance/sales/messages?wait=30"
HELLO = {"to": "49151123456", "text": "hello"}

test_a_refusal_of_an_engine = before.test_a_refusal_of_an_engine_is_a_clear_answer


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "PATH", PATH)


@pytest.fixture(name="open_house")
def over_an_outbox(open_house: OpenHouse, tmp_path: Path) -> OpenHouse:
    @asynccontextmanager
    async def opening(**changes: Any) -> AsyncIterator[House]:
        config = Config(agent=AgentSection(state_path=tmp_path))

        def outbox_of(
            supervisor: FakeSupervisor, store: FakeKeys, messages: KeptMessages
        ) -> Outbox:
            exporter = Exporter(supervisor.views, supervisor.status, tmp_path)
            around = Around(
                *(config, store, supervisor.bus, messages, supervisor, exporter),
                in_force=lambda: config,
                figures=dict,
            )
            return open_outbox(around)

        async with open_house(outbox_of=outbox_of, **changes) as made:
            (run,) = made.outbox.tasks().values()
            running = asyncio.create_task(run())
            try:
                yield made
            finally:
                running.cancel()
                await asyncio.wait({running})

    return opening


def make(house: House) -> None:
    house.supervisor.known[ID] = make_view(ID)


async def test_who_waits_too_short_gets_a_202_and_the_message_goes_out(house: House, local) -> None:
    make(house)
    house.supervisor.gate.clear()
    answer = await local.post(PATH.replace("30", "1"), json=HELLO)
    told = await answer.json()
    assert (answer.status, told["state"]) == (202, "accepted")
    look = told["look"]["state"]
    waiting = asyncio.create_task(local.post(PATH, json={**HELLO, "text": "the next"}))
    house.supervisor.gate.set()
    assert (await waiting).status == 200
    assert (await (await local.get(look)).json())["state"] == "sent"
    assert [message["text"] for _, message in house.supervisor.sent] == ["hello", "the next"]


async def test_an_outbox_that_cannot_be_opened_refuses_messages_and_ends_nothing(
    open_house: OpenHouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("agent.wings.messages.out.running.OPEN_AGAIN", 0.05)
    (tmp_path / "outbox.db").mkdir()
    async with open_house() as house, house.local(base_url="http://localhost") as local:
        make(house)
        refused = await local.post(PATH, json=HELLO)
        assert refused.status == 507
        assert "outbox.db" in (await refused.json())["message"]
        assert (await local.get("/api/instance/sales")).status == 200
        assert sum("messages to send are refused" in line for line in caplog.messages) == 1
        (tmp_path / "outbox.db").rmdir()

        async def taken() -> int:
            return (await local.post(PATH, json=HELLO)).status

        await eventually(taken, 200)
