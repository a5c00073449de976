"""One machine of a fleet as it answers requests, in virtual time, over a store in memory."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

from aiohttp.test_utils import make_mocked_request
from pytest import raises

from agent.api.http.auth import CALLER, VIA, Caller
from agent.config.load import load_config
from agent.core.model import InstanceId
from agent.errors import NotFound, Refused, TryLater
from agent.fleet.copies.change import Change, FleetKey, Sealed, seal
from agent.fleet.copies.changed import Changed
from agent.fleet.copies.sender import Row
from agent.fleet.etcd import Put
from agent.fleet.forward import enter, forward
from agent.fleet.joined import Joined
from agent.fleet.records import Machine, Session, encoded
from agent.fleet.routes import why
from agent.fleet.taking import Seen, View
from agent.supervise.assemble import create_declared
from tests.fleet.memory import Line
from tests.fleet.test_agents import in_fleet
from tests.fleet.world import TTL, World, now, played

S, T, KEY = InstanceId("s"), InstanceId("t"), FleetKey(b"k" * 32)


class Store(Line):
    members, is_well, aclose = AsyncMock(return_value=[]), AsyncMock(), AsyncMock()


class Real(World):
    """Machine `b` is no Host. It has no worker."""

    def __init__(self, root: Path, seed: int) -> None:
        super().__init__(root, seed)
        base, config, at = Mock(root=root / "b/sessions"), root / "b.toml", "127.0.0.1:1"
        base.root.mkdir(parents=True)
        rows = (f'[[instance]]\nid = "{id}"\nengine = "sandbox"\n' for id in ("mine", "theirs"))
        config.write_text("".join(rows) + '[[program]]\nname = "bot"\ncommand = ["bot"]\n')
        in_fleet(Mock(config=config, state=root / "b"), Mock(clients={"": f"http://{at}"}), "b", at)
        base.settings.config = load_config(config, {})
        base.settings.memory_budget.return_value = 0
        self.registry, base.seats.list = base.registry, AsyncMock(return_value={})
        self.b = self.registry.gate.fleet = Joined(base, root / "b")
        self.registry.facts, self.registry.stopping = {}, False
        self.b._store = Store(self.memory, self.draw, self.add("a").thawed)
        self.write("theirs", Session("a", 1))
        works, base.registry.create = self.b.begin(Mock(senders={}), Mock()), AsyncMock()
        run = "fleet", "records of the fleet", "agent.toml"
        self.tasks = [asyncio.create_task(works[it]()) for it in run]

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.b.close(leave=True)
        await super().end()

    async def ask(self, method: str, id: str = "s", more: str = "") -> Any:
        """None: this machine does it."""
        request = make_mocked_request(method, f"/api/instance/{id}{more}")
        request[CALLER] = Caller("x")
        return await forward(self.b, id, request)

    async def has(self, id: str = "s", engine: str = "sandbox") -> Mock:
        """Give this machine the session's folder; return its facts."""
        facts = Mock(leased=True, should_run=True, instance=Mock(engine=engine, backend=""))
        facts.instance.settings = {"program": "bot"}
        facts.unit.runs, facts.action.is_start = False, False
        facts.wait, facts.busy = Mock(reason="no_lease", sentence=""), asyncio.Lock()
        self.registry.facts[id] = facts
        await self.until(lambda: id in self.b.engines(), TTL)
        return facts


real = partial(played, kind=Real)


def code_is(code: str) -> Any:
    return raises(TryLater, check=lambda error: error.code == code)


@real
async def test_a_session_without_files_is_deleted_unless_a_copy_may_be_left(it: Real) -> None:
    for id, copies in ("there", ("a",)), ("here", ()), ("s", ("b",)):
        it.write(id, Session("b", 1, copies=copies))
    await it.until(lambda: len(it.b.unsettled) == 3, TTL)
    await it.hosts["a"].kill()
    it.b.copies.standby.take(seal(KEY, Sealed("here", 1, 7, True, "", b""), Change()))
    await it.until(lambda: it.machine("a").lost, 2 * TTL)
    with code_is("owner_changed"):
        await it.ask("DELETE", "there")
    # A file that is no copy lies beside the copies, and the session is as one without a copy.
    await it.until(lambda: "not on b" in it.b.unsettled["here"], TTL)
    assert [*it.root.glob("b/fleet/standby-damaged-here-*/log")]
    assert (await it.ask("DELETE", "here")).status == 200
    gone = Put(it.keys.machine("z"), encoded(Machine(lost=True, forgotten=True)))
    it.memory.commit([], [gone, Put(it.keys.session("z"), encoded(Session("z", 1)))], [])
    await it.until(lambda: "z" in it.b.view.sessions, TTL)
    assert [(await it.ask("DELETE", id)).status for id in "sz"] == [200, 200]
    assert {id for id, record in it.sessions().items() if record.deleted} == {"s", "z", "here"}


