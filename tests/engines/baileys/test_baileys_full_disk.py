"""A disk that fills up at each operation of the store in turn, and has room again afterwards."""

import asyncio
import json
import subprocess
from pathlib import Path

import pytest

from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import find_packages
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

HERE = Path(__file__).parent
FAULT = HERE / "full_disk.mjs"


def test_acknowledged_writes_are_kept_whichever_operation_of_the_store_fails(
    cache: Path, tmp_path: Path
) -> None:
    control = tmp_path / "full"
    line = [find_node(), "--import", FAULT, HERE / "store_writes.mjs"]
    line += [find_packages(cache), tmp_path, control]
    env = {"FULL_DISK": str(control)}
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    alone, full = map(int, done.stdout.split())
    assert min(alone, full) > 40, "operations of two rounds of writes"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says after how many operations the client's disk is full."""
    control, node = tmp_path / "full", tmp_path / "node"
    node.write_text(f'#!/bin/sh\nFULL_DISK={control} exec {find_node()} --import {FAULT} "$@"\n')
    node.chmod(0o755)
    monkeypatch.setenv("WA_NODE", str(node))
    return control


@pytest.mark.parametrize("each_time_new", [False, True], ids=["one peer", "new peers"])
async def test_a_disk_that_fills_up_at_any_write_costs_neither_the_pairing_nor_a_later_message(
    bench: Bench, disk: Path, each_time_new: bool
) -> None:
    await bench.come_paired()
    await bench.talk("hello")
    pairing = json.loads((bench.folder / "creds.json").read_text())["me"]
    paired, at, full = len(bench.heard.claims), 0, True
    while full:
        peer = f"55119{at:08d}" if each_time_new else PEER
        full = await message_into_a_full_disk(bench, disk, peer, at)
        at += 1
    assert at > 6, "a message changes files, each in several operations"
    assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims[paired:])
    await bench.restart()
    assert json.loads((bench.folder / "creds.json").read_text())["me"] == pairing
    await bench.talk("after all of it")


async def message_into_a_full_disk(bench: Bench, disk: Path, peer: str, room: int) -> bool:
    """A message while `room` operations succeed, then another with room for all; True where the
    first one needed more."""
    begun, duplicates = len(bench.heard.claims), bench.heard.count("crypto_error")
    disk.write_text(str(room))
    first = await asyncio.to_thread(bench.whatsapp.say, peer, ACCOUNT, "into the full disk")

    def failures() -> list[str]:
        return [c.raw for c in bench.heard.claims[begun:] if c.reason == "storage_failed"]

    def is_read() -> bool:
        return bench.heard.count("message", id=first) > 0

    await bench.until(lambda: failures() or is_read())
    await until_the_disk_is_still(disk)
    disk.unlink()
    if not failures():
        return False
    await bench.engine.connect()
    await bench.is_now("CONNECTED")
    if "the session's folder" in failures()[0]:
        # Its keys had been renamed into place: the message that comes again may be a duplicate.
        again = lambda: is_read() or bench.heard.count("crypto_error") > duplicates  # noqa: E731
        await bench.until(again)
    else:
        await bench.until(is_read)
    later = await asyncio.to_thread(bench.whatsapp.say, peer, ACCOUNT, "with room again")
    await bench.until(lambda: bench.heard.count("message", id=later) > 0)
    return True


async def until_the_disk_is_still(disk: Path) -> None:
    count, seen = disk.with_name(f"{disk.name}.count"), -1
    while seen != (seen := count.stat().st_size if count.exists() else 0):  # noqa: ASYNC110
        await asyncio.sleep(0.2)


async def test_a_disk_that_is_full_at_the_scan_links_no_device_that_is_not_stored(
    bench: Bench, disk: Path
) -> None:
    """WhatsApp links a device when it hears of the scan again: by then the scan is on the disk."""
    refused, room = 0, -1
    await bench.start()
    while not bench.whatsapp.device(ACCOUNT):
        room += 1
        await bench.is_now("QR_REQUIRED")
        code = await bench.engine.qr()
        assert code is not None
        disk.write_text(str(room))
        await asyncio.to_thread(bench.whatsapp.scan, code.text, ACCOUNT)
        ended = lambda: bench.heard.last.reason in ("storage_failed", "restart_required")  # noqa: E731
        await bench.until(ended)
        await until_the_disk_is_still(disk)
        disk.unlink()
        if bench.heard.last.reason == "storage_failed":
            refused += 1
            assert "WhatsApp linked no device: scan again" in bench.heard.last.raw
            assert not bench.whatsapp.device(ACCOUNT)
            await bench.stop()
            if creds_tell_of_a_pairing(bench.folder):  # its file was in place, unflushed
                retire(bench.folder)  # as the agent does when WhatsApp knows no such device
            await bench.start()
    assert refused > 2
    assert json.loads((bench.folder / "creds.json").read_text())["me"]
    await bench.engine.connect()
    await bench.is_now("CONNECTED")


async def test_a_client_that_is_killed_at_the_scan_links_no_device_that_is_not_stored(
    bench: Bench, disk: Path
) -> None:
    """At each operation of the store in turn: WhatsApp knows the device, or the disk need not."""
    killed, room = 0, -1
    while not bench.whatsapp.device(ACCOUNT):
        room += 1
        await bench.start()
        await bench.is_now("QR_REQUIRED")
        code = await bench.engine.qr()
        assert code is not None
        disk.write_text(f"{room} kill")
        await asyncio.to_thread(bench.whatsapp.scan, code.text, ACCOUNT)
        ended = lambda: bench.heard.last.reason in ("client_crashed", "restart_required")  # noqa: E731
        await bench.until(ended)
        killed += bench.heard.last.reason == "client_crashed"
        await bench.stop()
        disk.unlink()
        if not bench.whatsapp.device(ACCOUNT) and creds_tell_of_a_pairing(bench.folder):
            retire(bench.folder)  # as the agent does when WhatsApp knows no such device
    assert killed > 2
    await bench.start()
    await bench.is_now("CONNECTED")
    await bench.talk("hello")


def creds_tell_of_a_pairing(folder: Path) -> bool:
    file = folder / "creds.json"
    return file.exists() and "me" in json.loads(file.read_text())


def retire(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.unlink()
