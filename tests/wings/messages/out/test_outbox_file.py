"""The outbox's file: wiped, damaged, of a newer version, of a kill in its making."""

import sqlite3
from pathlib import Path

import pytest

from agent.core.model import InstanceId
from agent.errors import Refused, SchemaTooNew
from agent.wings.messages.out.message import OutMessage, chat_of
from agent.wings.messages.out.rows import NewMessage
from agent.wings.messages.out.states import State
from agent.wings.messages.out.store import OutboxStore

ID = InstanceId("sales")
SECRET = "a most secret sentence " * 400


def row(id: str, *, key: str = "", digest: str = "", wall: float = 1.0) -> OutMessage:
    return OutMessage(
        number=0,
        id=id,
        instance=ID,
        born=5.0,
        chat="1",
        type="text",
        state=State.ACCEPTED,
        accepted_wall=wall,
        expires_wall=9e9,
        changed_wall=wall,
        repeats=key,
        digest=digest,
    )


async def put(store: OutboxStore, id: str, text: str = "x", **more: str) -> OutMessage:
    new = NewMessage(row(id, **more), f'{{"text": "{text}"}}')
    return (await store.take(new, lambda _taken: None))[0]


def bytes_of(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


async def test_what_an_ended_message_said_is_nowhere_in_the_file(path: Path) -> None:
    store = await OutboxStore.open(path)
    first = await put(store, "out_1", SECRET)
    await put(store, "out_2", "stays")
    assert b"secret sentence" in bytes_of(path)
    await store.end(first.number, State.SENT, message_id="WA1", changed_wall=2.0)
    await store.empty_log()
    assert b"secret sentence" not in bytes_of(path)
    assert await store.content(first.number) is None
    await store.close()
    store = await OutboxStore.open(path)
    assert [each.id for each in await store.waiting()] == ["out_2"]
    assert store.sentences == ()
    await store.close()


async def test_a_damaged_file_is_kept_and_said_and_a_new_one_takes_messages(path: Path) -> None:
    store = await OutboxStore.open(path)
    for number in range(50):
        await put(store, f"out_{number}", SECRET)
    await store.close()
    whole = bytearray(path.read_bytes())
    whole[8192:12288] = b"\xff" * 4096
    path.write_bytes(whole)
    store = await OutboxStore.open(path)
    (sentence,) = store.sentences
    (kept,) = path.parent.glob("outbox.db.damaged-*Z")
    assert kept.name in sentence
    assert "not sent" in sentence
    assert kept.read_bytes() == whole
    assert await store.waiting() == []
    await put(store, "out_new")
    await store.close()


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to look so" * 40])
async def test_a_file_that_a_kill_or_a_stranger_left_stops_no_message(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    store = await OutboxStore.open(path)
    await put(store, "out_1")
    assert len(store.sentences) == bool(content)
    await store.close()


async def test_a_file_of_a_newer_version_is_not_touched(path: Path) -> None:
    store = await OutboxStore.open(path)
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew):
        await OutboxStore.open(path)
    assert path.read_bytes() == before


async def test_a_key_is_of_one_message_until_that_surely_failed(path: Path) -> None:
    store = await OutboxStore.open(path)
    first = await put(store, "out_1", key="k", digest="d")
    assert (await put(store, "out_2", key="k", digest="d")).id == "out_1"
    with pytest.raises(Refused, match="another request"):
        await put(store, "out_3", key="k", digest="other")
    await store.end(first.number, State.FAILED, repeats="", changed_wall=2.0)
    assert (await put(store, "out_4", key="k", digest="other")).id == "out_4"
    await put(store, "out_5")
    await put(store, "out_6")
    await store.close()


async def test_old_ends_are_forgotten_and_what_waits_is_not(path: Path) -> None:
    store = await OutboxStore.open(path)
    rows = [await put(store, f"out_{number}") for number in range(6)]
    for number in (0, 1, 2, 3):
        await store.end(rows[number].number, State.SENT, changed_wall=10.0 + number)
    assert await store.forget_ended(11.0, 100) == 1
    assert await store.forget_ended(0.0, 2) == 1
    left = [each.id for each in await store.page(ID)]
    assert left == ["out_5", "out_4", "out_3", "out_2"]
    assert await store.forget_instance(ID, 5.0) == []
    assert len(await store.page(ID)) == 4
    await store.forget_instance(ID, 6.0)
    assert await store.page(ID) == []
    await store.close()


@pytest.mark.parametrize(
    ("to", "chat"),
    [
        ("+55 11 77777-7777", "5511777777777"),
        ("5511777777777@s.whatsapp.net", "5511777777777"),
        ("5511777777777@c.us", "5511777777777"),
        ("120363040000000000@g.us", "120363040000000000@g.us"),
        ("999@lid", "999@lid"),
        ("nobody", "nobody"),
    ],
)
def test_a_chat_has_one_name_however_its_number_is_written(to: str, chat: str) -> None:
    assert chat_of(to) == chat
