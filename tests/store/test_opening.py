"""A start finds files that are damaged, foreign, older, newer, read-only, and loses nothing."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from agent.core.model import SessionRecord
from agent.errors import SchemaTooNew, StoreError
from agent.store import database
from agent.store.database import MIGRATIONS, Store
from agent.store.rows import KeyRow
from tests.store.conftest import entry, instance
from tests.vault.conftest import as_nobody

__all__ = ["as_nobody"]


@pytest.fixture
async def written(path):
    """A closed database with content; its path."""
    store = await Store.open(path)
    await store.add(instance("a"), SessionRecord(attempts=7), entry("created", "a"))
    for number in range(200):
        await store.append(entry(str(number), sentence="x" * 100))
    await store.close()
    return path


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def garbage(path):
    path.write_bytes(os.urandom(10_000))


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("create table theirs (x)")


def torn_pages(path):
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 512)


@pytest.mark.parametrize("damage", [truncate, empty, foreign, torn_pages])
async def test_f34_f35_f37_a_damaged_database_is_kept_and_a_new_one_made(
    written, open_store, damage
):
    damage(written)
    bytes_before = written.read_bytes()
    store = await open_store(written)
    (kept,) = written.parent.glob("agent.db.damaged-????????T??????Z")
    assert kept.read_bytes() == bytes_before, "kept bit by bit"
    assert not await store.instances(), "they come from their folders"
    (first,) = store.rebuilt_from
    assert "was damaged" in first and kept.name in first
    told = await store.history(kinds=["store_repaired"])
    assert [one.sentence for one in told] == list(reversed(store.rebuilt_from))
    assert written.stat().st_mode & 0o777 == 0o600
    assert await store.check() == "ok"


async def test_the_log_of_a_lost_database_never_meets_the_new_one(path, open_store):
    """SQLite would replay a left -wal into whatever main file it finds beside it."""
    store = await open_store(path)
    for number in range(50):
        await store.append(entry(str(number)))
    wal = path.with_name("agent.db-wal")
    content = wal.read_bytes()
    assert content
    await store.close()
    path.unlink()
    wal.write_bytes(content)
    again = await open_store(path)
    assert not await again.history()
    assert await again.check() == "ok"
    (kept,) = path.parent.glob("agent.db.damaged-*-wal")
    assert kept.read_bytes() == content


async def test_f38_a_garbage_log_beside_a_whole_database_is_ignored(written, open_store):
    written.with_name("agent.db-wal").write_bytes(os.urandom(40_000))
    store = await open_store(written)
    assert store.rebuilt_from == ()
    assert (await store.instances())[0][1].attempts == 7


KEY = KeyRow("ab12cd34", "f" * 64, ("admin",), "ops", 5.0)


async def test_f39_a_damaged_database_is_replaced_by_the_copy(written, open_store):
    store = await open_store(written)
    await store.add_key(KEY)
    await store.put_facts({"colour": "blue"})
    await store.copy_to(written.with_name("agent.db.copy"))
    (late,) = await store.append(entry("after the copy"))
    await store.close()
    garbage(written)
    again = await open_store(written)
    assert await again.keys() == [KEY]
    assert await again.get_facts("") == {"colour": "blue"}
    assert not await again.instances(), "they may be deleted or stopped since the copy"
    told = await again.history(after=late.cursor)
    assert [one.kind for one in told] == ["store_repaired"] * len(again.rebuilt_from)
    assert (await again.history(after=0, limit=1))[0].kind == "created"
    assert any("revoke again" in one and "agent.db.copy" in one for one in again.rebuilt_from)


async def test_f39_a_damaged_copy_is_not_used_but_kept(written, open_store):
    garbage(written)
    garbage(copy := written.with_name("agent.db.copy"))
    before = copy.read_bytes()
    store = await open_store(written)
    assert not await store.keys()
    (kept,) = written.parent.glob("agent.db.copy.damaged-*")
    assert kept.read_bytes() == before
    assert kept.name in store.rebuilt_from[-1]


def contents(folder):
    return {part.name: part.read_bytes() for part in folder.iterdir() if part.suffix != ".db-shm"}


async def test_f50_a_newer_schema_that_is_still_in_the_log_is_seen(written, run_child):
    """The agent that wrote it was killed: the main file still holds the old version."""
    code = """
