"""A request that waits for a server is answered within its own time, however slow the server is."""

import asyncio
from typing import Any

import pytest

from agent.api.http import call
from agent.core.model import ConnectionStatus, Instance, InstanceId
from agent.engines.base import Qr
from agent.errors import TryLater
from tests.api.conftest import House
from tests.fakes.supervisor import make_view

SHOP = "/api/instance/shop"
REMOTE = {"backend": "evo", "remote": "shop"}
DELETE_BOTH = {"confirm": "delete shop"}
ORDERS = [
    ("POST", f"{SHOP}/health", {}, SHOP),
    ("POST", f"{SHOP}/logout", {"confirm": True}, SHOP),
    ("DELETE", SHOP, {}, SHOP),
    ("DELETE", f"{SHOP}?remote=true", DELETE_BOTH, SHOP),
    ("POST", "/api/backends/evo/check", {}, "/api/backends/evo"),
]
QUESTIONS = [
    ("POST", f"{SHOP}/pairing-code", {"phone": "5511999990000"}),
    ("GET", "/api/backends/evo/sessions", None),
]


@pytest.fixture
def slow(house: House, monkeypatch: pytest.MonkeyPatch):
    """A server that answers when it is let: `asked` and `done` count what it was asked."""
    instance = Instance(InstanceId("shop"), "evolution", True, REMOTE)
    house.supervisor.known[instance.id] = make_view(
        "shop", status=ConnectionStatus.QR_REQUIRED, instance=instance
    )
    house.supervisor.codes[instance.id] = Qr("2@abc", 18.5, 1)
    house.supervisor.backends.declare("evo")
    server = _Slow()
    for face, names in (
        (house.supervisor, ("logout", "delete", "command", "qr")),
        (house.supervisor.repairs, ("check_now",)),
        (house.supervisor.backends, ("check", "adopt", "sessions")),
    ):
        for name in names:
            monkeypatch.setattr(face, name, server.slowly(getattr(face, name)))
    return server


class _Slow:
    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.done = 0

    def slowly(self, work: Any) -> Any:
        async def slowly(*words: Any, **more: Any) -> Any:
            await self.answers.wait()
            try:
                return await work(*words, **more)
            finally:
                self.done += 1

        return slowly


def _within(path: str, seconds: int) -> str:
    return f"{path}{'&' if '?' in path else '?'}wait={seconds}"


@pytest.mark.parametrize("order", ORDERS)
async def test_an_order_goes_on_after_its_time_and_says_where_to_look(
    local, slow, eventually, order
):
    method, path, body, look = order
    answer = await local.request(method, _within(path, 0), json=body)
    found = await answer.json()
    assert (answer.status, found["ending"], found["look"]["state"]) == (202, "goes_on", look), found
    assert found["sentence"] == "it goes on: its worker or its server has not finished"
    assert not slow.done
    slow.answers.set()
    await eventually(lambda: slow.done)


@pytest.mark.parametrize(("method", "path", "body"), QUESTIONS)
async def test_a_question_has_its_time_and_then_the_cause(local, slow, method, path, body):
    answer = await local.request(method, _within(path, 0), json=body)
    found = await answer.json()
    assert (answer.status, found["error"]) == (503, "slow"), found
    assert found["message"].startswith("cannot answer within 0 s: its worker or its server has")
    assert found["message"].endswith("not finished; to wait longer: ?wait=300")


async def test_an_order_goes_on_only_where_its_session_still_is(local, slow, house, monkeypatch):
    async def kept(id):
        raise TryLater(f"cannot find {id} now", code="owner_changed")

    monkeypatch.setattr(house.supervisor.gate.fleet, "kept", kept)
    answer = await local.delete(_within(SHOP, 0))
    assert (answer.status, (await answer.json())["error"]) == (503, "owner_changed")


async def test_without_a_time_of_its_own_it_has_ten_seconds(local, slow, monkeypatch):
    assert call.ANSWER_WITHIN == 10
    monkeypatch.setattr(call, "ANSWER_WITHIN", 0)
    assert (await local.post("/api/health/check", json={})).status == 202
