"""A wall clock of its own for some programs, which a test steps while they run.

The other clocks, and the files' times, are those of the machine.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.standin.failing_operations import make_library

SOURCE = Path(__file__).with_name("stepped.c")


class SteppedClock:
    """Made by `stepped_clock`; `command` runs another command that has it."""

    def __init__(self, folder: Path) -> None:
        library, self._file = folder / "stepped.so", folder / "off"
        make_library(SOURCE, library)
        self.command = ["env", f"LD_PRELOAD={library}", f"WA_TESTS_CLOCK={self._file}"]
        self._file.write_bytes(bytes(8))

    def step(self, seconds: int) -> None:
        """So far ahead of the machine's clock from now on; 0: right again."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


@contextmanager
def stepped_clock() -> Iterator[SteppedClock]:
    with tempfile.TemporaryDirectory(prefix="wa-clock-", dir="/tmp") as place:
        yield SteppedClock(Path(place))