@real
async def test_a_name_is_free_unless_a_session_of_it_is_elsewhere_or_on_its_way(it: Real) -> None:
    with code_is("no_lease"):
        it.b.may_make(S, "create s")
    await it.until(lambda: it.registry.create.await_count, TTL)
    await create_declared(it.registry, it.b._supervisor.settings.config.instance)  # a reload
    # Only the declared session that no other machine has is created.
    assert [it.args[0].id for it in it.registry.create.await_args_list] == ["mine", "mine"]
    for id, machine in (S, "b"), (T, "a"):
        it.b.view.sessions[id] = Seen(Session(machine, 2), 1, 0.0)
        with raises(Refused, match=f"machine {machine} of this fleet has a session of that"):
            it.b.may_make(id, f"create {id}")
    it.b.drained = True
    it.b.may_make(S, "bring in s")
    it.b.drained, it.b.unsettled["s"] = False, "no copy of it is here"
    it.b._orders = {"s": ("running", 9)}  # of the one before, while another one's is written
    with patch("agent.fleet.joined.write_whole", lambda *_: it.b.may_make(S, "create s")):
        await it.b._write({"t": ("running", 1)})
    assert it.b._orders == {"t": ("running", 1)}


@real
async def test_an_order_that_may_not_last_is_refused_or_called_unsure(it: Real) -> None:
    facts = await it.has()
    await it.b.made(S, "create s")
    found = await it.ask("POST"), await it.ask("GET", more="/messages"), await it.b.kept(S)
    says = it.b.describe()
    assert (*found, *says.lacks, says.capacity) == (None, None, None, 9999), "it has just come"
    facts.wait = Mock(reason="disk_full", sentence="2 MiB are free")
    await it.until(lambda: it.b.describe().lacks == {"s": "2 MiB are free"}, TTL)
    it.b.keeper.leaving.add("s")
    it.b.in_doubt = True  # what a clone takes goes with it
    messages = it.ask("GET", more="/messages"), it.ask("POST", more="/messages")
    for order in it.ask("DELETE"), *messages, it.b.kept(S):
        with code_is("owner_changed"):
            await order
    it.b.keeper.leaving.clear()
    it.b.keeper.starts_at = now() + 12.0
    assert await it.ask("POST") is None and it.b._may_write(), "it waits for the new lease"
    # The session's agent stops, or etcd is away.
    it.memory.off, facts.should_run, it.registry.facts["z"] = True, False, Mock(leased=False)
    assert await it.ask("POST", "z") is None, "a backend's needs no etcd"
    for it.registry.stopping in (True, False):
        for order, code in (it.b.kept(S), "unsure"), (it.ask("POST"), "no_lease"):
            with code_is(code):
                await order
        await asyncio.sleep(TTL)
    it.registry.facts["t"] = facts
    with code_is("unsure"):
        await it.b.made(T, "create t")
    # The session went on elsewhere while the agent was frozen.
    it.write("s", Session("a", 2))
    order = asyncio.create_task(it.ask("DELETE"))
    await asyncio.sleep(0)
    it.memory.off = False
    for asked in order, it.ask("GET", more="/messages/live"):
        with code_is("owner_changed"):
            await asked
    assert [*it.b.copied()] == ["s"], "as its folder; it may not have run there yet"
    # It ran there, and that machine is lost: the folder here is the newest.
    lacks = it.b._arriving.lacks_newest = AsyncMock()
    it.write("s", Session("b", 3))
    await it.until(lambda: S in it.b.engines(), TTL)
    lacks.assert_awaited_once_with("s")
    # Another machine's request, before this one's first renewal.
    it.b.keeper, request = None, make_mocked_request("POST", "/")
    call = Mock(**{"supervisor.gate.fleet": it.b, "request.match_info": {"id": "x"}})
    for asked in (enter(it.b, request), it.ask("GET", "x"), why(call)):
        with raises(TryLater, match=r"no part|cannot reach"):
            await asked
    assert VIA in request


