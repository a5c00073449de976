"""Before a session tries its backend's server has answered a check, one for all who ask."""

import asyncio
from pathlib import Path

import pytest

from agent.config import BackendDeclaration, BackendsSection
from agent.core.backends.outage import Outage
from agent.core.breaker import BreakerPolicy
from agent.core.model import Instance, InstanceId, ServerClaim, SessionRecord
from agent.link.client import LinkStats
from agent.supervise.backends.facts import BackendFacts
from agent.supervise.backends.registry import FRESH, Backends
from agent.supervise.facts import Facts
from agent.supervise.loop import Wakes, boot_now

A, B = InstanceId("a"), InstanceId("b")


class Server:
    """A backend's worker whose checks answer as `up` says."""

    def __init__(self, backends, one):
        self._backends, self._one = backends, one
        self.up, self.checks = True, 0

    async def call(self, do, *, timeout):
        assert do == "check"
        self.checks += 1
        await asyncio.sleep(0)
        reason = "" if self.up else "failing"
        self._backends.news.server(self._one, ServerClaim(self.up, reason))


def facts(id):
    return Facts(Instance(id, "evolution", True, {"backend": "evo"}), SessionRecord())


@pytest.fixture
def house(tmp_path: Path):
    sessions, woken = {id: facts(id) for id in (A, B)}, []
    backends = Backends(
        host=None,
        root=tmp_path,
        wakes=Wakes(),
        facts=sessions,
        wake=woken.append,
        note=lambda _: asyncio.get_running_loop().create_future(),
        link_stats=LinkStats(),
        settings=BackendsSection,
        breaker=lambda: BreakerPolicy(5, 600.0),
    )
    declared = BackendDeclaration("evo", "evolution", {"url": "http://127.0.0.1:1", "key": "k"})
    one = BackendFacts(declared, InstanceId("evo"), {}, backends._circuit(InstanceId("evo")))
    backends.all["evo"] = one
    one.link = server = Server(backends, one)
    one.outage = Outage()
    return backends, one, server, sessions, woken


async def test_two_that_ask_share_one_check_and_are_woken_by_its_good_answer(house):
    backends, one, server, sessions, woken = house
    one.server = ServerClaim(True)
    assert backends.ask(sessions[A], boot_now()) is not None
    assert backends.ask(sessions[B], boot_now()) is not None
    assert woken == []
    await one.checking
    assert server.checks == 1
    assert set(woken) == {A, B}
    now = boot_now()
    assert (backends.ask(sessions[A], now), backends.ask(sessions[B], now)) == (None, None)
    assert backends.ask(sessions[A], now + FRESH + 0.1) is not None, "that answer is old by then"


async def test_a_backend_that_was_not_checked_yet_is_not_said_to_be_down(house):
    """As in the second after a restart of the agent, in which its worker starts."""
    backends, one, server, sessions, _ = house
    link, one.link, one.outage = one.link, None, Outage(boot_now(), down=True)
    assert backends.wait_reason(sessions[A]) == "backend_unchecked"
    assert "down" not in backends.why_away(sessions[A])
    one.link, server.up = link, False
    assert backends.wait_reason(sessions[A]) == "backend_unchecked"
    await server.call("check", timeout=1.0)
    assert backends.wait_reason(sessions[A]) == "backend_down"
    assert backends.why_away(sessions[A]).startswith("its backend is down: ")
    one.link = one.server = None
    assert backends.wait_reason(sessions[A]) == "backend_down", "it was checked before"


async def test_a_bad_answer_wakes_no_session_and_the_worker_checks_next(house):
    backends, one, server, sessions, woken = house
    one.server, server.up = ServerClaim(True), False
    assert backends.ask(sessions[A], boot_now()) is not None
    await one.checking
    assert not backends.may_begin(sessions[A])
    assert backends.ask(sessions[A], boot_now()) is not None
    assert (server.checks, woken, one.checking) == (1, [], None)
    backends.news.server(one, ServerClaim(True))
    assert woken == [A]
    assert backends.ask(sessions[A], boot_now()) is None
    assert backends.may_begin(sessions[A])


async def test_a_route_change_checks_the_servers_that_are_away_and_no_others(house):
    backends, one, server, _, _ = house
    one.server = ServerClaim(True)
    backends.look_now()
    assert (one.checking, server.checks) == (None, 0)
    one.server = ServerClaim(False, "unreachable")
    backends.look_now()
    backends.look_now()
    await one.checking
    assert server.checks == 1
    assert one.up
