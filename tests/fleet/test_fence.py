"""Real agents that die, come back and freeze: their workers end with the lease, and not before."""

from pathlib import Path

from agent.clock import boot_now
from tests.conftest import Eventually
from tests.daemon.conftest import alive
from tests.fleet.agents import TTL, fleet_of_agents

IDS = ["shop", "desk"]


async def test_workers_keep_their_lease_without_an_agent_and_end_with_it(
    tmp_path: Path, eventually: Eventually
) -> None:
    async with fleet_of_agents(["a", "b"], tmp_path) as fleet:
        a, b = fleet["a"], fleet["b"]
        await fleet.create(*IDS, on="a")
        await eventually(lambda: fleet.connected(IDS), within=30)
        await eventually(lambda: fleet.copied(IDS), within=10)
        await eventually(fleet.know_each_other, within=30)
        assert a.process is not None

        # Killed, and back within the lease: no session notices.
        workers, killed = fleet.witness.connected(), boot_now()
        await a.kill()
        await a.boot()
        await eventually(lambda: boot_now() > killed + TTL, within=2 * TTL)
        assert fleet.witness.connected() == workers
        assert len(fleet.witness.connections()) == len(IDS)

        # Frozen for longer: the workers end by themselves, then the sessions run on the other one.
        fleet.freeze("a", [a.process.pid])
        await eventually(lambda: not any(map(alive, workers.values())), within=TTL)
        ended = {it.session: it.ended for it in fleet.witness.connections()}
        assert all(ended.values()), "each disconnected in order"
        await eventually(lambda: fleet.connected(IDS), within=30)
        assert set((await fleet.owners()).values()) == {"b"}

        # It goes on: it starts nothing, and what is here goes to the trash.
        a.thaw()
        trash = a.state / "sessions" / ".trash"
        await eventually(lambda: len(list(trash.glob("*"))) == len(IDS), within=30)
        assert a.worker_pids() == []
        fleet.check()
        assert set(fleet.witness.connected().values()) == set(b.worker_pids())
