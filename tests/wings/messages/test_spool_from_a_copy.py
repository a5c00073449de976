"""A spool put back from an older copy, or made anew: it goes on above all that readers had."""

import shutil
import time
from pathlib import Path

from agent.wings.messages.spool.holes import Hole, gaps, never_given
from tests.wings.messages.spools import entries, numbers_of, read_all, spool_at


def put_back(tmp_path: Path, before: range, after: range) -> int:
    """Its files are those of `before`, and the last cursor of what came after them."""
    spool = spool_at(tmp_path)
    spool.append(entries(before))
    spool.close()
    shutil.copytree(tmp_path / "messages", tmp_path / "copy")
    spool = spool_at(tmp_path)
    spool.append(entries(after))
    newest = spool.newest
    spool.close()
    shutil.rmtree(tmp_path / "messages")
    shutil.copytree(tmp_path / "copy", tmp_path / "messages")
    return newest


def test_an_older_copy_repeats_no_cursor_and_says_how_many_are_missing(tmp_path: Path) -> None:
    newest = put_back(tmp_path, range(5), range(5, 12))
    spool = spool_at(tmp_path)
    spool.go_above(newest)
    spool.append(entries([20, 21]))
    assert numbers_of(read_all(spool)) == [0, 1, 2, 3, 4, -7, 20, 21]
    # Who had all, half and nothing of what is missing.
    first = newest - 11
    assert numbers_of(read_all(spool, newest)) == [20, 21]
    assert numbers_of(read_all(spool, first + 8)) == [-3, 20, 21]
    assert numbers_of(read_all(spool_at(tmp_path), first + 4)) == [-7, 20, 21]


def test_what_a_worker_gave_before_it_knew_comes_again_above(tmp_path: Path) -> None:
    newest = put_back(tmp_path, range(3), range(3, 9))
    spool = spool_at(tmp_path)
    spool.append(entries([30, 31]))
    assert spool.newest < newest
    spool.go_above(newest)
    assert numbers_of(read_all(spool, newest)) == [30, 31], "its reader would never see them"
    spool.go_above(newest)
    spool.append(entries([30, 32]))
    assert numbers_of(read_all(spool, newest)) == [30, 31, 32]


def test_a_spool_that_was_lost_and_made_anew_says_how_many_are_missing(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries(range(10)))
    newest = spool.newest
    spool.close()
    shutil.rmtree(tmp_path / "messages")
    while time.time() * 1000 <= newest + 1:
        pass  # milliseconds: the new one begins with its time
    spool = spool_at(tmp_path)
    spool.append(entries([50]))
    spool.go_above(newest)
    for each in (spool, spool_at(tmp_path)):
        assert numbers_of(read_all(each, newest - 4)) == [-4, 50]
        assert numbers_of(read_all(each, newest)) == [50]
        assert numbers_of(read_all(each)) == [50]
        assert (each.state()["waiting"], each.state()["lost"]) == (1, 0)


def test_an_empty_spool_that_goes_on_above_another_has_lost_nothing(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.go_above(10**15)
    spool.append(entries([50]))
    spool.close()
    assert spool_at(tmp_path).state()["lost"] == 0


def test_a_cursor_that_no_spool_gave_moves_none(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([50]))
    newest = spool.newest
    spool.go_above(10**30)
    assert spool.newest == newest


def test_a_place_where_nothing_was_ever_given_is_no_missing_record() -> None:
    holes = [Hole(10, 100), Hole(120, 200, 5.0, 6.0, sure=False)]
    found = list(gaps(8, 250, 1.0, holes, []))
    assert [(it["first"], it["last"], it.get("missing")) for it in found] == [
        (8, 10, 3),
        (100, 120, 21),
        (121, 199, None),
        (200, 250, 51),
    ]
    assert (found[2]["since"], found[2]["until"]) == (5.0, 6.0)
    assert list(gaps(11, 99, 1.0, holes, [])) == []
    assert never_given(1, 250, holes) == 89 + 79
