"""One round without an agent, killed at any step and run again; and keys in a real Redis."""

import asyncio
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio

from agent.backends.whaticket import once as rounds
from agent.backends.whaticket.keys import RedisKeys, SessionKeys, Shelf
from agent.core.crypto import CryptoPolicy
from agent.errors import EngineError
from tests.backends.whaticket.conftest import LIDS, OTHER, PEER, Bench, Killed, OpenBench, die_at
from tests.standin.whaticket import words
from tests.standin.whaticket.keys import paired_keys

CHANGES = ("agent.files.write_whole", "agent.backends.http:Http.ask", "os.unlink")


async def run(at: Bench, wanted: str = "all") -> tuple[list[str], int]:
    os.utime(at.root / "logs/app.log", (time.time(), time.time()))
    return await rounds.run_round(at.declared, at.root / "round", wanted, CryptoPolicy())


async def ready(bench: OpenBench, tmp_path: Path) -> Bench:
    at = await bench(logs=(f"file:{tmp_path}/logs/app.log",))
    await at.paired()
    await at.paired("8")
    await at.end()
    assert await run(at) == (["nothing needs a repair"], 0)
    await asyncio.sleep(60)  # since both connected
    at.standin.requests.clear()
    return at


@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        ([words.bad_mac(f"{PEER}.0")] * 5, {PEER}),
        (["ERROR [20-11-2026 12:00:00]: Invalid PreKey ID"] * 5, {OTHER}),
        ([words.bad_mac(f"551199999000{n}.0") for n in range(1, 6)], {PEER, OTHER}),
        ([words.bad_mac(f"{PEER}.0")] * 3 + ["[ERROR] whatsapp: Bad MAC"] * 2, {PEER, OTHER}),
        ([words.info(f'"{words.bad_mac(f"{PEER}.0")}"'.replace("\n", " "))] * 9, set()),
        ([words.bad_mac(f"{PEER}.0")] * 4, set()),
    ],
)
async def test_five_errors_renew_the_keys_of_one_session(
    bench: OpenBench, tmp_path: Path, lines: list[str], gone: set[str]
) -> None:
    at = await ready(bench, tmp_path)
    theirs = at.standin.sessions["7"]
    await theirs.damage(OTHER)
    at.standin.log("\n".join(lines))
    at.standin.log(f"Socket  {theirs.name} Connection Update open undefined")  # it reconnects
    before = set(at.auth())
    sentences, status = await run(at)
    taken = {name[8:21] for name in before - set(at.auth()) if name[:9] == "session-5"}
    assert taken == gone and status == 0, sentences
    assert sentences == (["7: recovered"] if gone else ["nothing needs a repair"])
    assert bool(at.acts) is bool(gone) and theirs.status == "CONNECTED"
    assert await run(at) == (["nothing needs a repair"], 0)


async def test_what_a_round_cannot_do_is_an_exit_status(bench: OpenBench, tmp_path: Path) -> None:
    at = await ready(bench, tmp_path)
    assert (await run(at, "99"))[1] == 3
    at.standin.log("\n".join([words.pino(f"{PEER}@s.whatsapp.net", "Bad MAC", sessionId="7")] * 5))
    await at.standin.sessions["7"].end()
    at.standin.sessions["7"].status = "DISCONNECTED"
    assert "left as it is" in (await run(at))[0][0] and at.acts == []
    at.standin.faults.refuses_start = 500
    assert (await run(at, "7"))[1] == 1
    await at.standin.go_away()
    assert (await run(at))[1] == 5
    await at.standin.listen()
    at.standin.faults.refuses_start = 0
    assert await run(at) == (["7: recovered"], 0)  # what a round took down comes up


async def test_a_round_killed_at_any_step_is_ended_by_the_next(
    bench: OpenBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await ready(bench, tmp_path)
    theirs, killed = at.standin.sessions["7"], 0
    for step in range(60):
        await theirs.damage(PEER)
        theirs.log("\n".join([words.pino(f"{PEER}@s.whatsapp.net", "Bad MAC", sessionId="7")] * 5))
        before = at.auth()
        with monkeypatch.context() as patched:
            count = die_at(step, patched, *CHANGES)
            try:
                await run(at)
            except Killed:
                killed += 1
        while not (await run(at))[0][0].startswith("nothing"):
            pass
        assert theirs.status == "CONNECTED" and theirs.receive(PEER), step
        kept = {it.name for r in Shelf(at.root / "round/removed").all("7") for it in r.records}
        assert set(before) <= set(at.auth()) | kept
        if count[0] <= step:
            break
    assert killed > 10


# a real Redis, in real time


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    place = Path(f"/tmp/wa-redis-{os.getpid()}-{id(tmp_path)}.sock")
    words = f"redis-server --port 0 --unixsocket {place} --save '' --requirepass hush"
    process = subprocess.Popen([*shlex.split(words), "--dir", str(tmp_path)], stdout=-3)
    while not place.exists():
        assert process.poll() is None
    yield f"unix://:hush@{place}?db=3"
    process.kill()
    process.wait()
    place.unlink(missing_ok=True)


@pytest.mark.parametrize("virtual_clocks", [None])
def test_keys_in_redis(redis_url: str, tmp_path: Path, virtual_clocks: None) -> None:
    async def talk() -> None:
        client = redis.asyncio.from_url(redis_url.replace(":hush@", ""), password="hush")
        keys = SessionKeys(Shelf(tmp_path), (RedisKeys(redis_url),))
        for id in ("7", "77", "7x"):
            for name, text in paired_keys("551100000007", [PEER, OTHER], LIDS).items():
                await client.set(f"sessions:{id}:{name}", text)
        await client.hset(b"sessions:7:\xff\xfe", "a", "b")
        before = {key: await client.dump(key) for key in await client.keys("*")}
        assert keys.look("7") == "paired"
        plan = keys.plan("7", [PEER], damaged=True)
        assert len(plan) == 6
        removal = keys.take_out("7", plan, "a test")
        assert len(await client.keys("*")) == len(before) - 6
        keys.put_back("7", removal)
        keys.put_back("7", keys.take_out("7", keys.all("7"), "a test"))
        assert {key: await client.dump(key) for key in await client.keys("*")} == before
        stale = keys.shelf.keep("7", "x", keys.stores[0].read("7", ["creds"]), whole=False)
        await client.set("sessions:7:creds", "new")
        with pytest.raises(EngineError, match="CHANGED"):
            keys.stores[0].remove("7", stale.records)
        assert await client.get("sessions:7:creds") == b"new"
        with pytest.raises(EngineError, match="WRONGPASS"):
            RedisKeys(redis_url.replace("hush", "wrong")).names("7")
        await client.aclose()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(talk())
