"""Files that contacts send, loaded by the engine on the real library."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest

from agent.errors import EngineError
from tests.engines.baileys.conftest import ACCOUNT, PEER, Bench
from tests.engines.baileys.keepers import Spool, spool_of

pytestmark = pytest.mark.slow


@dataclass
class Files:
    """Files that contacts send to a session that keeps them."""

    bench: Bench

    async def say(self, kind: str, **more: Any) -> dict[str, Any]:
        say, spool = self.bench.whatsapp.say_file, spool_of(self.bench)
        said: dict[str, Any] = await asyncio.to_thread(say, PEER, ACCOUNT, kind, **more)
        found = await self.bench.until(
            lambda: [each for each in spool.of("message") if each["message_id"] == said["id"]]
        )
        return said | {"record": found[0]}

    async def load(self, record: dict[str, Any]) -> str:
        """The file's sha256."""
        digest = sha256()
        async for piece in self.bench.engine.load_media(record):
            assert len(piece) <= 512 << 10
            digest.update(piece)
        return digest.hexdigest()

    async def refusal(self, record: dict[str, Any]) -> str:
        with pytest.raises(EngineError) as error:
            await self.load(record)
        return str(error.value.code)


async def test_files_of_each_kind_are_loaded_and_the_phone_gives_again_what_is_gone(
    bench: Bench,
) -> None:
    files, bench.hearing = Files(bench), Spool
    await bench.come_paired(media_url=bench.whatsapp.files()["url"])
    for kind in ("image", "video", "audio", "document", "sticker"):
        said = await files.say(kind, bytes=300_000)
        assert said["record"]["media"]["sha256"] == said["sha256"]
        assert await files.load(said["record"]) == said["sha256"]

    gone = await files.say("image", how="gone")
    again = bench.whatsapp.files()["again"]
    assert await files.load(gone["record"]) == gone["sha256"]
    assert bench.whatsapp.files()["again"] == again + 1
    assert await files.refusal((await files.say("image", how="lost"))["record"]) == "media_gone"

    # The address that the contact names is never asked.
    asked = bench.whatsapp.files()["asked"]
    url = "http://127.0.0.1:1/latest"
    for fields in ({"directPath": url}, {"directPath": "//127.0.0.1:1/x"}):
        led = await files.say("image", fields=fields)
        assert await files.refusal(led["record"]) == "media_refused"
    assert bench.whatsapp.files()["asked"] == asked

    # A load that its reader gives up leaves room for others, and the connection's end ends it.
    held = [await files.say("video", how="held", bytes=2 << 20) for _ in range(6)]
    for each in held:
        pieces = bench.engine.load_media(each["record"])
        assert await anext(pieces)
        await pieces.aclose()
    pieces = bench.engine.load_media(held[0]["record"])
    assert await anext(pieces)
    await bench.engine.disconnect()
    with pytest.raises(EngineError):
        async for _ in pieces:
            pass
    assert await files.refusal(held[1]["record"]) == "not_connected"
