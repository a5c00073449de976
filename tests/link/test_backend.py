"""A worker that speaks for many sessions, with both real ends on a real socket."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.model import Claim, ConnectionStatus, Happening, InstanceId, ServerClaim
from agent.errors import EngineError, LinkError
from agent.link.client import Link, LinkLimits, LinkStats
from agent.link.limits import INSTANCE_LINK, INSTANCE_SERVER, PACK_LINK, PACK_SERVER
from agent.link.messages import Call, Hello
from agent.link.server import LinkServer

EVO = InstanceId("evo")
HELLO = Hello(EVO, "run1", "evolution", os.getpid())
IDS = [InstanceId(f"s{number:04}") for number in range(1000)]
UP = Claim(ConnectionStatus.CONNECTED, proof_age=1.0, paired=True)
DOWN = Claim(ConnectionStatus.DISCONNECTED, "remote_missing")
WELL = ServerClaim(True, version="2.3.7", seconds=0.01, sessions=1000)
DEAD = ServerClaim(False, "unreachable", "nobody listens at 127.0.0.1:8080")


class Both:
    """The two ends, and what the agent's end heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = set(IDS)
        self.held = set(IDS)
        self.heard: list[tuple[str, Any]] = []
        self.closed: list[str] = []
        self.asked: list[Call] = []
        self.stats = LinkStats()

    async def serve(self) -> LinkServer:
        self.server = await LinkServer.open(
            self.path,
            HELLO,
            self.answer,
            lambda: dict.fromkeys(sorted(self.held), UP),
            limits=PACK_SERVER,
            answers_for=lambda id: id == EVO or id in self.held,
        )
        return self.server

    async def answer(self, call: Call) -> Mapping[str, Any]:
        self.asked.append(call)
        if call.do == "surrogate":
            return {"sessions": [{"name": "half \ud800"}]}
        return {"about": call.id}

    async def open(self, limits: LinkLimits = PACK_LINK) -> Link:
        return await Link.open(
            self.path,
            EVO,
            lambda _peer: None,
            lambda id, _run, claim: self.heard.append((id, claim)),
            lambda id, _run, happening: self.heard.append((id, happening)),
            self.closed.append,
            stats=self.stats,
            limits=limits,
            speaks_for=lambda id: id in self.known,
            on_server=lambda run, claim: self.heard.append((run, claim)),
        )


@pytest.fixture
async def both(tmp_path: Path):
    both = Both(tmp_path / "link.sock")
    server = await both.serve()
    yield both
    await server.close()


async def test_a_message_about_a_deleted_session_is_dropped_and_the_link_stays(
    both: Both, eventually: Any
) -> None:
    both.known = {IDS[0]}
    link = await both.open()
    await eventually(lambda: both.stats.refused["stranger"], 999)
    both.server.happened(IDS[1], Happening("message"))
    both.server.happened(IDS[0], Happening("message"))
    await eventually(lambda: both.heard, [(IDS[0], UP), (IDS[0], Happening("message"))])
    assert both.closed == [] and both.stats.refused == {"stranger": 1000}
    await link.close()


async def test_a_backend_may_not_speak_for_an_instance_of_its_own_name(
    both: Both, eventually: Any
) -> None:
    link = await both.open()
    both.server.claim(EVO, UP)
    await eventually(lambda: both.stats.refused["stranger"], 1)
    assert EVO not in {id for id, _ in both.heard}
    await link.close()


