"""The witness of the fleet's tests: it must see what it is there for."""

import math
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import boot_now
from agent.core.words import ConnectionStatus
from agent.engines.sandbox.engine import SandboxEngine, open_engine
from tests.conftest import Eventually
from tests.engines.baileys.conftest import Bench, bench, cache, whatsapp
from tests.engines.sandbox.test_engine import QUICK, Heard
from tests.standin.baileys.run import _could_send
from tests.standin.witness import Witness, witness

__all__ = ["bench", "cache", "whatsapp"]


@pytest.fixture
def seen() -> Iterator[Witness]:
    with witness() as made:
        yield made


def session(machine: Path, seen: Witness) -> tuple[SandboxEngine, Heard]:
    files, heard = machine / "shop" / "session", Heard()
    files.mkdir(parents=True, exist_ok=True)
    return open_engine(files, {**QUICK, "witness": seen.address}, heard), heard


async def connect(engine: SandboxEngine, heard: Heard, eventually: Eventually) -> None:
    await engine.connect()
    await eventually(lambda: heard.claims and heard.claims[-1].status is ConnectionStatus.CONNECTED)


async def test_a_session_that_two_machines_run_at_once_is_seen(
    tmp_path: Path, seen: Witness, eventually: Eventually
) -> None:
    here, heard_here = session(tmp_path / "a", seen)
    await connect(here, heard_here, eventually)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    there, heard_there = session(tmp_path / "b", seen)
    assert seen.overlaps() == []
    await connect(there, heard_there, eventually)
    (sentence,) = await eventually(seen.overlaps)
    assert sentence.startswith("shop: worker")
    assert len(seen.devices()["shop"]) == 1
    for engine in (here, there):
        await engine.close()
    await eventually(lambda: seen.connected() == {})


async def test_logins_of_machines_after_one_another_are_no_overlap_and_a_new_pairing_is_seen(
    tmp_path: Path, seen: Witness, eventually: Eventually
) -> None:
    for name in ("a", "b"):
        engine, heard = session(tmp_path / name, seen)
        await connect(engine, heard, eventually)
        await engine.disconnect()
        await engine.close()
    await eventually(lambda: len(seen.connections("shop")) == 2 and seen.connected() == {})
    assert seen.overlaps() == []
    assert len(seen.devices()["shop"]) == 2, "its folder did not come along"


async def test_only_a_worker_that_stood_still_at_that_moment_may_close_its_connection_late(
    seen: Witness, eventually: Eventually
) -> None:
    host, _, port = seen.address.rpartition(":")
    begun, wall = boot_now(), time.time()
    told = {5: [(1.0, "frame"), (3.0, "end")], 6: [(2.5, "frame")]}
    for pid, lines in told.items():
        with socket.create_connection((host, int(port))) as worker:
            text = f"login shop device {pid} {begun + lines[0][0] - 0.5}\n"
            text += "".join(f"{word} {begun + at}\n" for at, word in lines)
            worker.sendall(text.encode())
    await eventually(lambda: [it.open for it in seen.connections("shop")] == [False, False])
    assert len(seen.overlaps()) == 1
    assert seen.overlaps([(5, wall + 1.5, wall + 2.9)]) == []
    assert seen.overlaps([(5, wall + 1.5, math.inf)]) == []
    for other in ((6, wall + 1.5, wall + 2.9), (5, wall - 9, wall - 8), (5, wall + 2.5, math.inf)):
        assert len(seen.overlaps([other])) == 1, other


def test_only_a_connection_that_was_there_when_its_client_was_held_up_may_end_late() -> None:
    """A client at `a` logs in at 10, sends last at 13, closes at 16; another one logs in at 14."""
    old = {"address": "a", "begun": 10_000, "last": 13_000, "ended": 16_000}
    sends = old | {"last": 15_000}
    held = [("a", 12.0, 15.5)]
    for spans in ([], [("b", 12.0, 15.5)], [("a", 5.0, 9.0)], [("a", 14.5, 15.5)]):
        assert _could_send(old, 14_000, spans, spans), spans
    assert not _could_send(old, 14_000, held, [])
    assert not _could_send(old, 14_000, [], held)
    assert _could_send(sends, 14_000, held, []), "who stood still has sent nothing"
    assert not _could_send(sends, 14_000, [], held), "its kernel had it from before"


async def test_the_stand_in_for_whatsapp_knows_which_logins_overlapped(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.pair()
    await bench.stop()
    other = Bench(bench.whatsapp, shutil.copytree(bench.folder, tmp_path / "elsewhere"))
    await bench.restart()
    assert bench.whatsapp.overlaps() == []
    try:
        await other.start()
        await other.is_now("CONNECTED")
        (sentence,) = bench.whatsapp.overlaps()
        assert sentence.startswith(f"{bench.account} logged in while")
    finally:
        await other.stop()
