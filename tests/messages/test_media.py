"""Files that messages brought: loaded when a program asks, checked, kept for a day, read whole."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import Happening, InstanceId
from agent.errors import EngineError
from agent.messages.intake import LOOK_EVERY, Intake
from agent.messages.media import LIVES, STILL
from agent.messages.reader import Reader
from tests.messages.bench import ID, Workers, code_of
from tests.messages.records import CHAT, message

CONTENT = b"0123456789" * 30_000


class Loads:
    """An engine that gives what it has of each address."""

    def __init__(self) -> None:
        self.gives: dict[str, list[bytes | float | Exception]] = {}
        self.asked: list[str] = []

    async def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        url = record["_media"]["url"]
        self.asked.append(url)
        for piece in self.gives.get(url, [CONTENT[:100_000], CONTENT[100_000:]]):
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                await asyncio.sleep(piece)


class Bench:
    def __init__(self, root: Path, **settings: Any) -> None:
        self.folder = root / ID
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o770)
        self.media = self.folder / "messages" / "media"
        self.told: list[Happening] = []
        self.intake = Intake(self.folder, InstanceId(ID), settings, self.told.append)
        self.engine = Loads()
        self.intake.serve(self.engine)  # type: ignore[arg-type]
        self.workers = Workers(root, {ID: self.intake.works})
        self.reader = Reader(self.workers)

    async def bring(self, number: int = 1, **more: Any) -> str:
        media = {"mimetype": "image/jpeg", "size": len(CONTENT), "filename": "a.jpg"}
        media["sha256"] = hashlib.sha256(CONTENT).hexdigest()
        record = message(number, media=media | more, _media={"url": f"https://{number}"})
        await self.intake.keep([record])
        return str(record["id"])

    async def read(self, id: str, chat: str = "", wait: float = 30) -> bytes:
        async with self.reader.media(ID, id, chat, wait) as (_, file):
            return file.read()

    async def code_of(self, id: str) -> str:
        return await code_of(self.read(id))


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Bench]:
    at = Bench(tmp_path)
    yield at
    await at.intake.close()


async def test_a_file_is_loaded_once_checked_and_read_by_the_group(at: Bench) -> None:
    id = await at.bring()
    assert set(await asyncio.gather(at.read(id), at.read("000001", CHAT), at.read(id))) == {CONTENT}
    assert at.engine.asked == ["https://1"]
    (file,) = at.media.iterdir()
    assert file.stat().st_mode & 0o777 == 0o660
    async with at.reader.media(ID, id, "", 1) as (said, _):
        assert (said["mimetype"], said["size"]) == ("image/jpeg", len(CONTENT))
    for damaged in (CONTENT[:9], b"x" + CONTENT[1:]):
        file.write_bytes(damaged)
        assert await at.read(id) == CONTENT
    for put in (os.mkfifo, Path.mkdir):
        file.unlink()
        put(file)
        assert await at.read(id) == CONTENT


async def test_a_file_lives_a_day_and_its_reader_comes_to_its_end(at: Bench) -> None:
    async with at.reader.media(ID, await at.bring(), "", 30) as (_, file):
        first = file.read(9)
        path = next(at.media.iterdir())
        old = time.time() - LIVES
        os.utime(path, (old, old))
        await asyncio.sleep(LOOK_EVERY + 1)
        assert not path.exists() and first + file.read() == CONTENT


async def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    at = Bench(tmp_path, media_megabytes=1)
    for number in range(6):
        assert await at.read(await at.bring(number)) == CONTENT
        await asyncio.sleep(1)
        path = max(at.media.iterdir(), key=lambda it: it.stat().st_ctime)
        os.utime(path, (time.time(), time.time()))
    assert len(list(at.media.iterdir())) == 3
    await at.intake.close()


async def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    at = Bench(tmp_path, media_most_megabytes=1)
    gives = at.engine.gives
    gives["https://1"] = gives["https://7"] = [CONTENT[:-1] + b"x"]
    gives["https://2"] = [CONTENT, b"more"]
    gives["https://3"] = [EngineError("gone", code="media_gone")]
    gives["https://4"] = [CONTENT[:9], STILL + 1]
    codes = [await at.code_of(await at.bring(number)) for number in (1, 2, 3)]
    assert codes == ["media_damaged", "media_damaged", "media_gone"]
    assert await at.code_of(await at.bring(5, size=2 << 20)) == "media_too_large"
    assert await at.code_of(await at.bring(6, sha256="no")) == "no_media"
    assert await at.code_of(await at.bring(7, size=0)) == "media_damaged"
    assert await at.code_of("nothing") == "message_not_found"
    slow = await at.bring(4)
    assert await code_of(at.read(slow, wait=5)) == "media_loading"
    assert [await code_of(at.read(slow, wait=60)) for _ in range(2)][1] == "media_unreachable"
    assert list(at.media.iterdir()) == []
    await at.intake.close()


async def test_a_full_disk_keeps_no_half_of_a_file(at: Bench) -> None:
    id = await at.bring()
    at.engine.gives["https://1"] = [CONTENT[:9], OSError(28, "No space left on device")]
    assert await at.code_of(id) == "media_not_kept"
    at.media.rmdir()
    at.media.touch()
    assert await at.code_of(id) == "media_not_kept"


async def test_a_worker_cannot_lead_the_agent_to_another_file(at: Bench, tmp_path: Path) -> None:
    await at.read(await at.bring())
    (file,) = at.media.iterdir()
    size = (at.media.parent / "messages.db").stat().st_size
    answer = {"state": "ready", "name": "../messages.db", "size": size, "sha256": ""}

    async def says(_args: Mapping[str, Any]) -> Mapping[str, Any]:
        return answer

    at.workers.works[ID] = {"messages_media": says}
    assert await at.code_of(id) == "busy"
    answer |= {"name": file.name}
    assert await at.code_of(id) == "busy", "it has another size"
    file.unlink()
    file.symlink_to("/etc/hostname")
    answer |= {"size": Path("/etc/hostname").stat().st_size}
    assert await at.code_of(id) == "busy"
    file.unlink()
    os.mkfifo(file)
    assert await at.code_of(id) == "busy"
    at.media.symlink_to(at.media.rename(tmp_path / "media"))
    assert await at.code_of(id) == "store"