async def test_a_call_goes_to_the_session_it_is_about_or_to_the_worker(both: Both) -> None:
    link = await both.open()
    assert await link.call("probe", id=IDS[7]) == {"about": IDS[7]}
    assert await link.call("check") == {"about": EVO}
    both.held.discard(IDS[7])
    with pytest.raises(EngineError, match=IDS[7]) as caught:
        await link.call("probe", id=IDS[7])
    assert caught.value.code == "not_found"
    assert "does not hold it at the moment" in str(caught.value)
    assert [call.id for call in both.asked] == [IDS[7], EVO]
    await link.close()
    with pytest.raises(LinkError, match=f"cannot probe {IDS[8]}: the link is closed"):
        await link.call("probe", id=IDS[8])


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(
            lambda server: server.claim(IDS[0], Claim(UP.status, raw="\ud800")), id="text"
        ),
        pytest.param(
            lambda server: server.server_claim(ServerClaim(True, seconds=-1)), id="server"
        ),
        pytest.param(
            lambda server: server.happened(IDS[0], Happening("error", {"x": "y" * 2**21})),
            id="too long",
        ),
    ],
)
async def test_a_worker_sends_no_message_that_the_agent_refuses(
    both: Both, eventually: Any, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    both.held.clear()
    link = await both.open()
    await link.call("check")
    said(both.server)
    both.server.claim(IDS[1], UP)
    await eventually(lambda: both.heard, [(IDS[1], UP)])
    assert "cannot send to the agent" in caplog.text
    assert both.closed == [] and both.stats.refused == {}
    await link.close()


@pytest.mark.parametrize(
    ("agent", "worker"), [(INSTANCE_LINK, INSTANCE_SERVER), (PACK_LINK, PACK_SERVER)]
)
def test_a_worker_keeps_below_what_the_agent_refuses(agent: Any, worker: Any) -> None:
    assert worker.rate < agent.rate and worker.burst < agent.burst
    assert worker.calls >= agent.calls


async def test_an_instances_worker_stays_held_to_its_one_session(
    both: Both, eventually: Any
) -> None:
    both.held = {EVO}
    heard: list[str] = []
    closed: list[str] = []

    async def strict() -> Link:
        return await Link.open(
            both.path,
            EVO,
            lambda _peer: None,
            lambda id, _run, _claim: heard.append(id),
            lambda id, _run, _happening: heard.append(id),
            closed.append,
            stats=both.stats,
        )

    link = await strict()
    await eventually(lambda: heard, [EVO])
    both.server.claim(IDS[0], UP)
    await eventually(lambda: len(closed), 1)
    assert "spoke for s0000" in closed[0]
    await link.close()
    link = await strict()
    both.server.server_claim(WELL)
    await eventually(lambda: len(closed), 2)
    assert "spoke for a server" in closed[1]
    assert both.stats.refused == {"identity": 2}
    await link.close()


whose = st.sampled_from([*IDS[:3], EVO, InstanceId("stranger")])
said = st.one_of(
    st.tuples(st.just("claim"), whose, st.sampled_from([UP, DOWN])),
    st.tuples(st.just("happened"), whose, st.just(Happening("ack"))),
    st.tuples(st.just("server"), st.just(EVO), st.sampled_from([WELL, DEAD])),
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(said, max_size=30), st.sets(st.sampled_from(IDS[:3])))
def test_the_agent_ends_with_the_newest_claims_of_those_it_knows(
    tmp_path: Path, story: list[tuple[str, InstanceId, Any]], known: set[InstanceId]
) -> None:
    async def play() -> None:
        both = Both(tmp_path / "link.sock")
        both.held, both.known = set(), known
        server = await both.serve()
        link = await both.open()
        await link.call("check")
        for kind, id, what in story:
            if kind == "claim":
                server.claim(id, what)
            elif kind == "happened":
                server.happened(id, what)
            else:
                server.server_claim(what)
        await link.call("check")  # answered after what was said before
        newest = {id: what for kind, id, what in story if kind == "claim" and id in known}
        assert {who: what for who, what in both.heard if isinstance(what, Claim)} == newest
        told = [what for kind, _, what in story if kind == "server"]
        servers = [what for _, what in both.heard if isinstance(what, ServerClaim)]
        assert servers[-1:] == told[-1:]
        assert all(who in known | {"run1"} for who, _ in both.heard) and both.closed == []
        await link.close()
        await server.close()

    asyncio.run(play())
