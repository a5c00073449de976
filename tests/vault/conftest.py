"""The vault's tests share instances, and children that die or have no rights."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Instance, InstanceId
from agent.vault.identity import Identity, create, replace_identity
from agent.vault.snapshots import Subject
from tests.lacking import not_lent

REPOSITORY = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def root(tmp_path):
    (made := tmp_path / "sessions").mkdir(mode=0o700)
    return made


@pytest.fixture
def sales():
    return Instance(InstanceId("sales"), "sandbox", True, {"scan": "auto"}, 1_700_000_000.0)


def sandbox_file(**changes):
    """A session file as the sandbox engine writes it."""
    return json.dumps({"paired": True, "account": "49151", "device": "d"} | changes).encode()


def contents(folder):
    """Every plain file below a folder, by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def session(root, sales):
    """The session folder of a paired instance, with files in folders."""
    folder = create(root, sales)
    replace_identity(root, Identity(sales, True, "49151"))
    (folder / "session" / "sandbox.json").write_bytes(sandbox_file())
    (folder / "session" / "keys" / "empty").mkdir(parents=True)
    (folder / "session" / "keys" / "one").write_bytes(bytes(range(256)) * 3000)
    (folder / "session" / "keys" / "none").write_bytes(b"")
    return folder / "session"


@pytest.fixture
def subject(sales):
    return Subject(sales, True, "49151", "a test")


def in_python(
    code: str, *arguments: object, failpoint: str = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run code in another Python, to its end or to its failpoint."""
    own = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **own, "WA_FAILPOINT": failpoint},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


@pytest.fixture
def open_root():
    """A session root that another user can reach, tmp_path being closed to others."""
    base = Path(tempfile.mkdtemp(prefix="wa-vault-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def as_nobody():
    """Run code as a user without rights; return what it prints."""
    if os.geteuid() != 0:
        not_lent("needs root to become another user")

    def run(code: str, *arguments: object) -> str:
        done = in_python(code, *arguments, user=NOBODY, group=NOBODY, extra_groups=())
        if "Permission denied" in done.stderr and not done.stdout:
            not_lent("this checkout cannot be read by other users")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
