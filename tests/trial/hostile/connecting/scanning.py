"""A scan while the disk of its session is full, or while its client is killed: WhatsApp has linked
the device only if the session has it."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.engines.baileys.node import find_node
from tests.engines.baileys import conftest
from tests.engines.baileys.conftest import Bench
from tests.standin.baileys.run import WhatsApp
from tests.trial.hostile.connecting.acts import Step

FAULT = Path(conftest.__file__).parent / "full_disk.mjs"
ENDS = ("storage_failed", "restart_required", "client_crashed")


async def scan(whatsapp: WhatsApp, folder: Path, step: Step) -> None:
    """`folder`: of this scan alone; its name is the account's number."""
    control, node = folder / "full", folder / "node"
    session = Bench(whatsapp, folder / "shop" / "session", folder.name)
    session.folder.mkdir(parents=True)
    node.write_text(f'#!/bin/sh\nFULL_DISK={control} exec {find_node()} --import {FAULT} "$@"\n')
    node.chmod(0o755)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WA_NODE", str(node))
            await session.start()
        await session.is_now("QR_REQUIRED")
        code = await session.engine.qr()
        assert code is not None
        control.write_text(f"{step['room']} {step['how']}".strip())
        await asyncio.to_thread(whatsapp.scan, code.text, session.account)
        await session.until(lambda: session.heard.last.reason in ENDS)
        await session.stop()
        control.unlink()
        if linked := await asyncio.to_thread(whatsapp.device, session.account):
            assert _paired_as(session.folder), f"WhatsApp linked {linked}, and no file has it"
            await session.start()
            await session.is_now("CONNECTED")
    finally:
        await session.stop()


def _paired_as(folder: Path) -> bool:
    file = folder / "creds.json"
    return file.exists() and "me" in json.loads(file.read_text())
