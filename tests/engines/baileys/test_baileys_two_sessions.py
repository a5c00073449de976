"""Two sessions of one machine write to each other: each is a contact of the other, and a linked
device that WhatsApp encrypts for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engines.baileys.conftest import ACCOUNT, OTHER, PEER, Bench
from tests.engines.baileys.keepers import Spool, spool_of

pytestmark = pytest.mark.slow
GROUP = "120363000000000008@g.us"


@pytest.fixture
async def pair(bench: Bench, tmp_path: Path) -> AsyncIterator[tuple[Bench, Bench]]:
    """Connected, and each keeps what arrives."""
    folder = tmp_path / "other" / "session"
    folder.mkdir(parents=True)
    other = Bench(bench.whatsapp, folder, OTHER)
    bench.hearing = other.hearing = Spool
    await bench.come_paired()
    await other.pair()
    yield bench, other
    await other.stop()


async def say(bench: Bench, to: str, words: str, count: int) -> list[str]:
    texts = [f"{words} {number}" for number in range(count)]
    for text in texts:
        sent = await bench.engine.send({"to": to, "type": "text", "text": text, "key": text})
        assert sent["outcome"] == "sent"
    return texts


async def has(bench: Bench, texts: list[str]) -> None:
    await bench.until(lambda: len(spool_of(bench).texts()) >= len(texts))
    assert sorted(spool_of(bench).texts()) == sorted(texts)


async def test_two_sessions_write_to_each_other_at_once(pair: tuple[Bench, Bench]) -> None:
    one, other = pair
    first, second = await asyncio.gather(
        say(one, OTHER, "from one", 15), say(other, ACCOUNT, "from the other", 15)
    )
    await has(other, first)
    await has(one, second)
    assert spool_of(other).texts() == first and spool_of(one).texts() == second, "in their order"
    for bench in pair:
        assert not bench.heard.count("crypto_error"), (
            "no crossing message had to be asked for again"
        )
    (chat,) = {record["chat"] for record in spool_of(other).of("message") if not record["from_me"]}
    assert chat == f"{ACCOUNT}@s.whatsapp.net"
    # The other's device confirmed each, not only its phone.
    await one.until(lambda: other.whatsapp.device(OTHER)["unconfirmed"] == 0)
    kept = spool_of(other).kept
    await other.stop()
    other.hearing = lambda: Spool(kept)
    later = await say(one, OTHER, "while it is away", 5)
    await other.start()
    await has(other, first + later)
    # The phones of both, which are contacts too, show each once.
    for bench, texts in ((OTHER, first + later), (ACCOUNT, second)):
        shown = [each["text"] for each in one.whatsapp.person(bench)["heard"]]
        assert [text for text in shown if text in texts] == texts


async def test_two_sessions_write_in_a_group_of_both(pair: tuple[Bench, Bench]) -> None:
    one, other = pair
    await asyncio.to_thread(one.whatsapp.make_group, GROUP, [ACCOUNT, OTHER, PEER])
    first, second = await asyncio.gather(
        say(one, GROUP, "one to all", 5), say(other, GROUP, "the other to all", 5)
    )
    await has(other, first)
    await has(one, second)
    *_, record = (each for each in spool_of(other).of("message") if not each["from_me"])
    assert (record["chat"], record["sender"]) == (GROUP, f"{ACCOUNT}@s.whatsapp.net")

    def shown() -> list[str]:
        return sorted(each["text"] for each in one.whatsapp.person(PEER)["heard"])

    await one.until(lambda: shown() == sorted(first + second))


async def test_texts_that_cross_those_of_a_phone_are_read_by_both(bench: Bench) -> None:
    """A phone that never asks again: what it cannot read is lost."""
    bench.hearing = Spool
    await bench.come_paired()
    await bench.talk("hello")  # each has the other's keys

    async def writes() -> list[str]:
        texts = [f"from the phone {number}" for number in range(40)]
        for text in texts:
            await asyncio.to_thread(bench.whatsapp.say, PEER, ACCOUNT, text)
        return texts

    first, second = await asyncio.gather(say(bench, PEER, "to the phone", 40), writes())
    await has(bench, ["hello!", *second])
    person = bench.whatsapp.person(PEER)
    assert [each["text"] for each in person["heard"]] == ["hello?", *first]
    assert person["unread"] == 0
    assert not bench.heard.count("crypto_error")
