"""Keepers of several machines on a real PostgreSQL: leases, promises and takeovers in real time."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from agent.clock import boot_now
from agent.core.fleet.lease import Lease, LeasePolicy
from agent.errors import Refused, TryLater, VaultError
from agent.fleet.coordinator import Machine, Member, NewSession, Owned
from agent.fleet.fleet_file import Rival
from agent.fleet.keeper import Keeper
from agent.fleet.postgres.coordinator import PostgresCoordinator
from tests.conftest import Eventually
from tests.fleet.test_postgres import Fleet, fleet, server

__all__ = ["fleet", "server"]

POLICY = LeasePolicy(ttl=6, margin=1.5)


class Node:
    """A machine of the fleet: its keeper, and what it may run."""

    def __init__(self, name: str, fleet: Fleet, folder: Path, nodes: dict[int, "Node"]) -> None:
        self.name, self._nodes, self.cut = name, nodes, False
        self.path = folder / f"{name}.json"
        self.coordinator: PostgresCoordinator = PostgresCoordinator(fleet.address, POLICY.ttl, 1.0)
        fleet.opened.append(self.coordinator)
        self._machine = Machine(name, "", engines=frozenset({"sandbox"}))
        self.runs: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._answers = False

    async def begin(self, policy: LeasePolicy = POLICY) -> "Node":
        self.keeper = Keeper(
            self.coordinator,
            self._machine,
            policy,
            path=self.path,
            ask_rival=self._ask,
            changed=self._changed,
        )
        self.keeper.resuming.go_on = self._go_on
        await self.keeper.load()
        self._answers = True
        with suppress(TryLater, Refused):
            await self.keeper.join()
        self._task = asyncio.create_task(self.keeper.run())
        if self not in self._nodes.values():
            async with asyncio.timeout(30):
                await self.keeper.joined.wait()
            self._nodes[self.id] = self
        return self

    async def kill(self) -> None:
        self._answers = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def id(self) -> int:
        return self.keeper._member.id

    @property
    def rivals(self) -> frozenset[int]:
        """Those whose promises it needs while the database is away."""
        return self.keeper.memory.rivals

    @property
    def running(self) -> set[str]:
        return {id for id, until in self.runs.items() if boot_now() < until}

    def _changed(self, owned: Sequence[Owned], lease: Lease) -> None:
        self.runs = {session.id: lease.until for session in owned}

    def _go_on(self, until: float, ids: Collection[str] | None) -> None:
        self.runs |= {id: until for id in self.running if ids is None or id in ids}

    async def _ask(self, rival: Rival, id: int, epoch: int, accepted: str) -> bool:
        other = self._nodes[rival.id]
        if self.cut or other.cut or not other._answers:
            raise OSError("no answer")
        return other.keeper.promise(id, epoch, accepted)


TOLD = "UPDATE wa_agent.machine SET told = 99"
"""Every machine told what it runs, which a keeper does not know."""


async def accept(fleet: Fleet) -> None:
    fleet.server.sql(TOLD)
    await fleet.coordinator().accept()


Three = Callable[[], Awaitable[list[Node]]]


@pytest.fixture
async def three(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Three]:
    nodes: dict[int, Node] = {}

    async def begin() -> list[Node]:
        begun = [await Node(name, fleet, tmp_path, nodes).begin() for name in ("a", "b", "c")]
        coordinator = fleet.coordinator()
        for number, node in enumerate(begun):
            member = node.keeper._member
            assert await coordinator.create(member, NewSession(f"s{number}", "sandbox"), node.id)
            assert await coordinator.store_copy(member, f"s{number}", 0, b"files")
        return begun

    yield begin
    for node in nodes.values():
        await node.kill()


def nowhere_twice(nodes: Sequence[Node]) -> bool:
    every = [id for node in nodes for id in node.running]
    return len(every) == len(set(every))


def all_run(nodes: Sequence[Node]) -> bool:
    assert nowhere_twice(nodes)
    return {id for node in nodes for id in node.running} == {"s0", "s1", "s2"}


async def test_the_sessions_of_a_dead_machine_run_on_another_one_within_a_ttl(
    three: Three, eventually: Eventually
):
    a, b, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    await c.kill()
    await eventually(lambda: all_run([a, b]), within=30)
    assert boot_now() > c.keeper.lease.until, "its own lease had to end first"
    assert nowhere_twice(nodes)
    # It comes back with what its disk says, and leaves them where they are.
    await c.begin()
    await eventually(lambda: c.keeper.lease.holds(boot_now()), within=30)
    assert c.running == set()
    assert all_run(nodes)


async def test_without_the_database_all_go_on_while_each_promises_the_others(
    three: Three, fleet: Fleet, eventually: Eventually
):
    nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    fleet.server.signal(signal.SIGSTOP)
    try:
        end = time.monotonic() + 2 * POLICY.ttl
        while time.monotonic() < end:
            assert all_run(nodes)
            await asyncio.sleep(0.1)
        assert all(len(json.loads(it.path.read_text())["named"]) <= 2 for it in nodes)
        nodes[2].cut = True  # now it can promise no machine, and none can promise it
        await eventually(lambda: not any(node.running for node in nodes), within=10 * POLICY.ttl)
    finally:
        fleet.server.signal(signal.SIGCONT)
    nodes[2].cut = False
    await eventually(lambda: all_run(nodes), within=10 * POLICY.ttl)


async def test_an_agent_that_restarts_without_the_database_keeps_what_runs_while_all_promise(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
):
    a, b, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    ended = "s1"
    fleet.server.signal(signal.SIGSTOP)
    try:
        # At once: one after another, their waits for the database add up to nearly a lease.
        await asyncio.gather(*(node.kill() for node in nodes))
        await asyncio.gather(*(node.begin() for node in nodes))
        end = time.monotonic() + 1.5 * POLICY.ttl
        while time.monotonic() < end:
            assert all_run(nodes)
            await asyncio.sleep(0.1)
        assert not any(node.keeper.joined.is_set() for node in nodes)
        await a.kill()
        await a.begin()
        del b.runs[ended]
        await eventually(lambda: a.keeper.lease.holds(boot_now()), within=30)
        assert not b.running, "nothing is started"
        # The clocks of another boot, and another ttl than the fleet's, say nothing.
        for change in ("boot", "ttl"):
            await c.kill()
            with monkeypatch.context() as other:
                if change == "boot":
                    other.setattr("agent.fleet.keeper.boot_id", lambda: "another")
                await c.begin(LeasePolicy(7, 1.5) if change == "ttl" else POLICY)
            assert not c.keeper.resuming.active, change
            assert not c.keeper.promise(a.id, a.keeper._member.epoch), change
        await eventually(lambda: not any(node.running for node in nodes), within=10 * POLICY.ttl)
        await c.kill()
        await c.begin()
    finally:
        fleet.server.signal(signal.SIGCONT)
    await eventually(lambda: all_run(nodes), within=10 * POLICY.ttl)


async def test_an_agent_from_an_older_image_neither_goes_on_nor_promises_without_the_database(
    three: Three, fleet: Fleet, eventually: Eventually
):
    """In the same boot: who became its rival since then is not in the image, and is not asked."""
    a, b, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    await c.kill()
    await eventually(lambda: all_run([a, b]), within=30)
    await eventually(lambda: a.rivals == {b.id}, within=30)
    image, made = a.path.read_bytes(), boot_now()
    await c.begin()
    await eventually(lambda: a.rivals == {b.id, c.id}, within=30)
    await eventually(lambda: boot_now() > made + POLICY.ttl, within=2 * POLICY.ttl)
    fleet.server.signal(signal.SIGSTOP)
    try:
        await a.kill()
        a.path.write_bytes(image)
        c.cut = True  # it may reach the database, for all that the others know
        await a.begin()
        assert a.rivals == {b.id}, "as the image has it"
        assert not a.keeper.promise(b.id, b.keeper._member.epoch), "what it sent is not in it"
        await eventually(lambda: not a.running, within=3 * POLICY.ttl)
        assert a.keeper.counts.renewals["promised"] == 0
    finally:
        fleet.server.signal(signal.SIGCONT)
    c.cut = False
    await eventually(lambda: all_run(nodes), within=10 * POLICY.ttl)
    assert a.keeper.promise(b.id, b.keeper._member.epoch)


async def test_an_agent_that_restarts_after_an_accepted_loss_promises_nothing_either(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
):
    a, _, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    fleet.server.sql("UPDATE wa_agent.fleet SET halted = 'the test says so'")
    await eventually(lambda: all(it.keeper.halted for it in nodes), within=30)
    await a.kill()
    await a.begin()
    assert a.keeper.promise(c.id, 0), "all go on until the loss is accepted"
    await eventually(lambda: a.running == {"s0"}, within=30)
    with monkeypatch.context() as cut:
        cut.setattr(a.coordinator, "owned", _away)
        await accept(fleet)
        await eventually(lambda: not a.keeper.halted, within=30)
        await a.kill()
        await a.begin()
        assert not a.keeper.promise(c.id, 0)
        await eventually(lambda: not a.running, within=10 * POLICY.ttl)
    await eventually(lambda: a.keeper.promise(c.id, 0, heard_of(c)), within=10 * POLICY.ttl)
    await eventually(lambda: all_run(nodes), within=30)


async def test_while_the_database_takes_no_writes_all_go_on(
    three: Three, fleet: Fleet, eventually: Eventually
):
    nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    fleet.server.take_writes(False)
    try:
        await eventually(lambda: all(it.keeper.lease_by == "promises" for it in nodes), within=30)
        end = time.monotonic() + 1.5 * POLICY.ttl
        while time.monotonic() < end:
            assert all_run(nodes)
            await asyncio.sleep(0.1)
        await eventually(lambda: "read-only" in nodes[0].keeper.database_error)
    finally:
        fleet.server.take_writes(True)
    await eventually(lambda: all(it.keeper.lease_by == "renewal" for it in nodes), within=30)
    assert all_run(nodes)


async def test_a_machine_that_cannot_keep_its_promises_takes_no_part(three: Three, tmp_path: Path):
    nodes = await three()
    await nodes[0].kill()
    memory = json.loads(nodes[0].path.read_text())
    nodes[0].path.write_text(json.dumps({**memory, "epoch": "many"}))
    with pytest.raises(VaultError, match="only as a new machine") as refused:
        await nodes[0].begin()
    assert refused.value.code == "fleet_memory"


async def test_a_database_that_stays_away_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    tries = 0

    class Away:
        async def join(self, _machine: Machine) -> Member:
            nonlocal tries
            tries += 1
            raise TryLater("cannot reach the fleet's database: nobody is there")

    keeper = Keeper(
        Away(),  # type: ignore[arg-type] - nothing else is asked before it joined
        Machine("a", ""),
        POLICY,
        path=tmp_path / "fleet.json",
        ask_rival=None,  # type: ignore[arg-type]
        changed=None,  # type: ignore[arg-type]
    )
    task = asyncio.create_task(keeper.run())
    await eventually(lambda: tries >= 3, within=20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.text.count("cannot renew") == 1
    assert "nobody is there" in keeper.database_error


async def test_a_machine_that_was_taken_over_starts_nothing_while_records_are_lost(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _, _ = nodes = await three()
    async with cut_off(nodes, eventually, monkeypatch):
        fleet.server.sql("UPDATE wa_agent.fleet SET halted = 'the test says so'")
    await eventually(lambda: a.keeper.halted and a.keeper.lease.holds(boot_now()), within=30)
    assert all_run(nodes) and not a.running
    # The takeover is lost as well, and its loss accepted, before `a` says which epoch it has.
    lose = "UPDATE wa_agent.machine SET epoch = 0 WHERE name = 'a'"
    fleet.server.sql(f"{lose}; {TOLD}; SELECT wa_agent.accept_loss()")

    asking = fleet.coordinator()

    async def epoch_of_a() -> int:
        return next(it.epoch for it in await asking.machines() if it.name == "a")

    await eventually(epoch_of_a, 1, within=30)
    await accept(fleet)
    counts = a.keeper.counts.renewals
    before = counts["renewed"]
    await eventually(lambda: counts["renewed"] > before + 2, within=10 * POLICY.ttl)
    assert all_run(nodes) and not a.running


async def test_leases_from_before_an_accepted_loss_end_until_they_were_read_again(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = nodes = await three()
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    lost = f"UPDATE wa_agent.session SET machine = {b.id}, epoch = 1"
    fleet.server.sql(f"UPDATE wa_agent.fleet SET halted = 'the test says so'; {lost}")
    await eventually(lambda: all(it.keeper.halted for it in nodes), within=30)
    assert all_run(nodes), "what runs goes on"
    with monkeypatch.context() as cut_c, monkeypatch.context() as cut:
        # `c` does not hear of the acceptance; `a` does, and reads no more than that.
        cut_c.setattr(c.coordinator, "renew", _away)
        await eventually(lambda: c.keeper.lease_by == "promises", within=30)
        cut.setattr(a.coordinator, "owned", _away)
        await accept(fleet)
        await eventually(lambda: not a.keeper.halted, within=30)
        cut.setattr(a.coordinator, "renew", _away)
        cut.setattr(a.keeper, "_ask_rival", _promised)
        await eventually(lambda: a.keeper.lease_by == "promises", within=30)

        def they_went_to_b() -> bool:
            assert nowhere_twice(nodes)
            return b.running == {"s0", "s1", "s2"}

        await eventually(they_went_to_b, within=10 * POLICY.ttl)
        cut.undo()
        await eventually(lambda: not a.keeper._memory.now.lost, within=10 * POLICY.ttl)
        assert not b.keeper._memory.now.lost
        await a.kill()
        await a.begin()
        refused = c.keeper.counts.renewals["failed"]

        def c_is_refused_again_and_again() -> bool:
            assert they_went_to_b()
            return c.keeper.counts.renewals["failed"] >= refused + 3

        await eventually(c_is_refused_again_and_again, within=10 * POLICY.ttl)
        for node in (a, b):
            assert node.keeper.promise(c.id, 0, heard_of(b))
            assert not node.keeper.promise(c.id, 0, heard_of(c))
            assert not node.keeper.promise(c.id, 0), "of a version that says nothing of it"
    await eventually(lambda: c.keeper.lease_by == "renewal", within=30)
    assert heard_of(c) == heard_of(b)
    assert they_went_to_b()


async def test_a_machine_that_was_forgotten_runs_nothing_of_before_when_it_joins_again(
    three: Three, fleet: Fleet, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = nodes = await three()
    async with cut_off(nodes, eventually, monkeypatch):
        number = b.keeper.takeovers.lapsed()[a.id]
        assert await fleet.coordinator().forget(b.keeper.member, a.id, number)
    with monkeypatch.context() as cut:
        # It renews, and is cut off before it has read what it owns.
        cut.setattr(a.coordinator, "owned", _away)
        await eventually(lambda: a.keeper.lease.holds(boot_now()), within=30)
        cut.setattr(a.coordinator, "renew", _away)
        await eventually(lambda: a.keeper.lease_by == "promises", within=30)
        assert all_run(nodes) and not a.running


@asynccontextmanager
async def cut_off(
    nodes: Sequence[Node], eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """The first one reaches no other; inside, the others run its sessions."""
    first, *others = nodes
    await eventually(lambda: all_run(nodes) and all(map(knows_two, nodes)), within=30)
    with monkeypatch.context() as cut:
        cut.setattr(first.coordinator, "renew", _away)
        first.cut = True
        await eventually(lambda: all_run(others), within=30)
        yield
    first.cut = False


def heard_of(node: Node) -> str:
    """The accepted loss of records that it names when it asks for a promise."""
    return node.keeper._memory.now.accepted.loss


def knows_two(node: Node) -> bool:
    """The database has both others as its rivals."""
    return [len(it) for it in node.keeper._memory.now.named] == [2]


async def _promised(*_asked: object) -> bool:
    return True


async def _away(*_asked: object) -> None:
    raise TryLater("cannot reach the database: the test says so", code="fleet_database")
