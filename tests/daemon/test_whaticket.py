"""Sessions on a whaticket-like server: a real agent, its round, real files, a stand-in server."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import RunningAgent, remote_settings
from tests.standin.whaticket.keys import FolderKeys
from tests.standin.whaticket.server import PASSWORD, USER, StandIn
from tests.standin.whaticket.session import DAMAGED, Session

PEERS = [f"55119999900{number:02}" for number in range(1, 9)]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[StandIn]:
    async with StandIn.opened(tmp_path / "desk") as stand_in:
        yield stand_in


@pytest.fixture
async def agent(make_agent: Callable[..., RunningAgent], desk: StandIn) -> RunningAgent:
    return make_agent(table_of(desk), base=remote_settings())


def table_of(desk: StandIn) -> str:
    assert isinstance(desk.keys, FolderKeys)
    return f"""
[[backend]]
name = "desk"
engine = "whaticket"
url = "{desk.url}"
user = "{USER}"
password = "{PASSWORD}"
timeout = 2.0
adopt = ["*"]
logs = ["file:{desk.log.path}"]
auth_folder = "{desk.keys.root}/{{id}}"
"""


async def paired(desk: StandIn, id: str) -> Session:
    session = desk.add(id)
    await session.pair(f"55110000000{id}", PEERS, {})
    session.start()
    return session


def prints(desk: StandIn, id: str) -> dict[str, str]:
    assert isinstance(desk.keys, FolderKeys)
    found = {}
    for path in desk.keys.folder(id).iterdir():
        with suppress(FileNotFoundError):  # a round takes it out at this very moment
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def connected(agent: RunningAgent, count: int) -> bool:
    found = (await agent.do("GET", "/api/instances"))["instances"]
    up = [one for one in found if one["connection_status"] == "CONNECTED"]
    return len(up) == len(found) == count


async def id_of(agent: RunningAgent, remote: str) -> str:
    rows = (await agent.do("GET", "/api/backends/desk/sessions"))["sessions"]
    return next(str(row["instance"]) for row in rows if row["remote"] == remote)


async def test_five_errors_of_one_peer_begin_the_round_for_that_peer_alone(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick, well = await paired(desk, "7"), await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    id, other = await id_of(agent, "7"), await id_of(agent, "8")
    before, untouched = prints(desk, "7"), prints(desk, "8")
    peer = PEERS[2]
    sick.memory[f"session-{peer}.0"] = DAMAGED
    for _ in range(5):
        assert not sick.receive(peer)
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=40)
    await eventually(lambda: connected(agent, 2))
    await eventually(lambda: sick.receive(peer))

    # Disconnected, then started, and nothing else was asked of it; the other was left alone.
    asked = [each for each in desk.requests if not each.startswith("GET")]
    assert [each for each in asked if "/7/" in each][:2] == [
        "PUT /whatsapp/7/disconnect",
        "PUT /whatsapp/7/start-session",
    ]
    assert not [each for each in asked if "/8/" in each]
    assert (sick.logouts, well.logouts) == (0, 0)
    after = prints(desk, "7")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert f"session-{peer}.0.json" in changed
    assert all(peer in name for name in changed), "another peer's keys, or the pairing's"
    assert {name: one for name, one in prints(desk, "8").items() if name in untouched} == untouched
    shown = await agent.show(id)
    # It was down and up for its new keys within 3 s: a look in between counts that, as this only.
    assert shown["reconnects_by_reason"] in ({"repair": 1}, {})
    told = [sentence for kind, sentence in await agent.story(id) if kind == "repair_step"]
    assert len(told) >= 4, told
    assert not await steps(agent, other, "regenerate")


async def test_many_peers_failing_is_a_corrupted_session_whose_pairing_is_kept(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    sick, well = await paired(desk, "7"), await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    id, untouched = await id_of(agent, "7"), prints(desk, "8")
    creds = prints(desk, "7")["creds.json"]
    for peer in PEERS:
        sick.memory[f"session-{peer}.0"] = DAMAGED
    for peer in PEERS * 2:
        sick.receive(peer)
    await eventually(lambda: steps(agent, id, "corrupted:"), within=40)
    await eventually(lambda: steps(agent, id, "regenerate_keys: done"), within=40)
    await eventually(lambda: DAMAGED not in sick.memory.values(), within=60)
    await eventually(lambda: connected(agent, 2))
    assert prints(desk, "7")["creds.json"] == creds
    assert (sick.logouts, well.logouts) == (0, 0)
    assert {name: one for name, one in prints(desk, "8").items() if name in untouched} == untouched


async def steps(agent: RunningAgent, id: str, begins: str) -> bool:
    return any(sentence.startswith(begins) for _, sentence in await agent.story(id))


async def test_a_server_that_is_gone_is_one_finding(
    agent: RunningAgent, desk: StandIn, eventually: Any
) -> None:
    await paired(desk, "7")
    await paired(desk, "8")
    await agent.start()
    await eventually(lambda: connected(agent, 2))
    await desk.go_away()
    id = (await agent.do("GET", "/api/instances"))["instances"][0]["id"]

    async def held() -> str:
        return str((await agent.show(id))["health"]["reason"])

    await eventually(held, "backend_down")
    assert (await agent.do("GET", "/api/backends/desk"))["reason"] == "unreachable"
    await desk.listen()
    await eventually(lambda: connected(agent, 2), within=60)
    assert not [each for each in desk.requests if each.startswith("PUT")]
