"""The agent or a backend's worker killed in the middle of what a repair does on a server."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from tests.daemon.test_backends import Watched, table

from tests.daemon.conftest import RunningAgent, remote_settings
from tests.daemon.test_whaticket import PEERS, agent, connected, desk, id_of, paired, prints
from tests.standin.evolution import StandIn as Evolution
from tests.standin.whaticket.server import StandIn
from tests.standin.whaticket.session import DAMAGED

__all__ = ["agent", "desk"]


@pytest.fixture
async def standin() -> AsyncIterator[Evolution]:
    one = await Evolution.open()
    yield one
    await one.close()


async def ended(agent: RunningAgent, id: str) -> list[str]:
    return [sentence for kind, sentence in await agent.story(id) if kind == "repair_over"]


async def dies(agent: RunningAgent, eventually: Any, doing: Any) -> None:
    """The agent is killed in the middle of what was asked; its workers live on."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        await doing
    assert agent.process is not None
    await eventually(lambda: agent.process.returncode, -9)


@pytest.mark.parametrize("point", ["repair_done:kill:1", "cleanup_reset:kill"])
async def test_a_cleanup_on_a_server_cut_short_is_ended_by_the_next_life(
    make_agent: Callable[..., RunningAgent], standin: Evolution, eventually: Any, point: str
) -> None:
    standin.add("shop", "open")
    agent = make_agent(table(standin), base=remote_settings())
    await agent.start({"WA_FAILPOINT": point})
    one = Watched(agent, standin)
    await eventually(lambda: one.all_connected(1))
    body = {"confirm": True}
    await dies(agent, eventually, agent.do("POST", "/api/instance/shop/cleanup", body))
    await agent.start()
    await eventually(lambda: ended(agent, "shop"), within=40)
    await eventually(lambda: agent.status("shop"), "QR_REQUIRED")
    assert (await agent.show("shop"))["paired"] is False
    assert standin.paths["DELETE /instance/delete/shop"] >= 1


async def kill_agent(agent: RunningAgent) -> None:
    """Its worker goes on alone."""
    await agent.kill()
    await agent.start()


async def kill_worker(agent: RunningAgent) -> None:
    os.kill((await agent.do("GET", "/api/backends/desk"))["pid"], signal.SIGKILL)


async def kill_both(agent: RunningAgent) -> None:
    pid = (await agent.do("GET", "/api/backends/desk"))["pid"]
    await agent.kill()
    os.kill(pid, signal.SIGKILL)
    await agent.start()


@pytest.mark.parametrize(
    ("kill", "moment"),
    [(kill_agent, "disconnected"), (kill_worker, "removed"), (kill_both, "started")],
    ids=["agent", "worker", "both"],
)
async def test_a_round_cut_short_ends_connected_with_its_pairing(
    agent: RunningAgent, desk: StandIn, eventually: Any, kill: Any, moment: str
) -> None:
    sick = await paired(desk, "7")
    await agent.start()
    await eventually(lambda: connected(agent, 1))
    id, creds = await id_of(agent, "7"), prints(desk, "7")["creds.json"]
    peer = PEERS[2]
    sick.memory[f"session-{peer}.0"] = DAMAGED
    for _ in range(5):
        assert not sick.receive(peer)
    await eventually(lambda: has_come(desk, peer, moment), within=40)
    await kill(agent)

    async def well() -> bool:
        return sick.receive(peer) and await connected(agent, 1)

    await eventually(well, within=60)
    assert prints(desk, "7")["creds.json"] == creds
    assert (sick.logouts, (await agent.show(id))["paired"]) == (0, True)


def has_come(desk: StandIn, peer: str, moment: str) -> bool:
    """How far the round is, as the server and its files show it."""
    if moment == "disconnected":
        return "PUT /whatsapp/7/disconnect" in desk.requests
    if moment == "started":
        return "PUT /whatsapp/7/start-session" in desk.requests
    # By their names alone: one that is there now may be gone before it is read.
    return not list(desk.keys.folder("7").glob(f"session-{peer}*"))
