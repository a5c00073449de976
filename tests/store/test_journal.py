"""Paging through history, and its bounds."""

from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from sqlite_utils import Database

from agent.core.model import InstanceId
from agent.store.database import MIGRATIONS, migrate
from agent.store.rows import encode_entry, insert_entries, select_entries, trim
from tests.store.conftest import entry


def memory():
    db = Database(memory=True)
    db.conn.isolation_level = None
    migrate(db, MIGRATIONS)
    return db


def fill(db, entries, now=100.0):
    return insert_entries(db, entries, [encode_entry(one, now) for one in entries])


ENTRIES = st.lists(
    st.builds(
        entry,
        kind=st.sampled_from(["status", "verdict", "action"]),
        id=st.sampled_from([None, "a", "b"]),
        sentence=st.text(max_size=20),
    ),
    max_size=40,
)


@given(
    ENTRIES,
    st.integers(1, 7),
    st.sampled_from([None, "a", "b", "c"]),
    st.sets(st.sampled_from(["status", "verdict", "other"])),
)
def test_pages_put_together_are_the_history(entries, limit, id, kinds):
    db = memory()
    stored = fill(db, entries)
    wanted = [
        replace(one, sentence=one.sentence.encode("utf-8", "backslashreplace").decode())
        for one in stored
        if (id is None or one.instance == id) and (not kinds or one.kind in kinds)
    ]
    chosen = {"instance": id and InstanceId(id), "kinds": kinds, "limit": limit}

    back, before = [], None
    while page := select_entries(db, before=before, **chosen):
        assert len(page) <= limit
        back += page
        before = page[-1].cursor
    assert back == wanted[::-1]

    forth, after = [], 0
    while page := select_entries(db, after=after, **chosen):
        assert len(page) <= limit
        forth += page
        after = page[-1].cursor
    assert forth == wanted
    db.close()


@given(ENTRIES, st.integers(-5, 50), st.integers(-5, 50), st.integers(-5, 5000))
def test_any_bounds_of_a_page_are_answered(entries, before, after, limit):
    db = memory()
    fill(db, entries)
    page = select_entries(db, before=before, after=after, limit=limit)
    assert all(after < one.cursor < before for one in page)
    db.close()


def test_rows_that_are_too_old_go_but_never_the_newest():
    """A clock that jumps ten years ahead must not empty the history."""
    db = memory()
    fill(db, [entry("old", wall=5.0)] * 30 + [entry("new", wall=9e5)] * 10)
    trims = partial(trim, db, days=1, least=20)
    assert trims(9e5) > 0
    assert [one.kind for one in select_entries(db, after=0)] == ["old"] * 10 + ["new"] * 10
    assert trims(9e12) == 0
    db.close()


def test_cursors_are_never_given_twice():
    db = memory()
    stored = fill(db, [entry()] * 3)
    db.execute("delete from journal")
    assert fill(db, [entry()])[0].cursor == stored[-1].cursor + 1
    assert trim(db, 0.0) == 0
    db.close()


async def test_a_store_keeps_its_history_bounded(store, monkeypatch):
    monkeypatch.setattr("agent.store.rows.trim", partial(trim, rows=50, least=10))
    for number in range(260):
        await store.append(entry(str(number)))
    kept = await store.history(limit=1000)
    assert kept[0].kind == "259"
    assert len(kept) < 160