@real
async def test_a_session_that_nothing_copies_leaves_no_folder_unless_it_is_back(it: Real) -> None:
    await asyncio.gather(it.has("s", "web"), it.has("t", "web"))
    it.b._arriving, it.b.copies.peers.pass_on = AsyncMock(messages=Mock()), AsyncMock()
    back = dict.fromkeys("st", Seen(Session("b", 3, "web", "wait"), 99, 0.0))
    it.b._arriving.retire.side_effect = lambda *_: it.b.view.sessions.update(back)
    it.write("s", Session("b", 1, "web", "wait", copies=("a",)))
    await it.until(lambda: not it.sessions()["s"].copies, TTL)
    for id in "st":
        it.write(id, Session("a", 2, "web", "wait"))
    await it.until(lambda: "'moved'" in str(it.b._arriving.retire.await_args), TTL)
    await asyncio.sleep(1)
    with patch.object(it.b, "copies", None):  # its fleet.key is gone: nothing is brought there
        await it.b._let_go(InstanceId("theirs"), moved=True)
    assert (it.b._arriving.retire.await_count, it.b._arriving.let_go.await_count) == (1, 0)
    # A message that was accepted as its session went follows it, once the new machine takes it.
    it.b.copies.peers.pass_on.side_effect = [TryLater("not now"), *[None] * 99]
    it.b._senders["m"], _ = Mock(), it.write("m", Session("a", 1))
    await it.until(lambda: it.b._arriving.let_go.await_count, TTL)


@real
async def test_an_older_disk_or_a_lost_folder_goes_on_with_copies(it: Real) -> None:
    facts = await it.has()
    it.write("s", Session("b", 1, "sandbox", copies=("a",)))
    it.b._arriving.bring_in, it.hosts["a"].copied = AsyncMock(), dict
    it.b.copies.standby.take(seal(KEY, Sealed("t", 1, 7, True, "", b""), Change()))
    await asyncio.sleep(4 * TTL)
    assert b'"n":20' in (it.root / "b/fleet/agent.json").read_bytes()
    it.memory.commit([], [Put(it.keys.machine("b"), encoded(Machine(agent="newer")))], [])
    await it.until(lambda: "cannot reach machine a" in it.b.unsettled.get("s", ""), 3 * TTL)
    assert (it.b.engines(), it.b.held()["s"][0], [*it.b.copied()]) == ({}, 0, [])
    assert [*it.root.glob("b/fleet/standby-older-*/t/log")]
    it.b.copies.standby.take(seal(KEY, Sealed("s", 1, 7, True, "", b""), Change()))
    await asyncio.sleep(TTL)
    assert not it.b.engines(), "machine a may have a newer one"
    fetch = it.b.copies.fetch_newer = AsyncMock(return_value="")
    it.b._may_write = lambda: False  # its lease is too new, as after `accept`
    await asyncio.sleep(TTL)
    assert not it.b.engines()
    del it.b._may_write
    await it.until(it.b.engines, TTL)
    # The session's folder is lost: copies in sync count alone. Where all are away, their disk may
    # come yet.
    for id in S, T:
        row = it.b.copies.rows[id] = Row(Changed(Path(), id, "", Mock()), 1, lost=True)
    await asyncio.sleep(TTL)
    await it.b.copies._record(it.b.keeper)
    assert "the copy of a comes" in str(await it.b.show()) and it.b.has_copy(S)
    row.lost = False
    await it.until(lambda: not it.b.copied(), TTL)
    newer = seal(KEY, Sealed("s", 1, 8, True, "", b""), Change())
    fetch.side_effect = lambda *_: it.b.copies.standby.replace(S, [newer]) or "c is off"
    it.write("s", Session("b", 1, "sandbox"))  # no machine is sure to have all, and c may have more
    await asyncio.sleep(TTL)
    (it.root / "b/sessions/s/session").mkdir(parents=True)  # it was logged out
    it.write("s", Session("b", 1, "sandbox", copies=("a",)))
    await asyncio.sleep(TTL)
    assert it.b._arriving.bring_in.await_count == 1
    facts.verdict.reason = "unpaired_suspect"  # it was not: its worker found no pairing
    await it.until(lambda: it.b._arriving.bring_in.await_count == 2, TTL)
    assert [*it.b.copies.rows] == ["t"]
    it.registry.facts.clear()  # an operator deletes it
    await it.b.kept(S)
    await it.until(lambda: it.sessions()["s"].deleted, TTL)
    # An older disk has it again.
    it.registry.facts["s"], it.b._orders["s"] = facts, ("running", 1)
    it.b._arriving = AsyncMock()
    await asyncio.sleep(TTL)
    assert it.b._arriving.retire.await_args.args[1] == "deleted" and it.sessions()["s"].deleted
    # An older store has it again.
    it.registry.facts.clear()
    await asyncio.sleep(TTL)
    it.memory.cluster, _ = "2", it.write("s", Session("a", 1, "sandbox"))
    await asyncio.sleep(TTL)
    assert it.b.held() == {"s": (2, -1, 0)}


