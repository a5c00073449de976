"""Whatever the database's bytes are, the agent starts with all its instances and says what it did.

Every byte that SQLite reads by its place is changed: of the file's header, of one page of each kind
(its header, its first and last cell), of the log's header and of its first and last frame.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter

import pytest

from agent.core.model import SessionRecord
from agent.store.database import MIGRATIONS, Store, open_checked
from agent.store.rows import KeyRow, list_keys, select_entries, select_instances
from tests.store.conftest import entry, instance

PAGE = 4096
KEY = KeyRow("ab12cd34", "f" * 64, ("admin",), "ops", 5.0)


def sessions():
    """Instances and records, as their folders say."""
    return [
        (
            instance(f"s{number:02}", settings={"scan": "auto", "n": number}, created_wall=1.7e9),
            SessionRecord(paired=True, account=f"49151{number}"),
        )
        for number in range(14)
    ]


async def write(path):
    """Return the database's files as a stopped agent leaves them, and as a killed one does."""
    store = await Store.open(path)
    for made, record in sessions():
        await store.add(made, record, entry("created", made.id))
    for number in range(300):
        await store.append(entry(sentence=f"it changed → {number}" * 3, detail={"number": number}))
    await store.add_key(KEY)
    for number in range(30):
        await store.put_facts({f"fact:{number}": "x" * 50})
    killed = {part.name: part.read_bytes() for part in path.parent.glob("agent.db*")}
    killed.pop("agent.db-shm")
    await store.close()
    return {part.name: part.read_bytes() for part in path.parent.glob("agent.db*")}, killed


HEADER, WAL_HEADER, FRAME_HEADER = 100, 32, 24
TABLE_NODE, INDEX_LEAF, TABLE_LEAF = 5, 10, 13
"""The kinds of pages that this database has, by their first byte."""


def of_a_page(page, start=0):
    """Where its header, its first and last cell pointer, and the beginnings of these cells are."""
    cells = start + (12 if page[start] == TABLE_NODE else 8)
    yield from range(start, cells)
    last = cells + 2 * (int.from_bytes(page[start + 3 : start + 5], "big") - 1)
    for pointer in {cells, last}:
        yield from (pointer, pointer + 1)
        cell = int.from_bytes(page[pointer : pointer + 2], "big")
        # The cell's length, its key, its header's length, the types of its values, and their begin.
        yield from range(cell, min(cell + 12, PAGE))


def places(content, name):
    """Every byte that is read by its place, once for each kind of page."""
    if name.endswith("-wal"):
        frames = range(WAL_HEADER, len(content), FRAME_HEADER + PAGE)
        yield from range(WAL_HEADER)
        for frame in (frames[0], frames[-1]):
            yield from range(frame, frame + FRAME_HEADER)
            yield from range(frame + FRAME_HEADER, frame + FRAME_HEADER + 12)
        return
    yield from range(HEADER)
    yield from of_a_page(content[:PAGE], HEADER)
    # The descriptions of the tables are text: a byte of each few words.
    yield from range(PAGE - 32, HEADER, -32)
    kinds = {content[at]: at for at in reversed(range(PAGE, len(content), PAGE))}
    assert set(kinds) == {TABLE_NODE, INDEX_LEAF, TABLE_LEAF}
    for start in kinds.values():
        yield from (start + at for at in of_a_page(content[start : start + PAGE]))


def write_changed(before, name, content, folder):
    for part in folder.iterdir():
        part.unlink()
    for part, kept in before.items():
        (folder / part).write_bytes(content if part == name else kept)


def chosen(rng, stopped, killed):
    """The files before, the one to change, and its content with one byte changed."""
    for before, name in ((stopped, "agent.db"), (killed, "agent.db-wal")):
        for at in places(before[name], name):
            content = bytearray(before[name])
            # A bit, or any byte.
            content[at] ^= rng.choice((1 << rng.randrange(8), rng.randrange(1, 256)))
            yield before, name, content


def start(path):
    """Return what a start reads before its first pass, and what it said of repairs."""
    told = []
    db = open_checked(path, told)
    with contextlib.closing(db):
        found = {made.id: (made, record) for made, record in select_instances(db)}
        wanted = {made.id: (made, record) for made, record in sessions()}
        for id, (made, record) in found.items():
            assert made == wanted[id][0], told
            assert (record.paired, record.account) == (True, wanted[id][1].account), told
        select_entries(db, limit=1000)
        assert all(key == KEY for key in list_keys(db)), told
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        (version,) = db.execute("pragma user_version").fetchone()
        assert version == len(MIGRATIONS), "else the next step of the schema would be left out"
        db.execute("insert into facts values ('it', 'takes writes')")
    return set(found), told


def test_no_changed_byte_of_the_database_stops_a_start_or_costs_an_instance(path):
    stopped, killed = asyncio.run(write(path))
    everyone, outcomes = {made.id for made, _ in sessions()}, Counter()
    made = chosen(random.Random(1), stopped, killed)
    for number, (before, name, content) in enumerate(made):
        write_changed(before, name, content, path.parent)
        try:
            found, told = start(path)
        except Exception as error:
            raise AssertionError(f"change {number} stops the start") from error
        # A log that is cut off is an older database: the next test has what is missing there.
        missing = everyone - found
        assert not missing or told or (name == "agent.db-wal"), (number, missing)
        outcomes["said" if told else "unharmed"] += 1
    assert min(outcomes["said"], outcomes["unharmed"]) > outcomes.total() / 10, outcomes


def raw_change(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as raw, raw:
        raw.execute(sql)


@pytest.fixture
async def written(path):
    await write(path)
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "update instances set settings = '{' where id = 's03'",
        "update instances set settings = cast(x'7bff7d' as text) where id = 's03'",
        "update sessions set record = '[]' where instance = 's03'",
        "delete from sessions where instance = 's03'",
        "update keys set scopes = '[\"read'",
    ],
)
async def test_a_row_that_cannot_be_read_is_damage(written, open_store, sql):
    store = await open_store(written)
    await store.copy_to(written.with_name("agent.db.copy"))
    await store.close()
    raw_change(written, sql)
    again = await open_store(written)
    assert not await again.instances()
    assert await again.keys() == [KEY]
    assert "was damaged" in again.rebuilt_from[0]


async def test_a_garbled_line_of_history_costs_only_itself(written, open_store):
    raw_change(written, "update journal set detail = '{', category = 'X' where cursor = 3")
    raw_change(written, "update journal set sentence = cast(x'ff' as text) where cursor = 4")
    store = await open_store(written)
    assert len(await store.history(limit=1000)) == 314
