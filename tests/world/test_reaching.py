"""Many sessions and one address: when to look and when to try; one look for all wakes them all."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.model import ConnectionStatus, Instance, InstanceId, SessionRecord
from agent.core.words import Address
from agent.supervise import reach as module
from agent.supervise.facts import Facts
from agent.supervise.reach import LOOK_EVERY, Reach, Reaching
from tests.conftest import Eventually

LOST = SessionRecord(status=ConnectionStatus.RECONNECTING, reason="connection_lost", paired=True)
SITE, REFUSED = Address("https://site.example/"), "connection refused"


def made(*, seen: bool = True) -> Reach:
    """An address; a look was good at 0 where it was `seen`."""
    reach = Reach(SITE)
    if seen:
        reach.look_was_good(0.0)
    return reach


def away(now: float = 100.0, *, seen: bool = True) -> Reach:
    reach = made(seen=seen)
    reach.look_failed(REFUSED, now)
    return reach


def ask(reach: Reach, now: float) -> str:
    if now < reach.next_moment:
        return "wait"
    return "try" if reach.is_known(now) else "look"


def test_a_try_needs_a_fresh_look() -> None:
    assert ask(made(seen=False), 0.0) == "look"
    reach = made()
    assert [ask(reach, now) for now in (5.0, 5.1)] == ["try", "look"]
    reach.connected(100.0)
    assert ask(reach, 104.0) == "try", "a connection is as good"
    reach.failed("connection_lost", 104.0)
    assert ask(reach, 104.0) == "look"


def test_while_the_looks_fail_no_session_tries_and_the_first_good_look_frees_all() -> None:
    reach = away()
    assert (reach.away, reach.cause, ask(reach, 101.0)) == (True, REFUSED, "wait")
    reach.look_was_good(130.0)
    assert (reach.away, reach.back_at, reach.cause, ask(reach, 130.0)) == (False, 130.0, "", "try")


def test_where_looks_see_nothing_they_are_ignored_once_a_session_connects() -> None:
    """A firewall or a certificate may stop the agent's looks and not the sessions."""
    reach = away(seen=False)
    assert ask(reach, 100.0) == "try"
    reach.connected(103.0)
    assert (reach.away, ask(reach, 103.0)) == (False, "try")
    reach.failed("connection_lost", 5000.0)
    assert ask(reach, 5000.0) == "try", "the next outage is met in the same way"


def test_a_word_of_whatsapp_itself_shows_that_it_is_reached() -> None:
    for code, still_away in (("logout", False), ("misconfigured", True)):
        reach = away()
        reach.failed(code, 101.0)
        assert reach.away is still_away


@dataclass
class Network:
    """The machine's network, as looks at addresses find it."""

    cause: str = ""
    looks: int = 0
    at_once: int = 0
    most: int = 0
    woken: list[str] = field(default_factory=list)
    news: list[str] = field(default_factory=list)

    async def look(self, _address: Address, _within: float) -> str:
        self.looks += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        return self.cause

    def write(self, said: Any) -> None:
        self.news.append(said.kind)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(module, "look", network.look)
    return network


@pytest.fixture
async def reaching(network: Network, tmp_path: Path) -> AsyncIterator[Reaching]:
    noted: Any = network
    found = Reaching(tmp_path, network.woken.append, noted)
    task = asyncio.create_task(found.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def sessions(count: int) -> list[Facts]:
    ids = [InstanceId(f"s{number}") for number in range(count)]
    return [Facts(Instance(id, "web", True, {"url": SITE.url}), LOST) for id in ids]


async def seen_and_lost(
    reaching: Reaching, network: Network, every: list[Facts], eventually: Eventually
) -> None:
    """A look was good once; then the network goes, and each session loses its connection."""
    reaching.ask(every[0], boot_now())
    await eventually(lambda: reaching.ask(every[0], boot_now()) is None)
    assert network.looks == 1
    network.cause = "no route to host"
    for facts in every:
        reaching.failed(facts, "connection_lost")
        reaching.ask(facts, boot_now())
    await asyncio.sleep(LOOK_EVERY)
    assert all(reaching.wait_reason(facts) for facts in every)


async def test_all_share_one_look_at_a_time_and_all_are_woken(
    reaching: Reaching, network: Network, eventually: Eventually
) -> None:
    every = sessions(100)
    await seen_and_lost(reaching, network, every, eventually)
    assert reaching.of(every[0]).sentence == "cannot reach site.example: no route to host"
    assert all(reaching.ask(facts, boot_now()) is not None for facts in every)
    await eventually(lambda: network.looks > 5)
    assert network.most == 1
    network.woken.clear()
    network.cause = ""
    await eventually(lambda: set(network.woken) == {facts.id for facts in every})
    assert network.news == ["address_away", "address_back"]
    assert not any(reaching.wait_reason(facts) for facts in every)
    assert all(reaching.ask(facts, boot_now()) is None for facts in every)


async def test_an_address_that_was_never_seen_is_tried_by_one_session_at_a_time(
    reaching: Reaching, network: Network, eventually: Eventually
) -> None:
    every, network.cause = sessions(2), REFUSED
    reaching.ask(every[0], boot_now())
    await eventually(lambda: reaching.of(every[0]).away)
    assert [reaching.ask(facts, boot_now()) is None for facts in every] == [True, False]


@pytest.mark.parametrize(("outage", "tries"), [(30, 0), (900, 1)])
async def test_where_looks_were_good_before_an_outage_costs_at_most_one_try(
    reaching: Reaching, network: Network, eventually: Eventually, outage: int, tries: int
) -> None:
    every, tried = sessions(1), 0
    await seen_and_lost(reaching, network, every, eventually)
    for _ in range(outage):
        tried += reaching.ask(every[0], boot_now()) is None
        await asyncio.sleep(1.0)
    assert tried == tries


async def test_an_operator_who_asks_for_a_try_now_gets_it(
    reaching: Reaching, network: Network, eventually: Eventually
) -> None:
    every = sessions(1)
    await seen_and_lost(reaching, network, every, eventually)
    every[0].record = replace(every[0].record, past_looks=True)
    assert (reaching.wait_reason(every[0]), reaching.ask(every[0], boot_now())) == ("", None)
