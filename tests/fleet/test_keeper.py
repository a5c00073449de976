"""Ownership of sessions under faults, in virtual time. The oracle is in world.py."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from unittest.mock import AsyncMock, patch

import pytest
from msgspec.structs import replace

from agent.errors import TryLater
from agent.fleet import keeper as keepers
from agent.fleet.etcd import Get, Pair, Put, Same
from agent.fleet.keeper import Past, how_to_begin
from agent.fleet.operator import accept
from agent.fleet.records import Machine, Session, encoded
from agent.fleet.taking import Seen, View
from tests.fleet.nemesis import Nemesis
from tests.fleet.world import TTL, Host, World, play, played, well

TAKEN_WITHIN, SEEDS, MUTANT_SEEDS = TTL + 1, range(5), range(20)


def where(world: World) -> dict[str, str]:
    """Machine on which each session is connected."""
    return {id: host.name for id, there in world.logins.holders.items() for host in there}


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_minutes_of_drawn_faults_connect_no_session_twice(seed: int) -> None:
    well(play(lambda world: Nemesis(world).story(600), seed))


@played
async def test_sessions_of_a_dead_machine_are_connected_elsewhere_in_time(world: World) -> None:
    await world.begin("abc", 30)
    await world.hosts["a"].kill_agent()
    await asyncio.sleep(1)
    world.hosts["a"].start_agent()  # it renews between the renewals of the others
    await asyncio.sleep(31)
    await world.hosts["a"].kill()
    assert (len(world.down()), await world.all_up(60) <= TAKEN_WITHIN) == (10, True)
    # The one that returns has none of them, and stays that way.
    world.hosts["a"].start_agent()
    await asyncio.sleep(2 * TTL)
    assert "a" not in where(world).values()


@played
async def test_neither_outage_nor_unreadable_record_moves_a_session(world: World) -> None:
    await world.begin("abc", 6, copies=2)
    await asyncio.sleep(TTL)
    before = where(world)
    for cut, pause in (True, 1.0), (False, TTL / 4):
        for host in world.hosts.values():
            host.line.cut = cut
            await asyncio.sleep(pause)
        await asyncio.sleep(2 * TTL)
    assert (where(world), world.down()) == (before, [])
    world.copying.cancel()
    world.memory.written, keys, count = lambda _: None, world.keys, world.logins.count
    for key in (keys.session("s0"), keys.session("x"), keys.machine("x"), keys.all + "x/y"):
        world.memory.commit([], [Put(key, b'{"machine": 1')], [])
    await asyncio.sleep(2 * TTL)
    assert (where(world), world.logins.count) == (before, count), "nor ends it"


@pytest.mark.parametrize("held", [0.0, 4.0, 30.0])
@pytest.mark.parametrize("number", range(1, 19))
def test_any_one_answer_may_be_lost_and_its_request_arrive_late(number: int, held: float) -> None:
    """The writes of `a`: begin, renewals, a hand-over, c lost, its sessions taken."""

    async def story(world: World) -> None:
        world.add("a").line.faults = {number: held}
        await world.begin("bc", 2, copies=1)
        world.write("s2", Session("c", 1, copies=("a",)))
        world.write("s3", Session("a", 1, copies=("b",)))
        await world.all_up(2 * TTL)
        await asyncio.sleep(5)
        await world.hosts["a"].move("s3", "b")
        await world.hosts["c"].kill()
        await world.all_up(TAKEN_WITHIN + TTL)
        await asyncio.sleep(TTL)
        world.hosts["c"].start_agent()
        await world.all_up(TTL)
        assert world.hosts["a"].line.writes >= number, "that write was made"

    well(play(story))


def test_of_a_machine_resumed_twice_from_its_memory_one_ends_within_a_renewal() -> None:
    async def story(world: World) -> None:
        await world.begin("ab", 2)
        a = world.hosts["a"]
        twin = Host(world, "a", a.folder, a.boot)
        world.twins.append(twin)
        a.thawed.clear()
        await asyncio.sleep(6)
        resumed = copy(a.keeper)
        vars(resumed).update(store=twin.line, runner=twin, clock=twin.clock, _unanswered={})
        async with asyncio.TaskGroup() as group:
            assert await resumed._renew(group), "the first of them goes on"
            a.thawed.set()
            await asyncio.sleep(TTL / 6 + 2)
            assert (len(a.workers), await resumed._renew(group)) == (0, True), "a foreign word"

    play(story)


@played
async def test_a_clone_gives_nothing_away_and_its_record_is_not_ones_own(world: World) -> None:
    """The original runs its sessions for up to a renewal more. The record has the same revision as
    the own one, as after the store was put back."""
    await world.begin("ab", 2)
    await asyncio.sleep(TTL)
    own = world.memory.pairs[world.keys.machine("b")]
    world.memory.put(Pair(own.key, encoded(Machine(agent="clone")), own.revision))
    await world.until(lambda: not world.hosts["b"].workers, TTL / 6 + 1)
    twin = world.twin("a", reboots=False)
    await world.until(lambda: twin.until, TTL)
    with pytest.raises(TryLater, match="does not own it for sure"):
        await twin.keeper.hand_over("s0", "b", asyncio.sleep)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_store_that_went_back_halts_the_fleet_and_what_runs_goes_on(restarted: bool) -> None:
    """`restarted`: the agents, since the store was as it is now again."""

    async def story(world: World) -> None:
        await world.begin("abc", 9)
        await asyncio.sleep(TTL)
        old = world.memory.snapshot()
        await world.hosts["a"].move("s0", "b")
        for host in world.hosts.values() if restarted else ():
            await host.kill_agent()
            host.start_agent()
        await asyncio.sleep(6 * TTL)
        count = world.logins.count
        world.memory.restore(old)
        await asyncio.sleep(TTL)
        assert b"went back" in world.memory.pairs[world.keys.halt].value
        assert all("went back" in host.keeper.problem for host in world.hosts.values())
        with pytest.raises(TryLater, match="cannot hand over s0: halted until"):
            await world.hosts["b"].keeper.hand_over("s0", "a", asyncio.sleep)
        await world.hosts["c"].kill()
        world.hosts["c"].start_agent()
        await asyncio.sleep(3 * TTL)
        found = (world.logins.count, len(world.down()), where(world)["s0"])
        assert found == (count, 3, "b"), "those of c wait; the others stayed up"
        await (b := world.hosts["b"]).kill_agent()  # it had its word, and halts nothing again
        await accept(world.hosts["a"].line, world.keys)
        b.start_agent()
        assert await world.all_up(2 * TTL) > TTL
        assert (world.logins.count, where(world)["s0"]) == (count + 3, "b")
        await asyncio.sleep(TTL)
        assert not any(host.keeper.problem for host in world.hosts.values())

    well(play(story))


@played
async def test_a_store_that_went_back_while_all_were_off_starts_nothing(world: World) -> None:
    """With the disk of a."""
    await world.begin("ab", 2)
    old, a = world.memory.snapshot(), world.hosts["a"]
    boot, image = a.boot, (a.folder / "agent.json").read_bytes()
    for host in world.hosts.values():
        await host.stop()
        host.start_agent()
    await asyncio.sleep(TTL)
    await asyncio.gather(*(host.kill() for host in world.hosts.values()))
    world.memory.restore(old)
    a.boot, _ = boot, (a.folder / "agent.json").write_bytes(image)
    for host in world.hosts.values():
        host.start_agent()
    await asyncio.sleep(3 * TTL)
    assert world.down() == ["s0", "s1"] and world.logins.count == 4
    assert all("went back" in host.keeper.problem for host in world.hosts.values())


def test_a_store_is_older_if_it_lacks_what_this_machine_wrote_or_knows() -> None:
    def pairs(epoch: int, revision: int) -> list[Pair]:
        return [Pair("wa/f/session/s0", encoded(Session("a", epoch)), revision)]

    view = View()
    assert [view.learn([[], pairs(*it), []], it[1], 0.0) for it in ((2, 7), (3, 8))] == ["", ""]
    view.written.add("s0")
    assert view.learn([[], pairs(4, 10), []], 10, 0.0) == ""
    view.written.add("s0")
    assert "s0" in view.learn([[], [], []], 11, 0.0), "its takeover is not there"
    assert "s0" in view.learn([[], pairs(3, 12), []], 12, 0.0), "its epoch falls"
    view.sessions["s0"] = Seen(Session("a", 5, deleted=True), 1, 0.0)
    assert view.learn([[], pairs(1, 13), []], 13, 0.0) == "", "a new one of its name"


@played
async def test_another_cluster_extends_nothing(world: World) -> None:
    """The cluster before it may live, with other machines."""
    await world.begin("ab", 2)
    await asyncio.sleep(TTL)
    world.memory.cluster = "2"
    await asyncio.sleep(TTL)
    assert world.down() == ["s0", "s1"] and "another cluster" in world.hosts["a"].keeper.problem
    await world.hosts["a"].kill_agent()
    world.hosts["a"].start_agent()
    await asyncio.sleep(9 * TTL)
    assert world.down() == ["s0", "s1"]
    await (b := world.hosts["b"]).kill()  # it had its word, and its disk is no older one
    await accept(world.hosts["a"].line, world.keys)
    await asyncio.sleep(2 * TTL)
    b.start_agent()
    with patch.object(b, "distrust") as distrust:
        await world.all_up(TTL)
    assert (distrust.await_count, b.keeper.problem) == (0, "")
    await world.hosts["a"].kill_agent()
    world.hosts["a"].start_agent()
    await asyncio.sleep(TTL)
    assert world.logins.count == 4


@played
async def test_a_thousand_sessions_are_taken_in_hundreds(world: World) -> None:
    await world.begin("abc", 0)
    for n in range(1000):
        world.write(f"s{n}", Session("a", 1, copies=("b", "c")))
    await world.all_up(TTL)
    await world.hosts["a"].kill()
    await world.until(lambda: len(world.memory.commits[-1]) == 100, TAKEN_WITHIN)
    taker = next(it for it in "bc" if f'"{it}"'.encode() in world.memory.commits[-1][0].value)
    await asyncio.sleep(0.1)
    await world.hosts[taker].kill()
    assert 0 < sum(it.machine == "a" for it in world.sessions().values()) < 1000
    await world.all_up(2 * TAKEN_WITHIN + TTL / 3)
    assert len({*where(world).values()}) == 1


ME, OTHER = Machine(agent="me"), Machine(agent="other")
PAST = Past("me", "boot", "1")


@pytest.mark.parametrize(
    ("past", "found", "stood", "fresh"),
    [
        (None, None, 0, True),
        (None, replace(OTHER, lost=True), 0, None),
        (PAST, None, 0, None),
        (PAST, ME, 0, False),
        (replace(PAST, boot_and_folder="before"), ME, 0, None),
        (PAST, replace(ME, lost=True), 0, True),
        (replace(PAST, released=True), replace(ME, released=True), 0, True),
        (PAST, replace(ME, released=True), TTL - 1, None),  # its disk is an older image
        (PAST, replace(OTHER, lost=True), 0, None),
        (PAST, OTHER, TTL, True),
    ],
)
def test_a_machine_waits_unless_its_own_disk_wrote_the_record(
    past: Past | None, found: Machine | None, stood: float, fresh: bool | None
) -> None:
    assert how_to_begin(past, found, "boot", stood, TTL) is fresh


def test_a_disk_is_older_than_renewals_that_it_does_not_know() -> None:
    found = (ME, replace(ME, n=40)), (replace(ME, n=41), replace(ME, released=True), OTHER)
    assert [[PAST.is_older(it) for it in its] for its in found] == [[False] * 2, [True] * 3]


# Keepers that lack one rule. The oracle must see each, or it would not see a fault either.


def no_compare_in_renew(same: Sequence[Same], _then: object) -> Sequence[Same]:
    return [it for it in same if len(same) > 1 or "/machine/" not in it.key]


def no_own_key(same: Sequence[Same], _then: object) -> Sequence[Same]:
    """In what names more than the own record: hand-over and takeover."""
    return same[len(same) > 1 :]


MUTANTS = {
    "no compare in renew": (Host, "change", staticmethod(no_compare_in_renew)),
    "no own key": (Host, "change", staticmethod(no_own_key)),
    "no fence": (Host, "fenced", False),
    "no wait for a twin": (keepers, "how_to_begin", lambda *_: True),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_oracle_sees_each_rule_that_is_gone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MUTANTS[name])
    for seed in MUTANT_SEEDS:
        seen = list[str]()

        async def story(world: World, seen: list[str] = seen) -> None:
            world.logins.wrong = seen
            await Nemesis(world).story(600)

        with suppress(AssertionError):
            play(story, seed)
        if any("still on" in it for it in seen):
            return
    pytest.fail(f"{len(MUTANT_SEEDS)} seeds, and the oracle saw nothing")


def test_a_hand_over_without_an_answer_is_undone_by_writing() -> None:
    async def story(world: World) -> None:
        await world.begin("ab", 2)
        await asyncio.sleep(TTL)
        line = world.hosts["a"].line

        def change(same: Sequence[Same], then: Sequence[Put | Get]) -> Sequence[Same]:
            if "/session/" in then[0].key:
                line.faults[line.writes] = 1.3  # it arrives so late
            return same

        line.change = change
        await world.hosts["a"].move("s0", "b")
        assert line.faults
        await asyncio.sleep(TTL)
        assert where(world)["s0"] == "a"

    for seed in range(5):
        well(play(story, seed))


@played
async def test_a_hand_over_is_void_after_a_takeover_and_after_nothing_else(world: World) -> None:
    await world.begin("abc", 3, copies=1)
    await asyncio.sleep(TTL + 1)
    # A change of its record and a renewal were on their way.
    b, now = world.hosts["b"].keeper, replace(world.sessions()["s1"], copies=())
    changing = asyncio.create_task(b.change({"s1": now}))
    await asyncio.sleep(0)
    assert await b.hand_over("s1", "c", lambda: asyncio.sleep(0.03, b.wake())) == "c"
    assert await changing
    # The session's owner was cut off, and lost, while it sent the files.
    a, taker = world.hosts["a"], world.sessions()["s0"].copies[0]

    async def push() -> None:
        a.line.cut = True
        await world.until(lambda: where(world).get("s0") == taker, 2 * TAKEN_WITHIN)
        a.line.cut = False
        await asyncio.sleep(TTL)

    assert await a.keeper.hand_over("s0", *{*"bc"} - {taker}, push) == taker
    # etcd does not hear of it.
    with pytest.raises(TryLater, match="cannot know if s2 is b's: "):
        off = AsyncMock(side_effect=lambda: setattr(world.memory, "off", True))
        await world.hosts["c"].keeper.hand_over("s2", "b", off)


@pytest.mark.parametrize("seed", range(8))
def test_a_machine_that_renews_while_another_is_called_lost_is_not_lost(seed: int) -> None:
    async def story(world: World) -> None:
        await world.begin("abc", 3, copies=1)
        world.hosts["a"].line.cut = True
        await asyncio.gather(*(world.hosts[name].kill() for name in "bc"))
        await asyncio.sleep(TTL)
        world.hosts["a"].line.cut = False  # for it both stand still from now on
        await world.until(lambda: world.machine("b").lost, 3 * TTL)
        renewed = replace(world.machine("c"), n=99)
        world.memory.commit([], [Put(world.keys.machine("c"), encoded(renewed))], [])
        await asyncio.sleep(1)
        assert not world.machine("c").lost

    well(play(story, seed))


@played
async def test_an_owner_changes_its_sessions_and_adds_new_ones(world: World) -> None:
    await world.begin("ab", 2)
    await asyncio.sleep(TTL + 1)
    world.copying.cancel()
    a, b = (world.hosts[name].keeper for name in "ab")
    s0 = world.sessions()["s0"]
    assert await a.change({"s0": replace(s0, wanted="stopped"), "new": Session("a", 1)})
    assert world.sessions()["s0"].wanted == "stopped"
    await world.until(lambda: where(world).get("new") == "a", TTL)
    wrong = {"s1": world.sessions()["s1"], "new": Session("a", 2), "s0": replace(s0, epoch=2)}
    for id, record in wrong.items():
        with pytest.raises(TryLater, match=id):
            await a.change({id: record})
    assert not await b.change({"new": Session("b", 1)})
    # Another machine orders something: what this one knows is old.
    world.hosts["a"].line.cut = True
    world.write("s0", replace(s0, wanted="running"))
    world.hosts["a"].line.cut = False
    assert not await a.change({"s0": s0, "other": Session("a", 1)})
    assert "other" not in world.sessions()
    # A name that is free again belongs to the next session of it.
    await world.hosts["a"].end({"new"})
    assert await a.change({"new": Session("a", 1, deleted=True)})
    await world.until(lambda: b.view.sessions.get("new", Seen(s0, 0, 0)).record.deleted, 1)
    assert await b.change({"new": Session("b", 2)})
    await world.until(lambda: where(world).get("new") == "b", TTL)


def test_the_record_of_a_deleted_session_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.fleet.keeper.KEPT", 60.0)

    async def story(world: World) -> None:
        await world.begin("ab", 2)
        world.copying.cancel()
        world.write("s0", replace(world.sessions()["s0"], epoch=5, deleted=True))
        await asyncio.sleep(50)
        assert "s0" in world.sessions()
        await asyncio.sleep(2 * keepers.COMPACT_EVERY)
        assert world.sessions().keys() == {"s1"}
        assert 300 < world.memory.compacted < world.memory.revision - 300
        keeper, made = world.hosts["b"].keeper, {"s0": Session("b", 6)}
        assert [await keeper.change(made), await keeper.change(made)] == [False, True]

    well(play(story))
