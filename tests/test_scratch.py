"""Folders for keys of sessions: for one user alone, and not left behind by a kill."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent.vault.archives import scratch

HOLDS = """
import os, signal, sys
from agent.vault.archives import scratch
with scratch() as folder:
    (folder / "creds.json").write_text("a key")
    print(folder, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_it_is_for_its_user_alone_and_gone_afterwards(home: Path) -> None:
    with scratch() as folder:
        (folder / "inner").mkdir()
        assert (folder.parent, folder.stat().st_mode & 0o777) == (home, 0o700)
    assert list(home.iterdir()) == []


def test_what_a_killed_command_left_is_deleted_by_the_next_one_and_what_is_in_use_stays(
    home: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip()) / "creds.json"
        with scratch():
            assert left.exists(), "its command runs"
        other.communicate("\n")
    assert left.exists(), "it was killed"
    with scratch() as folder:
        assert list(home.iterdir()) == [folder]
