"""One takeover with a real etcd of three members, in real time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.fleet.etcd import Etcd
from agent.fleet.records import Fleet, Session, encoded
from agent.fleet.store import Put
from tests.fleet.members import Members, members
from tests.fleet.world import Host, World

SESSIONS = 30


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Members]:
    with members(tmp_path, 3) as made:
        yield made


class RealHost(Host):
    fleet = Fleet(ttl=6.0, margin=2.5)


async def test_a_takeover_after_the_leader_was_killed(three: Members, tmp_path: Path) -> None:
    world, urls = World(tmp_path, 0), [*three.clients.values()]
    clients = list[Etcd]()
    for at, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        world.hosts[name] = host = RealHost(world, name, tmp_path / name, "boot")
        host.line = Etcd(urls[at:] + urls[:at])
        clients.append(host.line)
        host.start_agent()
    for n in range(SESSIONS):
        owner, *copies = "abc"[n % 3 :] + "abc"[: n % 3]
        put = Put(world.keys.session(f"s{n}"), encoded(Session(owner, 1, copies=(*copies,))))
        await clients[0].commit([], [put])

    def up(names: str) -> int:
        return sum(host.name in names for there in world.logins.holders.values() for host in there)

    try:
        await world.until(lambda: up("abc") == SESSIONS, 30)
        three.kill(three.leader())
        await world.hosts["a"].kill()
        await world.until(lambda: up("bc") == SESSIONS, 60)
        assert not world.logins.wrong
    finally:
        await world.end()
        for client in clients:
            await client.close()
