"""A spool put back from an older copy, or made anew: it goes on above all that readers had."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.wings.messages.spools import (
    UNSURE,
    entries,
    numbers_of,
    read_all,
    segments,
    spool_at,
)


def wait_until_the_time_is_above(cursor: int) -> None:
    while time.time() * 1000 <= cursor + 3:
        pass  # milliseconds: cursors begin with the time


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
    shutil.copytree(tmp_path / "copy", tmp_path / "again")  # while the old ones have their inodes
    shutil.rmtree(tmp_path / "messages")
    (tmp_path / "again").rename(tmp_path / "messages")
    wait_until_the_time_is_above(newest)
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


def look_at_a_copy_of_five_of_twelve(tmp_path: Path, newest: int) -> None:
    """Nobody but readers knows that there were twelve: the agent's own state is of before, too."""
    spool = spool_at(tmp_path)
    spool.append(entries([20, 21]))
    spool.close()
    first = newest - 11
    for again in range(3):  # the same folder now: it goes on where it is
        spool = spool_at(tmp_path)
        more = list(range(30, 30 + again))
        spool.append(entries(more))
        # A reader that had some of what is gone hears that it cannot know the rest.
        assert numbers_of(read_all(spool, newest)) == [UNSURE, 20, 21, *more]
        assert numbers_of(read_all(spool, first + 8)) == [UNSURE, 20, 21, *more]
        assert numbers_of(read_all(spool, first + 4)) == [20, 21, *more]
        assert numbers_of(read_all(spool)) == [0, 1, 2, 3, 4, 20, 21, *more]
        state = spool.state()
        assert (state["waiting"], state["lost"], len(state["holes"])) == (7 + again, 0, 1)
        spool.close()


def test_a_whole_machine_put_back_gives_no_cursor_again(tmp_path: Path) -> None:
    look_at_a_copy_of_five_of_twelve(tmp_path, put_back(tmp_path, range(5), range(5, 12)))


def test_files_that_were_copied_over_give_no_cursor_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour_ago = SimpleNamespace(time=lambda: time.time() - 3600)
    with monkeypatch.context() as before:
        before.setattr("agent.wings.messages.spool.spool.time", hour_ago)
        spool = spool_at(tmp_path)
        spool.append(entries(range(5)))
        (file,) = segments(tmp_path)
        copy = {each: each.read_bytes() for each in (file, file.with_name("state.json"))}
        spool.append(entries(range(5, 12)))
        newest = spool.newest
        spool.close()
    for each, content in copy.items():
        each.write_bytes(content)  # the same file
    wait_until_the_time_is_above(newest)
    look_at_a_copy_of_five_of_twelve(tmp_path, newest)


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
