"""A spool on a good disk: what comes in goes out once, in order, and the oldest goes."""

import time
from pathlib import Path

import pytest

from agent.wings.messages.spool.reading import PAGE_BYTES
from tests.wings.messages.spools import (
    entries,
    message,
    numbers_of,
    read_all,
    segments,
    spool_at,
)


def test_what_is_kept_is_read_in_its_order_by_this_worker_and_the_next(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    assert spool.append(entries(range(5))) == 5
    assert spool.append(entries(range(5, 8), "ação\n\t\0\u2028 🙂")) == 3
    for each in (spool, spool_at(tmp_path)):
        found = read_all(each)
        assert numbers_of(found) == list(range(8))
        cursors = [record["cursor"] for record in found]
        assert cursors == list(range(cursors[0], cursors[0] + 8))
        assert found[6]["text"] == "ação\n\t\0\u2028 🙂"
        assert {key: found[0][key] for key in message(0)} == message(0)
        assert abs(found[0]["kept"] - time.time()) < 60


def test_a_page_fits_into_one_answer_of_the_link(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries(range(40), "ã" * 60_000))
    page = spool.page(0, 1000)
    assert 1 <= len(page.records) <= PAGE_BYTES // (2 * 60_000)
    assert numbers_of(read_all(spool)) == list(range(40))


def test_nothing_is_made_before_something_arrives(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    page = spool.page(0, 10)
    assert (page.records, page.more) == ([], False)
    spool.settle(page.newest)
    spool.trim()
    assert spool.state()["waiting"] == 0 and not spool.there
    assert list(tmp_path.iterdir()) == []
    spool.append(entries([1]))
    assert numbers_of(spool.page(page.next, 10).records) == [1]


def test_the_oldest_go_over_the_number_and_only_undelivered_ones_are_missed(
    tmp_path: Path,
) -> None:
    spool = spool_at(tmp_path, most=160)
    spool.append(entries(range(100)))
    middle = read_all(spool)[49]["cursor"]
    spool.settle(middle)
    spool.append(entries(range(100, 205)))
    found = read_all(spool)
    assert numbers_of(found) == list(range(50, 205)) and spool.state()["lost"] == 0
    spool.append(entries(range(205, 300)))
    lost = spool.state()["lost"]
    for each in (spool, spool_at(tmp_path, most=160)):
        found = read_all(each)
        assert each.state()["lost"] == lost > 0
        assert numbers_of(found)[0] == -lost, "the reader that never read hears what is lost"
        kept = numbers_of(found)[1:]
        assert kept == list(range(50 + lost, 300)) and len(kept) <= 160
        gap = found[0]
        assert (gap["first"], gap["last"]) == (middle + 1, middle + lost)
        assert gap["cursor"] == gap["last"] and 0 < gap["since"] <= time.time()
        again = each.page(middle, 1000)
        assert numbers_of(again.records)[0] == -lost
        assert each.page(middle + lost, 1).records[0]["kind"] == "message"


def test_the_oldest_go_over_the_bytes(tmp_path: Path) -> None:
    spool = spool_at(tmp_path, megabytes=1)
    for number in range(60):
        spool.append(entries([number], "x" * 40_000))
    on_disk = sum(file.stat().st_size for file in segments(tmp_path))
    assert (1 << 20) * 0.8 < on_disk <= (1 << 20) + 100_000
    assert numbers_of(read_all(spool))[-20:] == list(range(40, 60))


def test_what_is_too_old_goes_and_no_cursor_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = spool_at(tmp_path, hours=1)
    spool.append(entries(range(5)))
    newest = spool.newest
    spool.settle(newest)
    spool.trim()
    assert len(read_all(spool)) == 5
    jumped = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: jumped)
    spool.trim()
    assert len(read_all(spool)) == 5, "a clock that jumps makes nothing old"
    spool = spool_at(tmp_path, hours=1)
    spool.trim()
    assert read_all(spool) == [] and spool.state()["lost"] == 0
    assert [file.stat().st_size for file in segments(tmp_path)] == [0]
    monkeypatch.undo()
    for each in (spool, spool_at(tmp_path)):
        page = each.page(newest, 1)
        assert page.records == [] and page.next >= newest
    spool = spool_at(tmp_path)
    spool.append(entries([9]))
    (record,) = spool.page(newest, 10).records
    assert record["cursor"] > newest
