"""Real agents that die, come back and freeze: their workers end with the lease, and not before."""

import asyncio
import time
from pathlib import Path

from agent.clock import boot_now
from agent.worker.leased.fence import DISCONNECT
from tests.conftest import Eventually
from tests.engines.baileys.conftest import ACCOUNT, PEER, cache, whatsapp
from tests.fleet.agents import LASTING, LONG, MARGIN, TTL, fleet_of_agents
from tests.standin.baileys.run import WhatsApp
from tests.waiting import alive

__all__ = ["cache", "whatsapp"]

IDS = ["shop", "desk"]


async def test_workers_keep_their_lease_without_an_agent_and_end_with_it(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a", "b"], tmp_path, env=LASTING) as fleet:
        a, b = fleet["a"], fleet["b"]
        await fleet.create(*IDS, on="a")
        await eventually(lambda: fleet.connected(IDS), within=30)
        await eventually(lambda: fleet.copied(IDS), within=30)
        await eventually(fleet.know_each_other, within=30)
        assert a.process is not None

        # Killed, and back within the lease: no session notices.
        await eventually(a.has_just_renewed, within=30)
        workers, killed = fleet.witness.connected(), boot_now()
        pids = set(workers.values())
        await a.kill()
        await a.boot()
        await eventually(lambda: boot_now() > killed + LONG, within=2 * LONG)
        assert fleet.witness.connected() == workers
        assert len(fleet.witness.connections()) == len(IDS)

        # Frozen for longer: the workers end by themselves, then the sessions run on the other one.
        a.freeze([a.process.pid])
        frozen = time.time()
        await eventually(lambda: not any(map(alive, pids)), within=3 * LONG)
        # The witness may hear of it a moment later, or of the next ones already.
        theirs = lambda: [it for it in fleet.witness.connections() if it.pid in pids]  # noqa: E731
        await eventually(lambda: not any(it.open for it in theirs()))
        assert all(it.ended for it in theirs()), "each disconnected in order"
        assert max(it.ended or 0.0 for it in theirs()) < frozen + LONG
        await eventually(lambda: fleet.connected(IDS), within=30)
        assert set((await fleet.owners()).values()) == {"b"}

        # It goes on: it starts nothing, and what is here goes to the trash.
        a.thaw()
        trash = a.state / "sessions" / ".trash"
        await eventually(lambda: len(list(trash.glob("*"))) == len(IDS), within=30)
        assert a.worker_pids() == []
        fleet.check()
        assert set(fleet.witness.connected().values()) == set(b.worker_pids())


async def test_a_session_of_baileys_comes_back_elsewhere_while_its_agent_and_worker_are_frozen(
    tmp_path: Path, whatsapp: WhatsApp, cache: Path, eventually: Eventually
) -> None:
    env = {"WA_AGENT_AGENT__CACHE_PATH": str(cache)}
    async with fleet_of_agents(["a", "b"], tmp_path, env=env) as fleet:
        a, b = fleet["a"], fleet["b"]
        told = {"id": "shop", "engine": "baileys", "settings": {"url": whatsapp.socket}, "on": "a"}
        await a.do("POST", "/api/instance", told)
        await eventually(lambda: a.status("shop"), "QR_REQUIRED", within=40)
        code = await a.do("GET", "/api/instance/shop/qr")
        await asyncio.to_thread(whatsapp.scan, code["qr"], ACCOUNT)
        await eventually(lambda: a.status("shop"), "CONNECTED", within=40)
        await eventually(lambda: fleet.copied(["shop"]), within=20)
        await eventually(fleet.know_each_other, within=30)
        assert a.process is not None
        (worker,) = a.worker_pids()

        # Not its Node: that goes on, and nothing tells it that the machine is lost.
        number = len(whatsapp.logins()) - 1
        a.freeze([a.process.pid, worker])
        frozen = time.time()
        # Its login, which stays on the list: it may be logged in elsewhere before the next look.
        ended = await eventually(lambda: whatsapp.logins()[number]["ended"]) / 1000
        assert ended - frozen < TTL - MARGIN + DISCONNECT
        await eventually(lambda: not alive(worker))
        await eventually(lambda: whatsapp.device(ACCOUNT)["connected"], within=40)
        assert await fleet.owners() == {"shop": "b"}
        await eventually(lambda: b.status("shop"), "CONNECTED", within=40)
        a.thaw()
        sent = await b.do(
            "POST", "/api/instance/shop/messages?wait=30", {"to": PEER, "text": "hello"}
        )
        assert sent["outcome"] == "sent"
        assert whatsapp.overlaps() == []
        trash = a.state / "sessions" / ".trash"
        await eventually(lambda: any(trash.glob("shop.*")), within=30)
