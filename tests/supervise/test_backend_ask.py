"""Before a session tries, its backend's server has answered a check."""

from pathlib import Path

import pytest

from agent.backends import backend as module
from agent.backends.backend import Backend
from agent.clock import boot_now
from agent.config.config import BackendDeclaration
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.core.words import ServerClaim
from agent.supervise.facts import Facts
from tests.fakes.servers import make_backends

A, B = InstanceId("a"), InstanceId("b")


def answers(one, *, up):
    one.checked(ServerClaim(up, "" if up else "failing"))


def facts(id):
    return Facts(Instance(id, "evolution", True, {"backend": "evo"}), SessionRecord())


@pytest.fixture
async def house(tmp_path: Path):
    sessions, woken = {id: facts(id) for id in (A, B)}, []
    backends = make_backends(tmp_path, woken.append)
    backends.instances = sessions
    declared = BackendDeclaration("evo", "evolution", {"url": "http://127.0.0.1:1", "key": "k"})
    backends.all["evo"] = one = Backend(declared, InstanceId("evo"), backends)
    one.down = False
    yield backends, one, sessions, woken
    await backends.close()


async def test_a_backend_that_was_not_checked_yet_is_not_said_to_be_down(house):
    """As in the second after a restart of the agent."""
    backends, one, sessions, _ = house
    one.down = True
    assert backends.wait_reason(sessions[A]) == "backend_unchecked"
    assert "down" not in backends.why_away(sessions[A])
    answers(one, up=False)
    assert backends.wait_reason(sessions[A]) == "backend_down"
    assert backends.why_away(sessions[A]).startswith("its backend is down: ")


async def test_no_session_begins_until_a_check_was_good(house):
    backends, one, sessions, woken = house
    answers(one, up=False)
    assert backends.ask(sessions[A], boot_now()) is not None
    assert not backends.may_begin(sessions[A])
    assert sorted(woken) == [A, B], "nothing measures them now"
    answers(one, up=False)
    assert len(woken) == 2
    answers(one, up=True)
    assert backends.ask(sessions[A], boot_now()) is None and backends.may_begin(sessions[A])


async def test_only_what_lasts_longer_than_a_blink_is_an_outage(house, monkeypatch):
    _, one, _, woken = house
    now = [100.0]
    monkeypatch.setattr(module, "boot_now", lambda: now[0])
    answers(one, up=False)
    assert (sorted(woken), one.down) == ([A, B], False), "nothing measures them now"
    for seconds, down in ((9.9, False), (0.1, True)):
        now[0] += seconds
        one.judge()
        assert one.down == down
    answers(one, up=True)
    assert (one.down, one.away_since, one.away) == (False, None, {A, B})


async def test_after_a_blink_its_sessions_are_looked_at_again(house, eventually):
    backends, one, _, _ = house
    looked: list[InstanceId] = []
    backends.look_again = lambda id, _outage: looked.append(id)
    answers(one, up=False)
    answers(one, up=True)
    await eventually(lambda: sorted(looked), [A, B])
