"""`[worker] pack`: sessions of the baileys engine share a Node, under the whole agent."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.benches.processes import children
from tests.conftest import Eventually
from tests.daemon.conftest import RunningAgent, workers_in
from tests.daemon.test_baileys import SLOWER, cache, whatsapp
from tests.standin.baileys.run import WhatsApp
from tests.waiting import alive

__all__ = ["cache", "whatsapp"]

IDS = {"desk": "5511900000001", "shop": "5511900000011", "till": "5511900000021"}
PEER = "5511900000002"
TWO = {"WA_AGENT_WORKER__PACK": "2"}


class Packed:
    """Three sessions in packs of two."""

    def __init__(self, agent: RunningAgent, whatsapp: WhatsApp, eventually: Eventually) -> None:
        self.agent = agent
        self.whatsapp = whatsapp
        self.eventually = eventually

    async def scan(self, id: str) -> None:
        body = {"id": id, "engine": "baileys", "settings": {"url": self.whatsapp.socket}}
        await self.agent.do("POST", "/api/instance", body)
        await self.eventually(lambda: self.agent.status(id), "QR_REQUIRED")
        code = await self.agent.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self.whatsapp.scan, code["qr"], IDS[id])
        await self.connected(id)

    async def connected(self, *ids: str) -> None:
        for id in ids:
            await self.eventually(lambda id=id: self.agent.status(id), "CONNECTED", within=60)

    def logins(self, id: str) -> int:
        return int(self.whatsapp.device(IDS[id])["logins"])

    async def back(self, **logins: int) -> None:
        """Wait until each session has more logins than the number given, and is connected."""
        for id, before in logins.items():
            await self.eventually(
                lambda id=id, before=before: self.logins(id) > before, True, within=60
            )
        await self.connected(*logins)

    def keeper(self, pack: str) -> int:
        """The pack's own process."""
        return workers_in(self.agent.state / "run-packs")[pack]

    def pack_of(self, id: str) -> str:
        """Whose worker holds it."""
        run = self.agent.state / "run-packs"
        return next((it for it in workers_in(run) if (run / it / "members" / id).exists()), "")

    async def nodes(self, id: str) -> set[int]:
        """Pids of the processes that the session's worker started."""
        return children([await self.agent.pid(id)])

    async def says(self, id: str) -> None:
        """As a client does it: again, while the agent has not heard of the worker's next run."""
        path, body = f"/api/instance/{id}/messages?wait=30", {"to": PEER, "text": f"from {id}"}

        async def sent() -> bool:
            status, answer = await self.agent.ask("POST", path, body)
            assert status < 300 or answer["error"] == "not_running", answer
            return status < 300 and answer["outcome"] == "sent"

        await self.eventually(sent)

    async def codes(self, id: str) -> int:
        return len([s for _, s in await self.agent.story(id) if "→ QR_REQUIRED" in s])


async def end_a_node(packed: Packed) -> None:
    """Both sessions of its pack say so and come back, the third knows nothing of it."""
    agent = packed.agent
    (node,) = children([packed.keeper("baileys-1")])
    before = {id: packed.logins(id) for id in IDS}
    os.kill(node, signal.SIGKILL)
    await packed.back(desk=before["desk"], shop=before["shop"])
    words = "Node of pack baileys-1, which 2 sessions share, ended: it was ended by SIGKILL"
    for id in ("desk", "shop"):
        assert any(words in sentence for _, sentence in await agent.story(id)), id
        await packed.says(id)
    assert packed.logins("till") == before["till"]
    assert "incident: pack_ended" not in agent.log.read_text(), "the cause is known"


async def end_a_pack(packed: Packed) -> None:
    """The killed pack's sessions log in again, and no other."""
    before = {id: packed.logins(id) for id in IDS}
    os.kill(packed.keeper("baileys-1"), signal.SIGKILL)
    await packed.back(desk=before["desk"], shop=before["shop"])
    await packed.says("desk")
    assert packed.logins("till") == before["till"]


async def replace_the_agent(packed: Packed) -> None:
    """The next one takes all of it over, and no session logs in."""
    agent = packed.agent
    keepers = [packed.keeper(pack) for pack in ("baileys-1", "baileys-2")]
    before = {id: packed.logins(id) for id in IDS}
    await agent.kill()
    await agent.start(SLOWER | TWO)
    await packed.connected(*IDS)
    assert [packed.keeper(pack) for pack in ("baileys-1", "baileys-2")] == keepers
    assert {id: packed.logins(id) for id in IDS} == before
    await packed.says("till")


async def delete_and_stop(packed: Packed) -> None:
    """The last session of a pack ends its process; a stop of one harms no other."""
    agent, whatsapp = packed.agent, packed.whatsapp
    keeper, logins = packed.keeper("baileys-2"), packed.logins("shop")
    await agent.do("DELETE", "/api/instance/till")
    await packed.eventually(lambda: alive(keeper), False)
    await agent.do("POST", "/api/instance/desk/stop")
    await packed.eventually(lambda: whatsapp.device(IDS["desk"])["connected"], False)
    assert packed.logins("shop") == logins
    await agent.do("POST", "/api/instance/desk/start")
    await packed.connected("desk")


async def leave_the_packs(packed: Packed) -> None:
    """The next agent, with no packs, ends one that runs; its sessions need no code."""
    agent = packed.agent
    keeper = packed.keeper("baileys-1")
    await agent.kill()
    await agent.start(SLOWER)
    assert not alive(keeper)
    await packed.connected("desk", "shop")
    for id in ("desk", "shop"):
        assert packed.pack_of(id) == ""
        assert len(await packed.nodes(id)) == 1
        await packed.says(id)
        assert await packed.codes(id) == 1, "one scan is enough"


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_packed_sessions_live_through_every_end_without_a_code(
    make_agent: Callable[..., RunningAgent], whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> None:
    agent = make_agent()
    packed = Packed(agent, whatsapp, eventually)
    agent.state.mkdir(mode=0o700)
    (agent.state / "cache").symlink_to(cache)
    await agent.start(SLOWER | TWO)
    for id in IDS:
        await packed.scan(id)
    assert [packed.pack_of(id) for id in IDS] == ["baileys-1", "baileys-1", "baileys-2"]
    nodes = [await packed.nodes(id) for id in IDS]
    assert nodes[0] == nodes[1] != nodes[2]
    assert {len(each) for each in nodes} == {1}
    await end_a_node(packed)
    await end_a_pack(packed)
    await replace_the_agent(packed)
    await delete_and_stop(packed)
    await leave_the_packs(packed)
