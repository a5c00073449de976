"""Instances, records, history and keys: what is acknowledged is there, whole, and in order."""

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import SessionRecord
from agent.errors import Refused, StoreError
from agent.store.database import Store
from agent.store.rows import KeyRow, decode_record, encode_record
from tests.store.conftest import entry, instance


async def test_keys_come_and_go(store):
    key = KeyRow("ab12cd34", "f" * 64, ("read", "instance:sales"), "grafana", 5.0)
    await store.add_key(key)
    assert await store.keys() == [key]
    with pytest.raises(Refused):
        await store.add_key(key)
    assert await store.remove_key(key.id)
    assert not await store.remove_key(key.id)
    assert await store.keys() == []


async def test_writes_that_queue_together_share_a_commit(store, monkeypatch):
    passed, all_queued = [], threading.Event()
    monkeypatch.setattr("agent.files.failpoint", passed.append)
    first = asyncio.create_task(store._writer.read(lambda _db: all_queued.wait(60)))
    await asyncio.sleep(0)
    writes = [asyncio.create_task(store.append(entry(str(n)))) for n in range(300)]
    await asyncio.sleep(0)
    all_queued.set()
    stored = await asyncio.gather(*writes)
    assert await first
    assert [one.kind for (one,) in stored] == [str(n) for n in range(300)]
    assert [one.cursor for (one,) in stored] == list(range(1, 301)), "in the order they were asked"
    assert passed.count("after_commit") < 10


async def test_a_bad_write_spoils_no_other_of_its_commit(store):
    await store.add(instance(), SessionRecord(), entry("created"))
    results = await asyncio.gather(
        store.append(entry("before")),
        store.add(instance(), SessionRecord(), entry("twice")),
        store.append(entry("surrogate", sentence="a\ud800b")),
        store.append(entry("after")),
        return_exceptions=True,
    )
    assert isinstance(results[1], Refused)
    kept = [one.kind for one in await store.history(after=0)]
    assert kept == ["created", "before", "surrogate", "after"]


async def test_listeners_hear_committed_entries_in_order(store, path):
    heard = []

    def listen(one):
        with closing(sqlite3.connect(path)) as other:
            stored = other.execute("select count(*) from journal").fetchone()[0]
        assert stored >= one.cursor, "told only after the commit"
        heard.append(one.cursor)

    store.on_append = listen
    await asyncio.gather(*(store.append(entry()) for _ in range(20)))
    assert heard == list(range(1, 21))


async def test_a_write_whose_caller_was_cancelled_is_written_and_published(store, eventually):
    heard = []
    store.on_append = heard.append
    task = asyncio.create_task(store.append(entry("kept")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: [one.kind for one in heard], ["kept"])
    assert [one.kind for one in await store.history()] == ["kept"]


async def test_closing_finishes_queued_writes(store, open_store):
    tasks = [asyncio.create_task(store.append(entry(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*tasks)
    with pytest.raises(StoreError, match="closed") as caught:
        await store.append(entry())
    assert caught.value.code == "closed"
    await store.close()
    assert len(await (await open_store()).history(limit=1000)) == 50


async def test_f40_the_database_is_durable_and_enforces_references(store):
    sql = "select * from pragma_journal_mode, pragma_synchronous, pragma_foreign_keys"
    assert await store._writer.read(lambda db: db.execute(sql).fetchone()) == ("wal", 2, 1)


async def test_f39_a_copy_stands_alone_and_replaces_the_older_one(store, open_store, tmp_path):
    target = tmp_path / "copy.db"
    for number in range(2):
        await store.append(entry(str(number)))
        await store.copy_to(target)
    await store.append(entry("later"))
    assert [part.name for part in tmp_path.iterdir() if "copy" in part.name] == ["copy.db"]
    copied = await open_store(target)
    assert [one.kind for one in await copied.history()] == ["1", "0"]
    assert await copied.check() == "ok"


async def test_a_copy_that_cannot_be_made_leaves_nothing(store, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("")
    with pytest.raises(StoreError, match="cannot copy"):
        await store.copy_to(tmp_path / "folder")
    monkeypatch.setattr("agent.store.connect.check", lambda _: "a page is lost")
    with pytest.raises(StoreError, match="not whole"):
        await store.copy_to(tmp_path / "copy.db")
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob("copy*"))


@pytest.mark.parametrize("gone", ["agent.db", "agent.db-wal", "agent.db*"])
async def test_a_file_that_is_removed_is_written_anew(store, path, gone, monkeypatch, caplog):
    """Also where the new file cannot be opened twice, which is said once."""
    monkeypatch.setattr("agent.store.writer.PUT_BACK_EVERY", 0.0)
    await store.append(entry("before"))
    for each in path.parent.glob(gone):
        each.unlink()
    with monkeypatch.context() as broken:
        broken.setattr(store._writer, "_connect", lambda: sqlite3.connect("/nowhere/agent.db"))
        for _ in range(2):
            with pytest.raises(StoreError, match="unable to open"):
                await store.append(entry("no"))
    await store.append(entry("after"))
    assert caplog.text.count("unable to open") == 1
    assert not path.with_name("agent.db.back").exists()
    with closing(sqlite3.connect(path)) as other:
        kept = other.execute("select kind from journal").fetchall()
    assert kept == [("before",), ("after",)]


async def test_another_file_in_the_place_of_the_database_is_left_as_it_is(store, path):
    await store.append(entry("own"))
    (theirs := path.with_name("theirs")).write_bytes(b"theirs")
    theirs.rename(path)
    for refused in (store.append(entry("no")), store.copy_to(path.with_name("agent.db.copy"))):
        with pytest.raises(StoreError, match="another file took its place") as caught:
            await refused
    said = caught.value.code, str(caught.value), path.read_bytes()
    assert said == ("damaged", store.wrong, b"theirs")
    own = sqlite3.connect(path.with_name("agent.db.back"))
    assert own.execute("select kind from journal").fetchall() == [("own",)]
    await store.close()
    path.unlink()
    assert (await Store.open(path)).wrong == "agent.db.back has what the agent had"


@given(st.builds(SessionRecord))
def test_a_record_reads_back_as_it_was(record):
    assert decode_record(encode_record(record)) == record
    assert json.loads(encode_record(record)) == asdict(record), "each value stands for itself"


@pytest.mark.parametrize(
    ("text", "record"),
    [
        (None, SessionRecord()),
        ('{"attempts": 3, "of_tomorrow": [1]}', SessionRecord(attempts=3)),
        ('{"attempts": "many", "status": "HOVERING"}', SessionRecord()),
    ],
)
def test_a_record_of_another_version_is_read_as_far_as_it_goes(text, record):
    assert decode_record(text) == record


async def test_a_database_that_another_program_holds_is_busy_and_not_full(tmp_path):
    store = await Store.open(tmp_path / "agent.db")
    with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as other:
        await store._writer.read(lambda db: db.execute("pragma busy_timeout = 50").fetchone())
        other.execute("begin immediate")
        with pytest.raises(StoreError) as refused:
            await store.put_facts({"a": "b"})
        other.execute("rollback")
    await store.close()
    assert (refused.value.code, refused.value.http, refused.value.exit_status) == ("busy", 503, 75)
