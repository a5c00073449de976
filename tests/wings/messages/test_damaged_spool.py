"""Damage on the disk costs what it hit: the rest is read, a reader hears of the gap, the damaged
file is kept beside it, and no cursor is given a second time."""

import json
import os
import random
from pathlib import Path

import pytest

from agent.wings.messages.lookup import mark_of
from tests.wings.messages.spools import entries, numbers_of, read_all, segments, spool_at


def aside(folder: Path) -> list[Path]:
    return sorted((folder / "messages").glob("damaged-*"))


def three_segments(folder: Path) -> list[Path]:
    """Messages 0 to 9, 10 to 19, 20 to 29."""
    spool = spool_at(folder, most=160)
    for number in range(30):
        spool.append(entries([number]))
    spool.close()
    found = segments(folder)
    assert len(found) == 3
    return found


@pytest.mark.parametrize("which", [1, 2])
def test_a_flipped_bit_anywhere_costs_one_message(tmp_path: Path, which: int) -> None:
    whole = three_segments(tmp_path)[which].read_bytes()
    line_ends = [at for at, byte in enumerate(whole) if byte == 0x0A]
    for at in (*range(0, len(whole), 97), line_ends[4]):
        for file in aside(tmp_path):
            file.unlink()
        raw = bytearray(whole)
        raw[at] ^= 4
        segments(tmp_path)[which].write_bytes(raw)
        spool = spool_at(tmp_path, most=160)
        found = numbers_of(read_all(spool))
        hit = [number for number in range(30) if number not in found]
        (gap,) = [number for number in found if number < 0]
        # How far the newest file went nobody knows once its end is damaged: at most so many.
        assert 1 <= len(hit) <= 2 and (gap <= -1 if 29 in hit else gap == -len(hit))
        assert [number for number in found if number >= 0] == sorted(set(range(30)) - set(hit))
        assert [file.read_bytes() for file in aside(tmp_path)] == [bytes(raw)]
        assert len(spool.damaged) == 1
        newest = spool.newest
        assert newest - read_all(spool)[0]["cursor"] >= 29 - len(hit)
        spool.append(entries([100]))
        assert numbers_of(spool.page(newest, 10).records) == [100]
        # Read once more, it is whole: nothing else is set aside.
        again = spool_at(tmp_path, most=160)
        assert numbers_of(read_all(again)) == [*found, 100] and not again.damaged
        again.append(entries([101]))
        again.close()
        for file in segments(tmp_path)[3:]:
            file.unlink()
        (tmp_path / "messages" / "state.json").unlink(missing_ok=True)
        segments(tmp_path)[which].write_bytes(whole)


def test_a_message_that_was_lost_to_damage_may_come_again(tmp_path: Path) -> None:
    file = three_segments(tmp_path)[1]
    file.write_bytes(file.read_bytes().replace(b'"text":"message 15"', b'"text":"massage 15"'))
    spool = spool_at(tmp_path, most=160)
    assert spool.append(entries([14, 15, 16])) == 1
    assert numbers_of(read_all(spool))[-1] == 15


@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("how", ["gone", "empty", "rubbish", "pipe"])
def test_a_whole_segment_that_is_lost_is_a_gap(tmp_path: Path, which: int, how: str) -> None:
    files = three_segments(tmp_path)
    spool = spool_at(tmp_path, most=160)
    newest = spool.newest
    if how == "empty":  # as one that was begun and never written to: the readers know better
        spool.settle(newest)
    file = files[which]
    file.unlink()
    if how == "empty":
        file.touch()
    elif how == "rubbish":
        file.write_bytes(random.Random(which).randbytes(1_000_000))
    elif how == "pipe":
        os.mkfifo(file)
    spool = spool_at(tmp_path, most=160)
    found = numbers_of(read_all(spool))
    assert [number for number in found if number >= 0] == [
        number for number in range(30) if number // 10 != which
    ]
    if which < 2:
        assert found[which * 10] == -10
    spool.append(entries([40]))
    last = read_all(spool)[-1]
    assert numbers_of([last]) == [40] and last["cursor"] > newest
    assert numbers_of(read_all(spool_at(tmp_path, most=160)))[-1] == 40


