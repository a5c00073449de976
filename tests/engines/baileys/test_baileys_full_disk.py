"""A disk that fills up at each operation of the store in turn, and has room again afterwards."""

import asyncio
from pathlib import Path

import pytest

from agent.engines.baileys.node import find_node, find_packages
from tests.engines.baileys.conftest import ACCOUNT, Bench, run_node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

HERE = Path(__file__).parent
FAULT = HERE / "full_disk.mjs"


def test_acknowledged_writes_are_kept_whichever_operation_of_the_store_fails(
    cache: Path, tmp_path: Path
) -> None:
    control = tmp_path / "full"
    line = ("--import", FAULT, HERE / "store_writes.mjs", find_packages(cache), tmp_path, control)
    alone, full = map(int, run_node(*line, FULL_DISK=str(control)).split())
    assert min(alone, full) > 40, "operations of two rounds of writes"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says after how many operations the client's disk is full."""
    control, node = tmp_path / "full", tmp_path / "node"
    node.write_text(f'#!/bin/sh\nFULL_DISK={control} exec {find_node()} --import {FAULT} "$@"\n')
    node.chmod(0o755)
    monkeypatch.setenv("WA_NODE", str(node))
    return control


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
        await bench.until(lambda: bench.heard.last.reason in ("client_crashed", "restart_required"))
        killed += bench.heard.last.reason == "client_crashed"
        await bench.stop()
        disk.unlink()
        is_paired = (bench.folder / "creds.json").exists() and "me" in bench.creds()
        if is_paired and not bench.whatsapp.device(ACCOUNT):  # then the agent retires them
            for file in bench.folder.glob("*.json"):
                file.unlink()
    assert killed > 2
    await bench.come_up()
    await bench.talk("hello")
