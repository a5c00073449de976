"""messages.db of a session: nothing that was kept is lost or comes twice, and what had to go is a
gap for its readers."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SchemaTooNew, StoreError
from agent.messages.incoming import FOLDER, MOST_GONE, Incoming, read_only
from tests.messages.records import file_at, messages, newest, numbers_of, page_of, read_all, settle

UNSURE = numbers_of([{"kind": "message_gap"}])[0]
BY = {"consumer": "one", "consumers": ["one"]}


def lost_of(file: Incoming) -> int:
    return int(file.read("messages_state", {})["lost"])


def test_what_is_kept_is_read_in_its_order_from_any_cursor(tmp_path: Path) -> None:
    file = file_at(tmp_path)
    file.append(messages(range(3)))
    file.path.with_name("messages.db-wal").unlink()  # under its worker
    assert file.append(messages(range(2, 5))) == newest(file)
    assert file.append(messages(range(5))) == 0
    records = read_all(file, limit=2)
    assert numbers_of(records) == [0, 1, 2, 3, 4]
    cursors = [record["cursor"] for record in records]
    assert cursors == sorted(set(cursors))
    assert all("kept" in record and "_media" not in record for record in records)
    after = page_of(file, cursors[2], 1)
    assert (numbers_of(after["records"]), after["more"]) == ([3], True)
    file_at(tmp_path).append(messages([9]))  # a worker that was killed may have counted none
    assert file._db.execute("select count from state").fetchone() == (6,)


def test_a_file_that_is_opened_again_repeats_no_cursor(tmp_path: Path) -> None:
    file = file_at(tmp_path)
    newest_one = file.append(messages([1]))
    file.close()
    shutil.copytree(tmp_path / FOLDER, tmp_path / "copy")
    again = file_at(tmp_path)
    reached = again.append(messages([2]))
    assert numbers_of(page_of(again, newest_one, 10)["records"]) == [2]
    again.close()
    shutil.rmtree(tmp_path / FOLDER)
    (tmp_path / "copy").rename(tmp_path / FOLDER)
    restored = file_at(tmp_path)
    waits = [read_only(restored.path, "messages", {"after": reached, "limit": 9}, "sales")]
    time.sleep(1)
    waits.append(page_of(restored, reached, 10))
    assert [(it["records"], it["next"]) for it in waits] == [([], reached)] * 2, "its gap comes"
    restored.append(messages([3]))
    told = page_of(restored, reached, 10)["records"]
    assert numbers_of(told) == [UNSURE, 3], "older than what its reader had"
    assert min(told[0]["cursor"], told[0]["last"]) > reached
    for after in (told[0]["cursor"], newest_one):
        assert numbers_of(page_of(restored, after, 10)["records"]) == [3]


def test_a_file_that_was_lost_begins_with_a_gap_for_its_old_readers(tmp_path: Path) -> None:
    file = file_at(tmp_path)
    found = page_of(file, 77, 10)
    assert (found["records"], found["next"]) == ([], 77), "it may come back"
    assert not (tmp_path / FOLDER).exists()
    file.append(messages([1]))
    time.sleep(2)  # what comes next is behind this reader all the same
    found = page_of(file, newest(file) + 1000, 1)
    assert (numbers_of(found["records"]), found["next"]) == ([UNSURE, 1], newest(file))
    (tmp_path / FOLDER / "messages.db").unlink()
    file.append(messages([2]))
    time.sleep(1)
    again = file_at(tmp_path)
    assert (numbers_of(read_all(again)), lost_of(again)) == ([UNSURE, 2], 1)
    assert numbers_of(read_all(again, found["next"])) == [UNSURE, 2]


def test_no_file_replays_the_log_of_another_one(tmp_path: Path) -> None:
    file, old = file_at(tmp_path), tmp_path / "old"
    file.append(messages([1]))
    file.close()
    copy = shutil.copy(file.path, tmp_path / "copy")
    file.append(messages([2]))
    left = (log := file.path.with_name("messages.db-wal")).read_bytes()
    old.hardlink_to(file.path)
    Path(copy).rename(file.path)  # under its worker
    file.append(messages([3]))
    assert (numbers_of(read_all(file_at(tmp_path))), bool(file.said.pop())) == ([1, 3], True)
    file.close()
    file.path.unlink()
    log.write_bytes(left)  # a kill left it
    file.append(messages([77]))
    assert numbers_of(read_all(file)) == [77]
    (tmp_path / "old-wal").write_bytes(left)
    os.mkfifo(tmp_path / "old-shm")  # its reader would wait
    kept = read_only(old, "messages", {"after": 0, "limit": 10}, "sales")
    assert numbers_of(kept["records"]) == [1, 2]


def test_a_disk_that_refuses_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = file_at(tmp_path)
    file.append(messages([1]))
    assert file._db.execute("pragma synchronous").fetchone() == (2,), "what is kept outlives power"
    file._db.execute("pragma max_page_count = 1")  # no more than it has
    with pytest.raises(sqlite3.OperationalError):
        file.append(messages(range(2, 50), "x" * 5000))
    assert numbers_of(read_all(file)) == [1]
    file._db.execute("pragma max_page_count = 100000")
    file.append(messages(range(2, 50), "x" * 5000))
    assert numbers_of(read_all(file)) == list(range(1, 50))
    file.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreError, match="read-only"):  # not even opened
        file.append(messages([50]))


def test_what_no_consumer_reads_is_not_lost(tmp_path: Path) -> None:
    file = file_at(tmp_path, most=128)
    file.append(messages(range(100)))
    file.read("messages", {"after": 0, "limit": 1, **BY})  # and then it has gone for a week
    file.append(messages(range(100, 300)))
    assert (lost_of(file), numbers_of(read_all(file))[0] > 0) == (0, True)
    assert numbers_of(page_of(file, 1, 1)["records"])[0] < 0, "a reader that was there hears of it"


def test_a_reader_amid_what_went_misses_its_rest_and_none_is_ahead(tmp_path: Path) -> None:
    file = file_at(tmp_path, most=100)
    settle(file, 0)
    file.append(messages(range(80)))
    reached = file.read("messages", {"after": 0, "limit": 30, **BY})["next"]
    file.read("messages", {"after": 1 << 49, "limit": 1, **BY})  # never given
    file.append(messages(range(80, 160)))
    missing, first = numbers_of(page_of(file, reached, 1)["records"])
    # Also what was in a killed one's hands.
    assert 30 - missing == first == lost_of(file) == -numbers_of(read_all(file))[0]
    settle(file, newest(file) + 9)
    file.append(messages([160]))
    assert file.read("messages_state", {})["waiting"] == 1


def test_gaps_beyond_the_most_that_are_told_apart_count_as_one(tmp_path: Path) -> None:
    file = file_at(tmp_path, most=100)
    settle(file, 0)
    for begin in range(0, 60 * MOST_GONE + 600, 60):
        file.append(messages(range(begin, begin + 60)))
    missing, *kept = numbers_of(read_all(file))
    assert missing == -lost_of(file) == len(kept) - begin - 60, "one gap counts all that went"
    told_apart = "select count(*) from gone where missing > 0"
    assert file._db.execute(told_apart).fetchone() == (MOST_GONE,)


def test_a_beginning_lies_before_what_went_since(tmp_path: Path) -> None:
    file = file_at(tmp_path, most=100)
    file.append(messages(range(60)))
    time.sleep(0.01)
    since = time.time() - 0.005
    for begin in range(60, 300, 60):
        file.append(messages(range(begin, begin + 60)))
    before = file.read("messages_behind", {"since": since})["before"]
    missing, first = numbers_of(page_of(file, before, 1)["records"])
    assert first + missing == 81, "all that went whole"


def test_the_oldest_go_over_the_bytes(tmp_path: Path) -> None:
    file = file_at(tmp_path, megabytes=1)
    for number in range(60):
        file.append(messages([number], "x" * 40_000))
    assert int(file.read("messages_state", {})["bytes"]) <= 1 << 20
    assert numbers_of(read_all(file))[-20:] == list(range(40, 60))
    assert len(page_of(file, newest(file) - 20)["records"]) == 6, "its reader may not read on"
    assert sum(each.stat().st_size for each in (tmp_path / FOLDER).iterdir()) < 8 << 20


def test_too_old_is_by_a_steady_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, jumped = file_at(tmp_path, hours=1), time.time() + 7300
    newest_one = file.append(messages(range(5)))
    monkeypatch.setattr(time, "time", lambda: jumped)
    file.append([])
    assert len(read_all(file)) == 5
    for hours, kept in (1.5, [0, 1, 2, 3, 4, 7]), (1, [7, 8]):  # not with each that comes
        later = file_at(tmp_path, hours=hours)
        later.append(messages(kept[-1:]))
        assert numbers_of(read_all(later)) == kept
    monkeypatch.setattr(time, "time", lambda: jumped - 7200)
    later.append(messages([9]))
    later.append([])
    assert numbers_of(page_of(later, newest_one, 9)["records"]) == [7, 8, 9]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_each_reader_gets_each_record_once_or_a_gap_that_counts_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = file_at(tmp_path_factory.mktemp("any"), most=100)
    number, cursor, got, missed = 0, 0, 0, 0
    settle(file, 0)
    for step in data.draw(st.lists(st.sampled_from(["keep", "read", "again"]), max_size=25)):
        if step == "keep":
            count = data.draw(st.integers(1, 80))
            file.append(messages(range(number, number + count)))
            number += count
        elif step == "again":
            settle(file, cursor)
            file.close()
            file = Incoming(file.path, "sales", **file.bounds)
        else:
            found = file.read("messages", {"after": cursor, "limit": 30, **BY})
            counts = numbers_of(found["records"])
            missed -= sum(each for each in counts if each < 0)
            fresh = [each for each in counts if each >= 0]
            assert fresh == list(range(got + missed, got + missed + len(fresh)))
            got, cursor = got + len(fresh), found["next"]
            # By asking behind them it says that it has these.
            file.read("messages", {"after": cursor, "limit": 0, **BY})
    settle(file, cursor)
    rest = numbers_of(read_all(file, cursor))
    assert got + missed + sum(1 if each >= 0 else -each for each in rest) == number
    assert missed - sum(each for each in rest if each < 0) == lost_of(file)
    begins, kept = numbers_of(read_all(file)), int(file.read("messages_state", {})["waiting"])
    assert [each for each in begins if each < 0] == [each for each in rest if each < 0]
    assert begins[-1:] in ([], [number - 1]) and kept <= len(begins) <= 101


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(9000))


def schema(path: Path) -> None:
    """SQLite quotes it in its error, and Python cannot read that."""
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE", b"CREATE \x8fABLE"))


def column(path: Path) -> None:
    """One bit, which SQLite's own check does not see."""
    path.write_bytes(path.read_bytes().replace(b"owner text", b"ownep text"))