def test_no_cursor_comes_again_when_the_newest_file_and_the_state_are_gone(tmp_path: Path) -> None:
    files = three_segments(tmp_path)
    spool = spool_at(tmp_path, most=160)
    newest = spool.newest
    spool.settle(newest)
    spool.close()
    files[2].unlink()
    for text in (None, "", "[1]", '{"next": "x"}', "[" * 2000):
        state = tmp_path / "messages" / "state.json"
        if text is not None:
            state.write_text(text)
            assert numbers_of(read_all(spool_at(tmp_path, most=160)))[:20] == list(range(20))
        else:
            again = spool_at(tmp_path, most=160)
            assert again.newest >= newest
            found = numbers_of(read_all(again))
            assert found[:-1] == list(range(20)) and found[-1] <= -10


def test_a_file_that_is_deleted_under_a_worker_takes_no_message_with_it(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([1, 2]))
    (file,) = segments(tmp_path)
    file.unlink()
    spool.append(entries([3]))
    assert [number for number in numbers_of(read_all(spool)) if number > 0] == [3]
    for each in (tmp_path / "messages").iterdir():
        each.unlink()
    (tmp_path / "messages").rmdir()
    spool.append(entries([4]))
    assert numbers_of(read_all(spool_at(tmp_path)))[-1] == 4


def test_a_folder_that_is_away_for_a_while_is_no_gap(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([1, 2]))
    folder = tmp_path / "messages"
    folder.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        spool.page(0, 10)
    (tmp_path / "away").rename(folder)
    assert numbers_of(read_all(spool)) == [1, 2]


@pytest.mark.parametrize("field", ["counted", "settled", "holes", "damage"])
@pytest.mark.parametrize("number", ["1" + "0" * 30, "NaN"])
def test_a_number_that_no_state_can_have_is_damage(tmp_path: Path, field: str, number: str) -> None:
    three_segments(tmp_path)
    file = tmp_path / "messages" / "state.json"
    state = json.loads(file.read_text())
    row = {"holes": [[1, "N", 0, 0]], "damage": [[1, 2, "N"]]}
    state[field] = row.get(field, "N")
    file.write_text(json.dumps(state).replace('"N"', number))
    spool = spool_at(tmp_path, most=160)
    assert numbers_of(read_all(spool)) == list(range(30))
    spool.append(entries([40]))
    assert numbers_of(read_all(spool))[-1] == 40
    assert spool.newest < 1 << 52
    assert 0 <= json.loads(file.read_text())["settled"] < 1 << 52


def test_a_mark_that_no_cursor_can_have_is_none(tmp_path: Path) -> None:
    folder = spool_at(tmp_path).folder
    folder.make()
    marks = {"a": 10**30, "b": -1, "c": True, "d": 7}
    (tmp_path / "messages" / "read.json").write_text(json.dumps(marks))
    assert [mark_of(folder, chat) for chat in marks] == [0, 0, 0, 7]


@pytest.mark.parametrize("name", ["9999999999999999", "0000000000000005"])
@pytest.mark.parametrize("how", ["rubbish", "link", "copy"])
def test_a_stray_file_with_a_segments_name_moves_no_cursor(
    tmp_path: Path, name: str, how: str
) -> None:
    newest = three_segments(tmp_path)[-1]
    before = spool_at(tmp_path, most=160).newest
    stray = newest.with_name(f"{name}.log")
    if how == "link":
        stray.symlink_to("/etc/passwd")
    else:
        stray.write_bytes(newest.read_bytes() if how == "copy" else b"x\n" * 100)
    spool = spool_at(tmp_path, most=160)
    assert numbers_of(read_all(spool)) == list(range(30))
    assert spool.newest == before
    assert spool.state()["lost"] == 0
    spool.append(entries([40]))
    assert numbers_of(read_all(spool)) == [*range(30), 40]
    assert not os.path.lexists(stray) or name.startswith("99")


def test_foreign_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    three_segments(tmp_path)
    names = ("notes.txt", "12.log", "x" * 16 + ".log", ".state.json.1-1.tmp", "damaged-1-x.log")
    for name in names:
        (tmp_path / "messages" / name).write_text("mine")
    spool = spool_at(tmp_path, most=160)
    assert numbers_of(read_all(spool)) == list(range(30))
    assert all((tmp_path / "messages" / name).read_text() == "mine" for name in names)
