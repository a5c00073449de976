"""A store reads on after a copy of some age, or a part of one, was put back."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

PAIRING = ("creds.json", "pre-key-*.json")


def copy(source: Path, target: Path, *patterns: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for pattern in patterns or ("*.json",):
        for path in source.glob(pattern):
            shutil.copy(path, target / path.name)


async def put_back(bench: Bench, kept: Path, *patterns: str) -> None:
    await bench.stop()
    shutil.rmtree(bench.folder)
    copy(kept, bench.folder, *patterns)
    await bench.come_up()


async def read(bench: Bench, id: str, within: float = 60.0) -> None:
    await bench.until(lambda: bench.heard.count("message", direction="in", id=id), within)


async def test_a_session_with_old_credentials_and_pre_keys_reads_every_message_in_the_end(
    bench: Bench, tmp_path: Path
) -> None:
    """Each peer costs one retry at most; nothing that was sent is lost. With all of its files, as
    they were, it is the session that `test_baileys_session` starts again."""
    await bench.come_paired()
    await bench.talk("hello")
    kept = tmp_path / "kept"
    await bench.stop()
    copy(bench.folder, kept)
    await bench.come_up()
    for number in range(60):
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, f"since {number}")
    await read(bench, id)
    before = bench.whatsapp.person(PEER)["retries"]
    await put_back(bench, kept, *PAIRING)
    for number in range(10):
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, f"after {number}")
        await read(bench, id)
    for number in range(4):
        await bench.send(f"answer {number}")
    assert bench.whatsapp.person(PEER)["retries"] - before <= 1
    assert not any(claim.status == "QR_REQUIRED" for claim in bench.heard.claims)


async def test_credentials_alone_stay_deaf(bench: Bench, tmp_path: Path) -> None:
    """Why an import wants the pre-keys: WhatsApp hands out those of the old store."""
    await bench.lay_paired()
    kept = tmp_path / "kept"
    copy(bench.folder, kept)
    known = bench.whatsapp.device(ACCOUNT)["pre_keys"]
    await put_back(bench, kept, "creds.json")
    # New ones with ids above the old came before the session was called connected: not enough.
    assert bench.whatsapp.device(ACCOUNT)["pre_keys"] > known
    id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "not to be read")
    await bench.until(lambda: bench.heard.count("crypto_error", pattern="prekey") >= 2, 30)
    assert not bench.heard.count("message", id=id)

    # New sessions cannot help: only new pre-keys do, once WhatsApp has handed out the lost ones.
    before = bench.whatsapp.device(ACCOUNT)
    error = next(each for each in bench.heard.happenings if each.kind == "crypto_error")
    await bench.engine.regenerate_keys([str(error.detail["peer"])])
    after = bench.whatsapp.device(ACCOUNT)
    assert after["pre_keys"] >= before["pre_keys"] + 20
    assert after["logins"] == before["logins"] and bench.heard.last.status == "CONNECTED"
    assert not (bench.folder / "removed-keys").exists()