def owner(path: Path) -> None:
    path.parent.rename(path.parent.with_name("kept"))
    Incoming(path, "another").append(messages([3]))


@pytest.mark.parametrize("hurt", [damage, schema, column, owner, lambda it: os.truncate(it, 0)])
def test_a_damaged_file_is_set_aside_and_readers_get_a_gap(
    tmp_path: Path, hurt: Callable[[Path], None]
) -> None:
    file = file_at(tmp_path)
    newest_one = file.append(messages(range(50)))
    file.close()
    hurt(file.path)
    time.sleep(1)
    again = file_at(tmp_path)
    again.append(messages([77]))
    assert [numbers_of(read_all(again, it)) for it in (newest_one, 0)] == [[UNSURE, 77]] * 2
    (aside,) = file.path.parent.glob("messages.db.damaged-*Z-??????")
    assert (aside.name in again.said[0], lost_of(again)) == (True, 1)


def test_damage_under_a_running_worker_costs_no_new_message(tmp_path: Path) -> None:
    file = file_at(tmp_path)
    file.append(messages(range(200), "x" * 2000))
    file._db.execute("pragma wal_checkpoint(truncate)").fetchall()
    damage(file.path)
    file._db.execute("pragma cache_size = 0")
    file.append(messages([900]))
    assert (numbers_of(read_all(file)), len(file.said)) == ([UNSURE, 900], 1)


@pytest.mark.parametrize("body", [b"\xa0\xff", b"[1]", b"[" * 100_000, 1.5])
def test_a_damaged_record_is_a_gap_and_those_behind_it_are_read(
    tmp_path: Path, body: object
) -> None:
    file = file_at(tmp_path)
    file.append(messages(range(3)))
    file._db.execute("update records set body = ? where message_id = '000001'", (body,))
    assert numbers_of(read_all(file)) == [0, -1, 2]


def test_a_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    file = file_at(tmp_path)
    file.append(messages([1]))
    file._db.execute("pragma user_version = 2")
    file.close()
    with pytest.raises(SchemaTooNew):
        file_at(tmp_path).append(messages([2]))
    assert [each.name for each in file.path.parent.iterdir()] == ["messages.db"]
