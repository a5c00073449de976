"""Agents of a fleet: the real program with its process host, sandbox sessions, a real etcd."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from agent.fleet import trying
from agent.fleet.etcd import Etcd, Get, Put
from agent.fleet.records import Claim, Fleet, Halt, Keys, Machine, Session, decoded, encoded
from agent.host.choose import only_agent
from tests.conftest import Eventually
from tests.daemon.conftest import AgentClient, RunningAgent, cli, done, make_agent, workers_in
from tests.fleet.members import Members, members, needs_etcd
from tests.waiting import alive, connected

__all__ = ["make_agent"]
FLEET, KEYS = Fleet(ttl=8.0, margin=3.0), Keys("f")
NEW = "POST", "/api/instance", {"id": "u", "engine": "sandbox"}
SAVES_SLOWLY = f"""exec('''
import asyncio, agent.daemon.main as it
close = it.close_sessions
async def later(*parts):
    await asyncio.sleep({2 * FLEET.usable})
    await close(*parts)
it.close_sessions = later
''')"""
MakeAgent = Callable[..., RunningAgent]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Members]:
    with members(tmp_path, 1) as made:
        yield made


@asynccontextmanager
async def store_of(etcd: Members) -> AsyncIterator[Etcd]:
    async with aclosing(Etcd([*etcd.clients.values()])) as store:
        await store.commit([], [Put(KEYS.common, encoded(FLEET))])
        yield store


async def record(store: Etcd, key: str, kind: Any) -> Any:
    pairs = (await store.read(Get(key))).found[0]
    return decoded(pairs[0].value, kind) if pairs else None


def in_fleet(agent: RunningAgent, etcd: Members, name: str, address: str = "") -> None:
    """As an operator writes it."""
    own = f'\n[fleet]\nstore = {[*etcd.clients.values()]}\nname = "f/{name}"\n'.replace("'", '"')
    own += f'address = "{address}"\n' * bool(address)
    agent.config.write_text(agent.config.read_text() + own)
    if address:
        (agent.state / "fleet").mkdir(parents=True)
        (agent.state / "fleet/fleet.key").touch(0o600)
        (agent.state / "fleet/fleet.key").write_bytes(b"k" * 32)


def leased(agent: RunningAgent, id: str) -> bool:
    return bool(json.loads((agent.state / f"sessions/{id}/instance.json").read_text())["leased"])


async def test_a_session_runs_with_its_machines_lease_only(
    make_agent: MakeAgent, etcd: Members, eventually: Eventually
) -> None:
    agent = make_agent(name="a")
    await agent.start()
    await connected(agent, eventually, "s")
    assert (await cli(agent, "fleet", "status"))[0] == 3, "it is in no fleet"
    before = await agent.pid("s")
    await agent.kill()
    in_fleet(agent, etcd, "a")
    async with store_of(etcd) as store:
        # It joins: its worker, which has no fence, gives way to one that has.
        await agent.start()
        await eventually(lambda: agent.is_back("s", before))
        assert leased(agent, "s")
        assert await record(store, KEYS.session("s"), Session) == Session("a", 1, "sandbox")
        pid = await agent.pid("s")
        # etcd stops: the worker ends by itself, and begins again with the next lease.
        await eventually(lambda: is_well(agent))
        assert re.search(r"lease ends in [1-5] s", await done(agent, "fleet", "status"))
        etcd.signal("m0", signal.SIGSTOP)
        await eventually(lambda: not alive(pid))
        await eventually(lambda: reason(agent, "s"), "no_lease")
        status, said = await cli(agent, "fleet", "status")
        assert (status, "a " in said, "etcd" in said) == (1, True, True)
        assert (await agent.ask("GET", "/api/instance/other"))[0] == 503, "another may have it"
        assert (await agent.ask("POST", "/api/instance/s/stop"))[1]["error"] == "no_lease"
        etcd.signal("m0", signal.SIGCONT)
        await eventually(lambda: agent.is_back("s", pid))
        # An order of another machine is carried out here, and one of here is written down.
        put = Put(KEYS.session("s"), encoded(Session("a", 1, "sandbox", wanted="stopped")))
        await store.commit([], [put])
        await eventually(lambda: reason(agent, "s"), "stopped")
        await agent.do("POST", "/api/instance/s/start")
        await eventually(lambda: agent.status("s"), "CONNECTED")
        orders = agent.state / "fleet/orders.json"
        await eventually(lambda: json.loads(orders.read_text()), {"s": ["running", 1]})
        await agent.do("POST", "/api/instance/s/stop")
        assert await its(store, "s", "wanted") == "stopped"
        # The session's folder is gone, and a person wants a new one.
        (agent.state / "sessions/s").rename(agent.state / "aside")
        await agent.do("POST", "/api/instance/s/start")
        await eventually(lambda: reason(agent, "s"), "session_missing")
        await agent.do("POST", "/api/instance/s/cleanup", {"confirm": True})
        assert leased(agent, "s")


async def is_well(agent: RunningAgent) -> bool:
    return await says(agent, "'troubles': []", "'halt': None")


async def says(agent: RunningAgent, *words: str, path: str = "/api/fleet") -> bool:
    return all(map(str(await agent.ask("GET", path)).__contains__, words))


async def reason(agent: RunningAgent, id: str) -> str:
    return str((await agent.show(id))["reason"])


async def its(store: Etcd, id: str, field: str) -> Any:
    return getattr(await record(store, KEYS.session(id), Session), field)


async def test_a_session_of_another_machine_never_starts_here(
    make_agent: MakeAgent, etcd: Members, eventually: Eventually
) -> None:
    a, b = make_agent(name="a"), make_agent(name="b")
    for one in (a, b):
        in_fleet(one, etcd, one.state.name)
    async with store_of(etcd) as store:
        await a.start()
        await connected(a, eventually, "s")
        # The session's folder lies on the disk of b, too.
        await b.start()
        await eventually(lambda: is_well(b))
        assert (await b.ask("GET", "/api/instance/s"))[1]["error"] == "no_part", "it has no key"
        await b.stop()
        shutil.copytree(a.state / "sessions/s", b.state / "sessions/s")
        await b.start()
        await connected(b, eventually, "t")
        assert await reason(b, "s") == "no_lease"
        await eventually(lambda: says(b, "session of machine a", path="/api/instance/s/details"))
        await eventually(lambda: says(b, "lies on b"))
        assert "machine a; try" in (await b.ask("POST", "/api/instance/s/start"))[1]["message"]
        await asyncio.sleep(FLEET.ttl)
        assert (await b.pid("s"), await a.status("s")) == (0, "CONNECTED")
        # Halted: what runs goes on, and nothing starts. An order that is given then is kept.
        await b.do("POST", "/api/instance/t/stop")
        await eventually(lambda: its(store, "t", "wanted"), "stopped")
        await store.commit([], [Put(KEYS.halt, encoded(Halt("a", "the store went back", "1")))])
        await eventually(lambda: says(b, "the store went back"))
        assert "halted by a: the store went back" in (await cli(b, "fleet", "status"))[1]
        for order in (("DELETE", "/api/instance/t"), NEW):
            assert (await b.ask(*order))[1]["error"] == "no_lease"
        await b.do("POST", "/api/instance/t/start")
        await eventually(lambda: reason(b, "t"), "no_lease")
        assert (await b.pid("t"), await a.status("s")) == (0, "CONNECTED")
        # It leaves its fleet: its worker gives way to one without a fence.
        before = await a.pid("s")
        await a.kill()
        a.config.write_text(a.config.read_text().partition("[fleet]")[0])
        await a.start()
        await eventually(lambda: a.is_back("s", before))
        assert not leased(a, "s")
        # It is back before anyone called it lost: what runs without a fence ends.
        before = await a.pid("s")
        await a.kill()
        in_fleet(a, etcd, "a")
        await a.start()
        await eventually(lambda: not alive(before))
        await eventually(lambda: reason(a, "s"), "no_lease")
        await is_accepted(a, b, store, eventually)


async def is_accepted(a: RunningAgent, b: RunningAgent, store: Etcd, within: Eventually) -> None:
    """Each machine has its own session again, under the next epoch."""
    await within(lambda: record(store, KEYS.claims + "a", Claim))
    code, said = await cli(b, "fleet", "drain")
    assert (code, "is kept, but no session moves yet: halted" in said) == (75, True)
    await done(b, "fleet", "undrain")
    assert (await cli(a, "fleet", "accept"))[1].split()[-4:] == ["s", "a", "t", "b"]
    await within(lambda: a.status("s"), "CONNECTED")
    await within(lambda: b.status("t"), "CONNECTED")
    assert (await b.pid("s"), await its(store, "s", "epoch")) == (0, 2)
    await a.kill()

    await within(lambda: says(b, "it is lost"))
    await done(b, "fleet", "forget", "a", "--yes")
    assert " forgotten " in (await cli(b, "fleet", "status"))[1]


async def test_an_ordered_stop_keeps_its_leases_until_all_is_saved(
    make_agent: MakeAgent, etcd: Members, eventually: Eventually
) -> None:
    (agent := make_agent(name="a")).first = SAVES_SLOWLY
    in_fleet(agent, etcd, "a")
    async with store_of(etcd) as store:
        await agent.start()
        await connected(agent, eventually, "s")
        pid = await agent.pid("s")
        stop = asyncio.create_task(agent.stop())
        await asyncio.sleep(FLEET.usable + 1)
        assert (alive(pid), (await agent.ask(*NEW))[1]["error"]) == (True, "no_lease")
        assert (await stop, "lease of its machine ended" in agent.log.read_text()) == (0, False)
        assert (await record(store, KEYS.machine("a"), Machine)).released
        # The next one needs not wait for a ttl.
        agent.first = ""
        await store.commit([], [Put(KEYS.common, encoded(Fleet(ttl=300.0, margin=3.0)))])
        await agent.start()
        await eventually(lambda: agent.status("s"), "CONNECTED")


def test_a_tried_fleet_stays_while_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_etcd()
    assert {trying.main(it) for it in ([], ["1"], ["3", "--state"])} == {2}
    for name, value in ("ENDS", ()), ("_start", Mock()), ("tempfile.mkdtemp", lambda **_: tmp_path):
        monkeypatch.setattr(f"agent.fleet.trying.{name}", value)
    with only_agent(tmp_path / "b"):
        assert (trying.main(["2"]), tmp_path.exists()) == (0, True)
    assert (trying.main(["2"]), tmp_path.exists()) == (0, False)


@pytest.mark.slow
async def test_a_fleet_on_one_machine_ends_as_a_whole(eventually: Eventually) -> None:
    needs_etcd()
    command = (sys.executable, "-m", "agent.fleet.trying", "2")
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said = ""
    while "Stop:" not in said:
        said += (await process.stdout.readline()).decode()
    pids = [int(it) for it in re.findall(r"kill -9 (\d+)", said)]
    root = Path(re.search(r"Logs: +(\S+)", said)[1])

    async def is_up() -> bool:
        return "CONNECTED" in (await cli(AgentClient(root / "b"), "list"))[1].split()

    try:
        await eventually(is_up)
        pids += [pid for it in root.glob("?/run*") for pid in workers_in(it).values()]
    finally:
        process.terminate()
        assert await process.wait() == 0
    assert (len(pids) > 4, [*filter(alive, pids)], root.exists()) == (True, [], False)
