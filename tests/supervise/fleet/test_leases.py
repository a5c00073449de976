"""This machine's lease on its way to real workers, and past agents that come and go."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.clock import boot_now
from agent.core.model import ConnectionStatus as Status
from agent.core.model import Instance, InstanceId, SessionRecord, parse_instance_id
from agent.errors import EngineError, LeaseOver
from agent.supervise.facts import Facts
from agent.supervise.fleet.leases import Leases
from tests.waiting import Pauses
from tests.worker.conftest import Bench

SALES = InstanceId("sales")
LONG_ENOUGH = 5.0
"""Seconds of a lease within which a worker hears of the next one, on a busy machine as well."""


class Agent:
    """What an agent knows of one session, and the leases that it gives."""

    def __init__(self, bench: Bench) -> None:
        self.facts = facts_of(SALES, bench.link)
        self.woken: list[InstanceId] = []
        self.leases = Leases({SALES: self.facts}, self.woken.append)

    def give(self, seconds: float, *owned: InstanceId) -> float:
        until = boot_now() + seconds
        self.leases.give(until, owned or (SALES,))
        return until


def facts_of(id: str, link: Any, *, leased: bool = True, backend: str = "") -> Facts:
    settings = {"backend": backend} if backend else {}
    instance = Instance(parse_instance_id(id), "sandbox", True, settings, leased=leased)
    return Facts(instance, SessionRecord(), link=link)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A worker of a session of a fleet, which waits."""
    made = Bench(tmp_path)
    made.identity(settings=made.quick, leased=True)
    made.start(identity=False)
    await made.linked()
    yield made
    await made.clean_up()


async def test_an_owned_session_connects_and_ends_with_the_last_lease(bench: Bench) -> None:
    agent = Agent(bench)
    assert agent.leases.wait_reason(agent.facts) == "no_lease"
    agent.give(30, InstanceId("another"))
    assert agent.leases.wait_reason(agent.facts) == "no_lease"
    await bench.status(Status.DISCONNECTED, "no_lease")
    agent.give(30)
    assert agent.leases.wait_reason(agent.facts) == ""
    await bench.status(Status.CONNECTED)
    until = agent.give(1.0)
    # In order: KERNEL seconds past its lease the kernel had killed it.
    assert await bench.ended() == LeaseOver.exit_status
    assert boot_now() >= until
    assert agent.leases.wait_reason(agent.facts) == "no_lease"


async def test_a_worker_that_is_reached_later_hears_of_the_lease_at_once(bench: Bench) -> None:
    agent = Agent(bench)
    agent.facts.link = None
    agent.give(30)
    agent.facts.link = bench.link
    agent.leases.attached(SALES)
    await bench.status(Status.CONNECTED)


async def test_an_agent_that_restarts_within_the_lease_interrupts_nothing(bench: Bench) -> None:
    first = Agent(bench)
    first.give(30)
    await bench.status(Status.CONNECTED)
    until = first.give(LONG_ENOUGH)
    await until_told()
    assert bench.link is not None
    await bench.link.close()
    bench.claims.clear()
    bench.link = await bench.open_link()
    second = Agent(bench)
    second.give(30)
    await bench.until(lambda: boot_now() > until)
    assert (await bench.link.call("probe"))["claim"]["status"] == "CONNECTED"
    assert {claim.status for claim in bench.claims} == {Status.CONNECTED}
    await bench.link.close()


async def test_an_agent_that_does_not_know_what_it_owns_only_extends_leases(
    bench: Bench, pauses: Pauses
) -> None:
    agent = Agent(bench)
    await bench.status(Status.DISCONNECTED, "no_lease")
    agent.leases.go_on(boot_now() + 30, None)
    await until_told()
    assert bench.link is not None
    claim = (await bench.link.call("probe"))["claim"]
    assert claim["reason"] == "no_lease", "what waits for a lease goes on waiting"
    until = agent.give(LONG_ENOUGH)
    await bench.status(Status.CONNECTED)
    second = Agent(bench)
    second.leases.go_on(boot_now() + 30, {"another"})
    await until_told()
    assert second.leases.wait_reason(second.facts) == "no_lease"
    second.leases.go_on(boot_now() + 30, {SALES})
    await bench.until(lambda: boot_now() > until)
    assert (await bench.link.call("probe"))["claim"]["status"] == "CONNECTED"
    until = agent.give(0.5)
    assert await bench.ended() == LeaseOver.exit_status, "in order, so before its kernel ends it"
    assert until < boot_now() < until + 1.0 + pauses.total, "with this lease"


async def test_a_machine_that_leaves_takes_the_fence_off(bench: Bench) -> None:
    agent = Agent(bench)
    agent.give(30)
    await bench.status(Status.CONNECTED)
    until = agent.give(LONG_ENOUGH)
    await until_told()
    await agent.leases.remove([SALES])
    await bench.until(lambda: boot_now() > until + 0.5)
    assert bench.link is not None
    assert (await bench.link.call("probe"))["claim"]["status"] == "CONNECTED"


async def test_a_frozen_worker_has_one_lease_on_its_way(bench: Bench) -> None:
    agent = Agent(bench)
    agent.give(30)
    await bench.status(Status.CONNECTED)
    assert bench.process is not None
    os.kill(bench.process.pid, signal.SIGSTOP)
    for left in range(30, 60):
        agent.give(left)
        await asyncio.sleep(0)
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "lease of sales"]) == 1
    os.kill(bench.process.pid, signal.SIGCONT)
    assert bench.link is not None
    assert (await bench.link.call("probe"))["claim"]["status"] == "CONNECTED"


class Recording:
    """A worker's link that notes the calls, and refuses them when told to."""

    def __init__(self, refusal: EngineError | None = None) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self._refusal = refusal

    async def call(self, do: str, args: Mapping[str, Any], *, timeout: float) -> Mapping[str, Any]:
        self.calls.append((do, args))
        if self._refusal:
            raise self._refusal
        return {}


async def given(*sessions: Facts) -> Leases:
    leases = Leases({each.id: each for each in sessions}, lambda _: None)
    leases.give(boot_now() + 30, [each.id for each in sessions])
    await until_told()
    return leases


async def until_told() -> None:
    telling = [task for task in asyncio.all_tasks() if task.get_name().startswith("lease of")]
    await asyncio.gather(*telling)


async def test_a_session_of_a_backend_and_one_without_a_fleet_get_none() -> None:
    remote = facts_of("remote", Recording(), leased=False, backend="evo")
    alone = facts_of("alone", Recording(), leased=False)
    leases = await given(remote, alone)
    assert not remote.link.calls and not alone.link.calls  # type: ignore[union-attr]
    leases.give(0.0, ())
    assert (leases.wait_reason(remote), leases.wait_reason(alone)) == ("", "")


async def test_a_worker_of_a_version_without_leases_is_restarted() -> None:
    old = facts_of("old", Recording(EngineError("no such call", field="do")))
    await given(old)
    assert old.asked.restart_for


@pytest.mark.parametrize("field", [None, "until"])
async def test_a_worker_that_refuses_its_lease_is_not_restarted(field: str | None) -> None:
    ending = facts_of("ending", Recording(EngineError("it has ended", field=field)))
    await given(ending)
    assert not ending.asked.restart_for
