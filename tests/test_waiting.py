"""What other tests wait by."""

from pathlib import Path

import pytest

from tests.waiting import GrowingLog, pause


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
