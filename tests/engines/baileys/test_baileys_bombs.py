"""Compressed data of WhatsApp that inflates to hundreds of MiB is left out."""

import asyncio
import base64
import zlib
from functools import cache
from pathlib import Path

import pytest

from tests.engines.baileys.conftest import ACCOUNT, Bench, run_node
from tests.standin.baileys.run import HERE

pytestmark = pytest.mark.slow

BOMB = 128 << 20
COMPRESSED = b"\2"
"""The first byte of a frame that is."""


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(BOMB >> 20)]
    return b"".join([*parts, packer.flush()])


async def test_a_frame_that_inflates_to_128_mib_is_left_out_and_the_session_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.come_paired()
    client = bench.engine._life.client
    assert client is not None
    frame = base64.b64encode(COMPRESSED + _bomb()).decode()
    step = {"user": ACCOUNT, "stage": "now", "kind": "sealed", "bytes": frame}
    for count in range(1, 3):
        await asyncio.to_thread(bench.whatsapp.tell, "/ambush", step)
        await bench.until(lambda: bench.heard.count("error", code="stray") == count)  # noqa: B023
    await bench.talk("after the bombs")
    assert bench.engine._life.client is client, "Node ended"
    assert bench.heard.last.status == "CONNECTED"
    assert "WhatsApp sent a compressed frame of more than 8 MiB: it is left out" in caplog.text


def test_a_part_of_the_history_of_128_mib_is_left_out_and_a_list_of_200000_members_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "history"
    file.write_bytes(_bomb())
    run_node(Path(__file__).with_name("bombs.mjs"), HERE / "node_modules", file)