import os, sqlite3, sys
raw = sqlite3.connect(sys.argv[1])
raw.execute("pragma user_version = 99")
raw.execute("insert into migrations values (99, 'a newer step', 0)")
raw.commit()
os._exit(0)
"""
    run_child(code, written)
    before = contents(written.parent)
    assert before["agent.db-wal"]
    known = f"version 99, this program knows {len(MIGRATIONS)}"
    with pytest.raises(SchemaTooNew, match=known) as caught:
        await Store.open(written)
    assert (caught.value.exit_status, "run the newer version" in str(caught.value)) == (78, True)
    assert contents(written.parent) == before, "not even checkpointed"


OPEN = """
import asyncio, sys
from pathlib import Path
from agent.errors import StoreError
from agent.store import database
async def main():
    if "upgrade" in sys.argv:
        from tests.store.test_opening import NEXT
        database.MIGRATIONS = NEXT
    try:
        store = await database.Store.open(Path(sys.argv[1]))
    except StoreError as error:
        print(error.code, error)
    else:
        await store.close()
asyncio.run(main())
"""
WIDER = "alter table instances add column note text not null default ''"
NEXT = (*MIGRATIONS, ("notes", WIDER))


async def test_an_older_schema_is_brought_up(written, open_store, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(database, "MIGRATIONS", NEXT)
        store = await open_store(written)
    (told,) = store.rebuilt_from
    assert f"from version {len(MIGRATIONS)} to {len(NEXT)}" in told
    assert (await store.instances())[0][1].attempts == 7
    await store.close()
    with pytest.raises(SchemaTooNew, match="run the newer version"):
        await Store.open(written)


async def test_f49_a_step_that_fails_changes_nothing(written, open_store, monkeypatch):
    half = ("half", WIDER, "insert into nowhere values (1)")
    with monkeypatch.context() as newer, pytest.raises(StoreError, match="cannot migrate"):
        newer.setattr(database, "MIGRATIONS", (*MIGRATIONS, half))
        await Store.open(written)
    store = await open_store(written)
    assert store.rebuilt_from == ()
    assert (await store.instances())[0][1].attempts == 7


async def test_f49_an_upgrade_that_was_killed_is_done_again(written, run_child, open_store):
    run_child(OPEN, written, "upgrade", failpoint="mid_migration:kill")
    old = await open_store(written)
    assert old.rebuilt_from == (), "the old version can still open it"
    assert (await old.instances())[0][1].attempts == 7
    await old.close()
    run_child(OPEN, written, "upgrade")
    with closing(sqlite3.connect(written)) as raw:
        assert raw.execute("pragma user_version").fetchone()[0] == len(NEXT)
        names = [row[0] for row in raw.execute("select name from migrations order by number")]
    assert names == [name for name, *_ in NEXT]


@pytest.mark.parametrize("point", ["mid_set_aside", "mid_migration", "mid_rebuild"])
async def test_a_rebuild_that_was_killed_is_done_again(written, run_child, open_store, point):
    garbage(written)
    before = written.read_bytes()
    written.with_name("agent.db-wal").write_bytes(b"its log")
    run_child(OPEN, written, failpoint=f"{point}:kill")
    assert not await (await open_store(written)).instances()
    (kept,) = written.parent.glob("agent.db.damaged-*Z")
    assert kept.read_bytes() == before
    assert not list(written.parent.glob("*.new*"))


async def test_a_first_start_that_was_killed_leaves_no_half_database(path, run_child, open_store):
    run_child(OPEN, path, failpoint="mid_migration:kill")
    assert not path.exists()
    assert (await open_store(path)).rebuilt_from == ()


async def test_f44_a_database_without_rights_names_its_owner(as_nobody):
    with tempfile.TemporaryDirectory(prefix="wa-store-") as name:  # others can open no tmp_path
        (folder := Path(name)).chmod(0o755)
        await (await Store.open(folder / "agent.db")).close()
        said = as_nobody(OPEN, folder / "agent.db")
        assert not list(folder.glob("*damaged*")), "no rights is no damage"
    assert said.startswith("permissions cannot open")
    assert "agent.db belongs to uid 0 gid 0 mode 0600, this process is uid 65534" in said


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "FIFO"])
async def test_what_is_no_file_in_place_of_the_database_is_an_error_not_a_repair(path, make):
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    with pytest.raises(StoreError, match="it is no file; move it away"):
        await Store.open(path)
    assert path.exists()
