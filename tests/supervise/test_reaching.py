"""Many sessions and one address: one look for all, and all are woken when it is back."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, Instance, InstanceId, SessionRecord
from agent.core.network.reach import ReachPolicy
from agent.supervise.facts import Facts
from agent.supervise.reach import watch as module
from agent.supervise.reach.watch import Reaching

QUICK = ReachPolicy(look_first=0.02, look_every=0.05, look_timeout=3.0)
LOST = SessionRecord(status=ConnectionStatus.RECONNECTING, reason="connection_lost", paired=True)


@dataclass
class Network:
    """What the looks find."""

    cause: str = ""
    looks: int = 0
    at_once: int = 0
    most: int = 0
    woken: list[str] = field(default_factory=list)

    async def look(self, _address, _within):
        self.looks += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        return self.cause


@pytest.fixture
def network(monkeypatch):
    network = Network()
    monkeypatch.setattr(module, "look", network.look)
    return network


@pytest.fixture
async def reaching(network, tmp_path):
    found = Reaching(
        policy=lambda: QUICK,
        session_root=tmp_path,
        wake=network.woken.append,
        wanted=lambda one: one.record.status is not ConnectionStatus.CONNECTED,
    )
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def sessions(count, url="https://site.example/"):
    settings = {"url": url}
    return [
        Facts(Instance(InstanceId(f"s{number}"), "web", True, settings), LOST)
        for number in range(count)
    ]


async def seen_and_lost(reaching, network, every, eventually):
    """A look was good once; then the network goes, and each session loses its connection."""
    reaching.ask(every[0], boot_now())
    await eventually(lambda: network.looks == 1)
    await eventually(lambda: reaching.ask(every[0], boot_now()) is None)
    network.cause = "no route to host"
    for facts in every:
        reaching.failed(facts, "connection_lost")
    for facts in every:
        reaching.ask(facts, boot_now())
    await eventually(lambda: all(reaching.wait_reason(facts) for facts in every))


async def test_all_share_one_look_at_a_time_and_all_are_woken(reaching, network, eventually):
    every = sessions(100)
    news = []
    reaching.on_news.append(news.append)
    await seen_and_lost(reaching, network, every, eventually)
    assert reaching.sentence(every[0]) == "cannot reach site.example: no route to host"
    assert all(reaching.ask(facts, boot_now()) is not None for facts in every)
    await eventually(lambda: network.looks > 5)
    assert network.most == 1
    network.woken.clear()
    network.cause = ""
    await eventually(lambda: set(network.woken) == {facts.id for facts in every})
    assert [one.back for one in news] == [False, True]
    assert [one.entry.kind for one in news] == ["address_away", "address_back"]
    assert not any(reaching.wait_reason(facts) for facts in every)
    assert all(reaching.ask(facts, boot_now()) is None for facts in every)


async def test_a_route_change_is_a_reason_to_look_now(reaching, network, eventually, monkeypatch):
    every = sessions(1)
    await seen_and_lost(reaching, network, every, eventually)
    told = []
    reaching.on_route.append(lambda: told.append(1))
    monkeypatch.setattr(reaching, "policy", lambda: replace(QUICK, look_first=60, look_every=60))
    before = network.looks
    await eventually(lambda: network.looks > before and not network.at_once)
    before = network.looks
    network.cause = ""
    reaching.route_changed()
    await eventually(lambda: not reaching.wait_reason(every[0]))
    assert (network.looks, told) == (before + 1, [1])


async def test_an_operator_who_asks_for_a_try_now_gets_it(reaching, network, eventually):
    every = sessions(1)
    await seen_and_lost(reaching, network, every, eventually)
    every[0].asked.past_looks = True
    assert (reaching.wait_reason(every[0]), reaching.ask(every[0], boot_now())) == ("", None)
