"""The files of a session's messages in its worker: loaded, checked, bounded, given in parts."""

import asyncio
import base64
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import InstanceId
from agent.errors import EngineError
from agent.wings.messages.media import loading, session_media
from agent.wings.messages.worker import Messages, open_worker_part
from tests.wings.messages.spools import message

MIB = 1 << 20


class Engine:
    """Has the files of messages by `_media.file`; `before` runs before the first piece."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.loads = 0
        self.errors: list[EngineError] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        self.loads += 1
        if self.errors:
            raise self.errors.pop(0)
        content = self.files[record["_media"]["file"]]
        for at in range(0, len(content), 65536):
            yield content[at : at + 65536]
            await self.goes_on.wait()


class Session:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder / "messages" / "media"
        self.part: Messages = open_worker_part(folder, InstanceId("a"), settings, lambda _: None)
        self.engine = Engine()
        self.part.serve(self.engine)  # type: ignore[arg-type]

    async def arrive(self, number: int, content: bytes = b"", **media: Any) -> str:
        """A message with a file; the id of its record."""
        file = {"size": len(content), "sha256": sha256(content).hexdigest(), **media}
        more = {"media": file, "_media": {"file": str(number)}} if content else {}
        record = {**message(number), **more}
        self.engine.files[str(number)] = content
        await self.part.keep([record])
        return str(record["id"])

    async def open(self, id: str, wait: float = 20.0, chat: str = "") -> dict[str, Any]:
        asked = {"id": id, "wait": wait, "chat": chat}
        return dict(await self.part.works["messages_media"](asked))

    async def read(self, id: str) -> bytes:
        opened, content = await self.open(id), b""
        while len(content) < opened["size"]:
            asked = {"name": opened["name"], "offset": len(content)}
            data = (await self.part.works["messages_media_part"](asked))["data"]
            assert 0 < len(data) <= 256 * 1024
            content += base64.b64decode(data)
        return content

    def kept(self) -> list[int]:
        """The sizes of the files on the disk, also of those that are being loaded."""
        sizes = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # it has just got its name
                sizes.append(path.stat().st_size)
        return sorted(sizes)


@pytest.fixture
async def make(tmp_path: Path):
    sessions: list[Session] = []

    def begin(**settings: Any) -> Session:
        sessions.append(Session(tmp_path, **settings))
        return sessions[-1]

    yield begin
    for session in sessions:
        await session.part.close()


async def refused(doing: Any) -> str:
    with pytest.raises(EngineError) as error:
        await doing
    return str(error.value.code)


async def test_a_file_is_loaded_once_and_given_in_parts(make):
    session, content = make(), os.urandom(MIB + 7)
    id = await session.arrive(1, content, mimetype="image/jpeg", filename="../a.jpg")
    assert session.engine.loads == 0
    assert await session.read(id) == await session.read(id) == content
    assert session.engine.loads == 1
    opened = await session.open(id)
    assert (opened["mimetype"], opened["filename"], opened["size"]) == (
        *("image/jpeg", "../a.jpg", len(content)),
    )
    (path,) = session.folder.iterdir()
    assert path.name == opened["name"]  # nothing that the contact wrote
    assert path.stat().st_mode & 0o777 == 0o600
    # The next worker has it, too.
    assert await make().read(id) == content


async def test_a_message_is_found_by_whatsapps_id_and_its_chat(make):
    session, content = make(), b"a file"
    id = await session.arrive(1, content)
    await session.arrive(2, b"another")
    record = await session.part.find(id)
    named = record["message_id"], record["chat"]
    assert (await session.open(named[0], chat=named[1]))["size"] == len(content)
    number = named[1].partition("@")[0]
    assert (await session.open(named[0], chat=f"+{number}"))["size"] == len(content)
    assert await refused(session.open(named[0], chat="1@g.us")) == "message_not_found"


async def test_what_has_no_file_says_so(make):
    session = make()
    assert await refused(session.open("m:nobody")) == "message_not_found"
    assert await refused(session.open(await session.arrive(1))) == "no_media"
    no_hash = await session.arrive(2, b"x", sha256="../../etc/passwd")
    assert await refused(session.open(no_hash)) == "no_media"
    assert session.engine.loads == 0
    session.part.serve(object())  # type: ignore[arg-type]
    assert await refused(session.open(await session.arrive(3, b"x"))) == "not_supported"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"changed", b"as sent", id="other bytes"),
        pytest.param(b"half", b"half of it", id="cut short"),
        pytest.param(b"much more than that", b"little", id="larger than said"),
    ],
)
async def test_a_file_that_is_not_the_one_of_its_message_is_never_given(make, sent, said):
    session = make()
    id = await session.arrive(1, said)
    session.engine.files["1"] = sent
    assert await refused(session.open(id)) == "media_damaged"
    assert session.kept() == []
    # Nobody makes WhatsApp give it again and again.
    assert await refused(session.open(id)) == "media_damaged"
    assert session.engine.loads == 1


async def test_a_file_that_changed_on_the_disk_is_loaded_again(make):
    session, content = make(), os.urandom(1000)
    id = await session.arrive(1, content)
    await session.read(id)
    (path,) = session.folder.iterdir()
    path.write_bytes(content[:-1] + b"!")
    assert await session.read(id) == content
    assert session.engine.loads == 2
    path.unlink()
    assert await session.read(id) == content


async def test_the_oldest_go_when_new_ones_need_their_room(make, monkeypatch):
    monkeypatch.setattr("agent.wings.messages.media.shelf.BUSY_SECONDS", 0.0)
    session = make(media_megabytes=1)
    ids = [await session.arrive(n, os.urandom(300_000)) for n in range(5)]
    for id in ids:
        await session.read(id)
    assert session.kept() == [300_000] * 3
    await session.read(ids[4])
    assert session.engine.loads == 5
    await session.read(ids[0])
    assert session.engine.loads == 6
    assert session.kept() == [300_000] * 3


async def test_a_link_in_the_place_of_the_folder_is_not_followed(make, tmp_path):
    session, content = make(), os.urandom(1000)
    id = await session.arrive(1, content)
    (tmp_path / "elsewhere").mkdir()
    session.folder.symlink_to(tmp_path / "elsewhere")
    assert await refused(session.open(id)) == "media_not_kept"
    state = await session.part.works["messages_state"]({})
    assert (state["media_files"], state["media_bytes"]) == (0, 0)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    session.folder.unlink()
    assert await session.read(id) == content


async def test_what_is_too_large_is_not_loaded(make):
    session = make(media_most_megabytes=1)
    large = await session.arrive(1, os.urandom(MIB + 1))
    assert await refused(session.open(large)) == "media_too_large"
    assert session.engine.loads == 0
    # Whoever wrote the message may say nothing of its size.
    unsaid = await session.arrive(2, os.urandom(MIB + 1), size=0)
    assert await refused(session.open(unsaid)) == "media_too_large"
    assert session.kept() == []
    assert len(await session.read(await session.arrive(3, os.urandom(MIB)))) == MIB
    small = make(media_megabytes=1)
    assert await refused(small.open(await small.arrive(4, os.urandom(MIB + 1)))) == (
        "media_too_large"
    )


async def test_files_are_loaded_at_once_where_the_settings_say_so(make, eventually, monkeypatch):
    monkeypatch.setattr(session_media, "TRY_AFTER", (0.0, 0.0, 0.0))
    session = make(media="at once")
    away = EngineError("cannot load the file: not connected", code="not_connected")
    session.engine.errors = [away, EngineError("gone", code="media_gone")]
    lost = await session.arrive(0, b"is gone")
    await eventually(lambda: session.engine.loads, 2)
    ids = [await session.arrive(n, os.urandom(1000 + n)) for n in range(1, 4)]
    await eventually(lambda: session.folder.is_dir() and session.kept(), [1001, 1002, 1003])
    loads = session.engine.loads
    for id in ids:
        await session.read(id)
    assert session.engine.loads == loads
    assert await refused(session.open(lost)) == "media_gone"


async def test_a_full_disk_says_so_and_leaves_nothing(make, monkeypatch):
    session = make()
    id = await session.arrive(1, os.urandom(200_000))

    def full(_file: int, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "_write_all", full)
    assert await refused(session.open(id)) == "media_not_kept"
    assert session.kept() == []
    monkeypatch.undo()
    assert len(await session.read(id)) == 200_000
