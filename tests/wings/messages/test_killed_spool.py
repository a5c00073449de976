"""A writer that is killed: what it acknowledged is there, once, and the next one goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wings.messages.spools import entries, numbers_of, read_all, segments, spool_at

REPOSITORY = Path(__file__).parents[3]

WRITE = """
import sys
from pathlib import Path
from tests.wings.messages.spools import entries, spool_at
spool = spool_at(Path(sys.argv[1]), most=160)
for number in range(int(sys.argv[2]), int(sys.argv[2]) + int(sys.argv[3])):
    spool.append(entries([number]))
    print(number, spool.newest, flush=True)
    if int(sys.argv[4]):
        spool.settle(spool.newest)
"""


def writer(
    folder: Path, begin: int, count: int, failpoint: str = "", *, settles: bool = True
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), str(begin), str(count), str(int(settles))],
        env={**os.environ, "WA_FAILPOINT": failpoint, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> Iterator[tuple[int, int]]:
    """Message and cursor, as each was acknowledged."""
    assert process.stdout is not None
    for line in process.stdout:
        number, cursor = line.split()
        yield int(number), int(cursor)


@pytest.mark.parametrize("point", ["spool_begun", "spool_written", "spool_kept", "spool_dropping"])
def test_a_kill_at_any_step_loses_nothing_that_was_acknowledged(tmp_path: Path, point: str) -> None:
    acknowledged: dict[int, int] = {}
    begin = 0
    for _ in range(2):
        process = writer(tmp_path, begin, 1000, f"{point}:kill:2")
        for number, cursor in told(process):
            acknowledged[number] = cursor
            begin = number + 1
        assert process.wait(60) == -signal.SIGKILL
        process.communicate()
        found = read_all(spool_at(tmp_path, most=160))
        by_number: dict[int, list[dict[str, Any]]] = {}
        for record in found:
            assert record["kind"] == "message"
            by_number.setdefault(int(record["message_id"]), []).append(record)
        assert all(len(each) == 1 for each in by_number.values())
        oldest = min(by_number, default=0)
        for number, cursor in acknowledged.items():
            if number >= oldest:
                assert by_number[number][0]["cursor"] == cursor
        assert oldest == 0 or len(by_number) >= 140, "only the bound lets something go"
        # WhatsApp sends again what was not acknowledged: the next writer begins with it.
    spool = spool_at(tmp_path, most=160)
    spool.append(entries(range(begin, begin + 3)))
    assert numbers_of(read_all(spool))[-3:] == [begin, begin + 1, begin + 2]
    cursors = [record["cursor"] for record in read_all(spool)]
    assert cursors == list(range(cursors[0], cursors[0] + len(cursors)))
    assert spool.state()["lost"] == 0


def test_a_tail_torn_at_any_byte_is_cut_off_and_written_again(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([1, 2]))
    (file,) = segments(tmp_path)
    before = file.stat().st_size
    spool.append(entries([3], "ação 🙂"))
    spool.close()
    whole = file.read_bytes()
    for size in range(before, len(whole)):
        file.write_bytes(whole[:size])
        spool = spool_at(tmp_path)
        assert numbers_of(read_all(spool)) == [1, 2]
        assert spool.append(entries([2, 3], "ação 🙂")) == 1
        assert numbers_of(read_all(spool)) == [1, 2, 3]
        assert len(segments(tmp_path)) == 1 and not spool.damaged
        cursors = [record["cursor"] for record in read_all(spool)]
        assert cursors == list(range(cursors[0], cursors[0] + 3))
        spool.close()
        assert numbers_of(read_all(spool_at(tmp_path))) == [1, 2, 3]


def test_of_a_torn_line_nothing_is_left_behind_a_shorter_one(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([1]))
    spool.append(entries([2], "x" * 9000))
    spool.close()
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes()[:-5])
    spool = spool_at(tmp_path)
    assert spool.append(entries([3])) == 1
    spool.close()
    again = spool_at(tmp_path)
    assert numbers_of(read_all(again)) == [1, 3] and not again.damaged


def test_of_a_torn_line_that_was_its_files_first_nothing_is_left_either(tmp_path: Path) -> None:
    spool = spool_at(tmp_path)
    spool.append(entries([1]))
    newest = spool.newest
    spool.close()
    begun = tmp_path / "messages" / f"{newest + 1:016d}.log"
    begun.write_bytes(b"00000007\t%d\t" % (newest + 1) + b"x" * 9000)
    spool = spool_at(tmp_path)
    assert spool.append(entries([2])) == 1
    spool.close()
    again = spool_at(tmp_path)
    assert numbers_of(read_all(again)) == [1, 2] and not again.damaged


def test_what_a_killed_writer_let_go_is_counted_once(tmp_path: Path) -> None:
    acknowledged = 0
    process = writer(tmp_path, 0, 1000, "spool_dropping:kill:2", settles=False)
    for number, _ in told(process):
        acknowledged = number + 1
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()
    spool = spool_at(tmp_path, most=160)
    found = numbers_of(read_all(spool))
    lost = spool.state()["lost"]
    assert lost == 20 and found[0] == -20
    assert found[1:] == list(range(20, acknowledged + 1)), "the one that was kept before the kill"
