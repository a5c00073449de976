"""The task of one server: what is wrong with it, and its rounds."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from agent.backends.backend import EVERY, LOOKS, STEADY, Backend
from agent.clock import boot_now
from agent.core.model import Instance, InstanceId, SessionRecord
from agent.errors import EngineError, Refused, TryLater
from agent.supervise.facts import Facts
from tests.backends.conftest import AT_ONCE, Watch, cancel, declare
from tests.backends.hostile import answer, hostile, reset, silent, stream
from tests.fakes.servers import make_backend, take
from tests.standin.evolution import KEY

ONE, TWO = InstanceId("one"), InstanceId("two")


FAULTS = {
    "refuse": "unreachable",
    "reset": "unreachable",
    "black_hole": "timeout",
    "garbage": "garbage",
    "failing": "failing",
    "licence": "licence_missing",
    "refused": "failing",
    "echo": "failing",
    "empty": "not_found",
}


async def test_what_is_wrong_with_the_server_is_a_code_and_a_sentence(
    watch: Watch, version: str
) -> None:
    at = await watch(version)
    await at.connected()
    assert at.server.sentence == ""
    at.standin.front.status = 429
    for fault, reason in FAULTS.items():
        before = time.time()
        await at.standin.front.set(fault)
        await at.until(lambda: not at.server.claim.up, 60)
        assert at.server.since_wall >= before
        assert at.server.claim.reason == reason, fault
        assert at.server.claim.sentence and KEY not in at.server.claim.sentence
        assert fault != "echo" or at.server.sentence.endswith("it answers 429")
        await at.standin.front.set("")
        await at.until(lambda: at.server.claim.up, AT_ONCE)
        await at.until_it_says("CONNECTED", AT_ONCE)
        await asyncio.sleep(STEADY)
    assert at.asked("GET /instance/connect") == 0


async def test_a_server_that_comes_and_goes_counts_as_down_until_it_stays(watch: Watch) -> None:
    at = await watch()
    await at.connected()
    for fault in ("failing", "") * 60:
        await at.standin.front.set(fault)
        await asyncio.sleep(1)
    assert at.asked("GET /instance/connectionState") < 9
    await at.until(lambda: "comes and goes" in at.server.sentence, AT_ONCE)
    await at.until_it_says("CONNECTED", STEADY)


async def test_a_list_that_waits_for_whatsapp_stops_no_look(watch: Watch) -> None:
    at = await watch("1.8.6")
    await at.hold("one")
    new = await at.hold("two", "connecting")
    await at.until_it_says("QR_REQUIRED", 20, "two")
    at.standin.list_seconds = 300
    await asyncio.sleep(40)
    new.scan()
    await at.until_it_says("CONNECTED", AT_ONCE + 1, "two")
    await asyncio.sleep(80)
    assert at.server.claim.up and "list" in at.server.sentence
    with pytest.raises(TryLater, match="cannot ask backend evo: cannot list its sessions: no ans"):
        await at.server.shared.sessions("evo")


async def test_one_session_that_hangs_delays_no_other(watch: Watch) -> None:
    at = await watch()
    await at.hold("hangs")
    new = await at.hold("two", "connecting")
    await at.until_it_says("QR_REQUIRED", 20, "two")
    await at.standin.front.set("slow", 30, only="/hangs")
    new.scan()
    await at.until_it_says("CONNECTED", AT_ONCE + 1, "two")
    assert await at.refusal("probe", "hangs") == "backend_down"
    assert at.server.claim.up


@pytest.mark.parametrize("fault", ["", "html", "failing", "refused", "empty"])
async def test_a_server_that_proves_nothing_is_believed_and_told(watch: Watch, fault: str) -> None:
    at = await watch()
    at.standin.without = "" if fault else "/chat"
    await at.standin.front.set(fault, only="/chat")
    (await at.hold("one")).dead = "closed"
    await at.until_it_says("CONNECTED", AT_ONCE)
    await asyncio.sleep(AT_ONCE)
    assert at.server.claim.up and "fetchBusinessProfile" in at.server.claim.sentence


async def test_a_proof_that_one_session_lacks_is_told_of_that_one(watch: Watch) -> None:
    at = await watch()
    await at.standin.front.set("html", only="/chat/fetchBusinessProfile/one")
    for name in ("one", "two"):
        await at.connected(name)
    await asyncio.sleep(3 * EVERY)
    its = at.server.shared.instances
    assert [bool(at.server.shared.signals(its[id])) for id in (ONE, TWO)] == [True, False]
    assert at.server.claim.sentence == ""


async def test_one_session_is_watched_once_and_until_it_is_released(watch: Watch) -> None:
    at = await watch()
    await at.connected()
    other = Instance(TWO, "evolution", True, {"backend": "evo", "remote": "one"})
    at.server.shared.instances[TWO] = Facts(other, SessionRecord())  # type: ignore[index]
    shared = at.server.shared
    shared.all["more"] = more = Backend(declare(at.standin.url), InstanceId("more"), shared)
    more.api = at.server.api
    for one in (at.server, more):  # two keys of one server
        with pytest.raises(Refused):
            await one.take(TWO)
        with pytest.raises(Refused):
            there = {"backend": one.name, "remote": "one"}
            shared.check_place(Instance(InstanceId("new"), "evolution", True, there))
    at.server.leave(ONE)
    before = at.asked("GET /instance/connectionState")
    await asyncio.sleep(3 * EVERY)
    assert at.asked("GET /instance/connectionState") == before


async def test_a_caller_that_waits_for_the_list_outlives_the_task(tmp_path: Path) -> None:
    async with hostile(silent) as url:
        server = make_backend(declare(url), tmp_path)
        task = asyncio.create_task(server.run())
        await asyncio.sleep(0)
        asked = asyncio.create_task(server.check())
        await asyncio.sleep(1)
        task.cancel()
        assert not (await asked).up


async def test_an_outage_of_many_is_looked_at_in_rounds(watch: Watch) -> None:
    at = await watch(parallel=20)
    names = [f"line{number:03}" for number in range(8 * LOOKS)]
    for name in names:
        await at.hold(name)
    begun = time.thread_time()
    await at.until(lambda: all(at.says(name) == "CONNECTED" for name in names), 60)
    assert time.thread_time() - begun < 30
    assert at.standin.most_at_once <= 20 + 2


@pytest.mark.parametrize(
    "behave",
    [silent, reset, stream(b"[]," * 300_000), answer(b"[[]]"), answer(b'{"instance": []}')],
    ids=["silent", "reset", "endless", "odd", "odder"],
)
async def test_a_server_that_misbehaves_stays_alone_with_it(
    watch: Watch, tmp_path: Path, behave: object
) -> None:
    at = await watch()
    new = await at.hold("one", "connecting")
    async with hostile(behave) as url:  # type: ignore[arg-type]
        bad = make_backend(declare(url, name="bad"), tmp_path)
        task = asyncio.create_task(bad.run())
        await take(bad, "two", paired=True)
        await at.until_it_says("QR_REQUIRED", 20)
        new.scan()
        await at.until_it_says("CONNECTED", AT_ONCE + 1)
        await asyncio.sleep(30)
        assert not task.done() and bad.seats[TWO].fact is None
        with pytest.raises(EngineError) as caught:
            await bad.seats[TWO].call("connect")
        assert caught.value.code == "backend_down"
        await cancel(task)


async def test_many_sessions_of_a_slow_server_are_proved_while_all_of_them_are_probed(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of a thousand sessions, of the looks at once and of the server's parallel requests:
    their requests take 36 s, and probes that wait for turns in vain would make that minutes."""
    monkeypatch.setattr("agent.backends.backend.LOOKS", LOOKS // 10)
    at = await watch(parallel=5)
    await at.standin.front.set("slow", 0.6)
    names = [f"line-{number}" for number in range(100)]
    for name in names:
        await at.hold(name)

    async def probe(number: int) -> None:
        await asyncio.sleep(number / 10)  # as after a start of the agent
        while True:
            next_at = boot_now() + 30
            with contextlib.suppress(EngineError):
                await at.do("probe", names[number])
            await asyncio.sleep(max(next_at - boot_now(), 0.0))

    probing = asyncio.gather(*(probe(number) for number in range(len(names))))
    await at.until(lambda: all(at.says(name) == "CONNECTED" for name in names), 75)
    probing.cancel()
