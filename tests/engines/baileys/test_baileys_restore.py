"""What a store must hold to read on: a copy of some age, or a part of one, is put back."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

GROUP = "120363000000000001@g.us"
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
    await bench.start()
    await bench.is_now("CONNECTED")


async def read(bench: Bench, id: str, within: float = 60.0) -> None:
    await bench.until(lambda: bench.heard.count("message", direction="in", id=id), within)


@pytest.mark.parametrize(
    ("older", "without", "patterns", "retries"),
    [
        pytest.param(0, "", (), 0, id="an exact copy"),
        pytest.param(2, "", (), 1, id="2 messages old"),
        pytest.param(60, "", (), 1, id="60 messages old"),
        pytest.param(0, "session-*", (), 1, id="without sessions"),
        pytest.param(60, "", PAIRING, 1, id="credentials and pre-keys only, 60 messages old"),
    ],
)
async def test_a_restored_session_reads_every_message_in_the_end(  # noqa: PLR0917 - a table row
    bench: Bench, tmp_path: Path, older: int, without: str, patterns: tuple[str, ...], retries: int
) -> None:
    """Each peer costs one retry at most; nothing that was sent is lost."""
    await bench.come_paired()
    await bench.talk("hello")
    kept = tmp_path / "kept"
    await bench.stop()
    copy(bench.folder, kept)
    await bench.start()
    await bench.is_now("CONNECTED")
    for number in range(older):
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, f"since {number}")
    if older:
        await read(bench, id)
    if without:
        for path in kept.glob(without):
            path.unlink()
    before = bench.whatsapp.person(PEER)["retries"]
    await put_back(bench, kept, *patterns)
    for number in range(10):
        id = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, f"after {number}")
        await read(bench, id)
    for number in range(4):
        await bench.send(f"answer {number}")
    assert bench.whatsapp.person(PEER)["retries"] - before <= retries
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


async def test_a_contact_that_takes_the_keys_of_a_retry_is_read_without_any_old_pre_key(
    bench: Bench,
) -> None:
    await bench.lay_paired()
    for path in bench.folder.glob("pre-key-*.json"):
        path.unlink()
    await bench.start()
    await bench.is_now("CONNECTED")
    bench.whatsapp.takes_enclosed_keys(PEER)
    await bench.hear("read at the third try")
    assert bench.whatsapp.person(PEER)["retries"] == 2


@pytest.mark.parametrize(
    ("patterns", "from_away"),
    [((), 10), (PAIRING, 0)],
    ids=["all of it", "without sessions"],
)
async def test_groups_and_a_hundred_peers_some_of_them_away_read_on_after_an_old_copy(
    bench: Bench, tmp_path: Path, patterns: tuple[str, ...], from_away: int
) -> None:
    """Each peer costs a retry at most; one that is away at its retry is read again with the first
    message that it writes when it is back."""
    peers = [f"55118{number:08d}" for number in range(100)]
    away, here = peers[:10], peers[10:]
    say, in_group = bench.whatsapp.say, bench.whatsapp.say_in_group
    await bench.come_paired()
    groups = [f"12036300000000000{number}@g.us" for number in range(3)]
    for group in groups:
        await asyncio.to_thread(bench.whatsapp.make_group, group, [ACCOUNT, PEER, OTHER, *away])
        await read(bench, await asyncio.to_thread(in_group, PEER, ACCOUNT, group, "first"))
    for text in ("first", "since"):
        ids = [await asyncio.to_thread(say, peer, ACCOUNT, text) for peer in peers]
        for id in ids:
            await read(bench, id, 60)
        if text == "first":
            kept = tmp_path / "kept"
            await bench.stop()
            copy(bench.folder, kept)
            await bench.start()
            await bench.is_now("CONNECTED")
    for group in groups:
        await read(bench, await asyncio.to_thread(in_group, OTHER, ACCOUNT, group, "since"))
    for peer in away:
        bench.whatsapp.answers_retries(peer, False)
    before = retries(bench, [*here, PEER, OTHER])
    await put_back(bench, kept, *patterns)

    ids = [await asyncio.to_thread(say, peer, ACCOUNT, "after") for peer in here]
    for group in groups:
        ids += [
            await asyncio.to_thread(in_group, p, ACCOUNT, group, "after") for p in (PEER, OTHER)
        ]
    lost = [await asyncio.to_thread(say, peer, ACCOUNT, "while it is away") for peer in away]
    for id in ids:
        await read(bench, id, 90)
    for id in lost:
        await bench.until(
            lambda id=id: any(bench.heard.count(k, id=id) for k in ("message", "crypto_error"))
        )
    used = retries(bench, [*here, PEER, OTHER]) - before
    assert used <= len(here) + 2 * len(groups)
    assert sum(bench.heard.count("message", id=id) for id in lost) == from_away
    for peer in away:
        bench.whatsapp.answers_retries(peer, True)
    for id in [await asyncio.to_thread(say, peer, ACCOUNT, "it is back") for peer in away]:
        await read(bench, id, 60)


def retries(bench: Bench, people: list[str]) -> int:
    """How often these were asked to send a message again."""
    return sum(bench.whatsapp.person(user).get("retries", 0) for user in people)


async def test_a_peer_that_was_away_at_the_retry_is_read_with_its_next_message(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.come_paired()
    await bench.talk("hello")
    kept = tmp_path / "kept"
    await bench.stop()
    copy(bench.folder, kept, *PAIRING)
    bench.whatsapp.answers_retries(PEER, False)
    await put_back(bench, kept)
    lost = await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "while it is away")
    await bench.until(lambda: bench.heard.count("crypto_error") >= 1)
    assert not bench.heard.count("message", id=lost)
    bench.whatsapp.answers_retries(PEER, True)
    await read(bench, await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, "it is back"))