@real
async def test_a_drained_machine_says_which_sessions_stay(it: Real) -> None:
    engines = "sandbox", "program"
    it.hosts["a"].describe = lambda: Machine(capacity=5, engines=engines, key=KEY.mark)
    for id, engine in ("s", "sandbox"), ("w", "web"), ("p", "program"):
        (await it.has(id, engine)).wait.reason = ""
    it.write("s", Session("b", 1))  # as by `accept` of a store that did not know it
    await asyncio.sleep(TTL)
    stays = {why[-11:] for why in (await it.b.drain(True)).values()}
    assert stays == {" engine web", "program bot"}
    await it.until(lambda: (b := it.machine("b")).drained and b.programs == ("bot",), 0.5)
    said = {row["id"]: row["cause"] for row in (await it.b.show())["troubles"]}
    assert ("it moves" in said["s"], "it stays" in said["w"]) == (True, True)
    it.registry.facts["z"] = Mock(leased=False)
    refused = ("x", "a", "no session of"), ("z", "a", "a backend's"), ("s", "x", "no machine x")
    for id, to, cause in *refused, ("s", "a", "reach"):
        with raises((NotFound, TryLater), match=f"cannot .*{cause}"):  # nothing is ended for it
            await it.b.move(id, to)
    it.b._supervisor.root, it.b.copies.standby.rows["x"] = it.root / "no disk", ()
    await it.until(lambda: it.b.describe().closed and not it.b.copied(), 5)
    it.b.copies.lines["a"] = Mock(cause="no answer")
    assert (await it.b.drain(True))["s"] == "a: no answer"
    del it.b.copies.lines["a"]
    it.b.move = AsyncMock(side_effect=TryLater("a is full"))
    it.tasks.append(asyncio.create_task(it.b.keep_drained()))
    for moves in 1, 2:
        await it.until(lambda moves=moves: it.b.move.await_count >= moves, 5)
        assert "drained; a is full" in str((await it.b.show())["troubles"])
        assert not await it.b.drain(False) and await it.b.drain(True)


@real
async def test_a_machine_with_another_key_or_none_is_named(it: Real) -> None:
    it.add("c")
    for mine, theirs, named in (
        *(("", "", {"a", "c"}), ("x", "", {"b", "c"}), ("x", "x", {"b"})),
        *((KEY.mark, "x", {"c"}), (KEY.mark, KEY.mark, set())),
    ):
        for name, key in ("a", mine), ("c", theirs):
            it.hosts[name].describe = lambda key=key: Machine(key=key)
        await asyncio.sleep(TTL)
        rows = (await it.b.show())["troubles"]
        assert {row["machine"] for row in rows if "fleet.key" in row["cause"]} == named
    await it.hosts["c"].kill()
    await asyncio.sleep(TTL * 0.6)
    shown = str(await it.b.show())
    assert "it renews nothing: it is off" in shown and "'silent'" in shown
    it.b.keeper.view = View()  # its agent begins again
    await it.until(lambda: it.b.view.revision, TTL)
    assert "'c', 'id': '', 'cause': 'it was not seen yet" in str((await it.b.show())["troubles"])
    it.hosts["a"].describe = partial(Machine, released=True)
    it.write("s", Session("a", 1))
    await asyncio.sleep(TTL)
    shown = str(await it.b.show())
    assert all(word in shown for word in ("was stopped", "'state': 'stopped'", "take: s, theirs'"))
