"""A disk for other programs that fails at any of their operations, or at which they are killed."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lacking import lacks

SOURCE = Path(__file__).with_name("failing.c")
KILL = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """`many` operations fail from the operation `first` on, with an errno or KILL."""

    first: int
    many: int
    error: int


def make_library(source: Path, library: Path) -> None:
    """For LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None:
        lacks("no C compiler (cc) is installed")
    told = [compiler, "-shared", "-fPIC", "-O1", "-o", library, source]
    subprocess.run(told, check=True, timeout=60)


class FailingOperations:
    """`environment` is for a program whose operations in `folder` are counted. That program has
    such an object of its own by `inside`."""

    def __init__(self, place: Path, folder: Path) -> None:
        library, self._file = place / "failing.so", place / "operations"
        make_library(SOURCE, library)
        self._file.write_bytes(bytes(32))
        self.environment = {
            "LD_PRELOAD": str(library),
            "WA_TESTS_OPERATIONS": str(self._file),
            "WA_TESTS_FOLDER": str(folder),
        }

    @classmethod
    def inside(cls) -> "FailingOperations":
        made = cls.__new__(cls)
        made._file = Path(os.environ["WA_TESTS_OPERATIONS"])
        return made

    def begin(self, fault: Fault | None) -> None:
        """Count from 0."""
        numbers = (0, fault.first, fault.many, fault.error) if fault else (0, 0, 0, 0)
        with self._file.open("r+b") as file:
            file.write(b"".join(each.to_bytes(8, "little", signed=True) for each in numbers))

    @property
    def count(self) -> int:
        """Operations so far."""
        return int.from_bytes(self._file.read_bytes()[:8], "little")
