"""What other tests wait by."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.waiting import GrowingLog, pause, without_a_core


@pytest.mark.parametrize(
    ("waited", "asking", "seconds"),
    [
        (0, 0, 0.02),
        (0.4, 0.001, 0.02),
        (1, 0.001, 0.05),
        (60, 0.001, 0.1),
        (0, 0.2, 0.6),
        (9, 5, 1),
    ],
)
def test_a_costly_or_long_probe_is_asked_less_often(
    waited: float, asking: float, seconds: float
) -> None:
    assert pause(waited, asking) == pytest.approx(seconds)


def test_a_log_is_read_though_its_last_character_is_not_all_there(tmp_path: Path) -> None:
    log = GrowingLog(tmp_path / "log")
    log.write_bytes("said → ".encode()[:-2])
    assert log.read_text().startswith("said ")
    with pytest.raises(UnicodeDecodeError):
        (tmp_path / "log").read_text(encoding="utf-8")


def test_two_that_share_a_core_are_each_without_it_for_half_of_the_time() -> None:
    core = str(min(os.sched_getaffinity(0)))
    turn = ["taskset", "--cpu-list", core, "sh", "-c", "while :; do :; done"]
    with subprocess.Popen(turn) as one, subprocess.Popen(turn) as other:
        try:
            begun = time.monotonic()
            while without_a_core(one.pid, other.pid) < 0.2:
                assert time.monotonic() < begun + 30
                time.sleep(0.02)
        finally:
            one.kill()
            other.kill()
    assert without_a_core(one.pid) == 0.0, "it has ended"
