"""The disk that tests turn read-only comes back, whatever else has it mounted."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import FailingDisk


@pytest.mark.parametrize("command", [["cat"], ["unshare", "--mount", "cat"]])
def test_a_mended_disk_has_its_files_and_takes_writes(
    failing_disk: FailingDisk, command: list[str]
) -> None:
    """Also while a mount namespace of another process has a copy of its mount."""
    kept = failing_disk.folder / "kept"
    with kept.open("w") as file:
        file.write("before")
        file.flush()
        os.fsync(file.fileno())
    pipe, silent = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=silent) as holder:
        deadline = time.monotonic() + 30
        while Path(f"/proc/{holder.pid}/comm").read_text() != "cat\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        failing_disk.fail()
        with pytest.raises(OSError, match="Read-only"):
            (failing_disk.folder / "new").write_text("x")
        failing_disk.mend()
        assert kept.read_text() == "before"
        (failing_disk.folder / "new").write_text("after")
