"""Worker and agent are two users of one group: what a browser keeps to itself is opened to it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.worker.run import share_session
from tests.lacking import not_lent
from tests.vault.conftest import in_python

GROUP, WORKER, AGENT = 64100, 64101, 64102

BROWSER = """
import os, sys
from pathlib import Path
os.umask(0o077)
session = Path(sys.argv[1]) / "session"
store = session / "profile/Default/IndexedDB/https_x_0.indexeddb.leveldb"
store.mkdir(parents=True)
for name in ("CURRENT", "MANIFEST-000001", "000003.log"):
    (store / name).write_bytes(b"x")
(session / "web.json").write_text('{"version": 1, "paired": true, "account": "1", "page": ""}')
(session / "profile" / "SingletonLock").symlink_to(sys.argv[2])
os.link(sys.argv[2], session / "profile" / "linked")
"""
SHARE = """
import sys
from pathlib import Path
from agent.worker.run import share_session
print(share_session(Path(sys.argv[1])), share_session(Path(sys.argv[1])))
"""
SNAPSHOT = """
import sys
from pathlib import Path
from agent.core.model import Instance, InstanceId
from agent.vault.snapshots import Subject, take_snapshot
wanted = Instance(InstanceId("a"), "web", True, {}, 1.0)
print(take_snapshot(Path(sys.argv[1]), Subject(wanted, True, "1", "a test")).manifest.state)
"""
EMPTY = """
import shutil, sys
shutil.rmtree(sys.argv[1] + "/session")
print("empty")
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    if os.geteuid() != 0:
        not_lent("needs root to become other users")

    def as_user(user: int, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return in_python(code, *arguments, user=user, group=GROUP, extra_groups=())

    if as_user(AGENT, "import agent.errors").returncode:
        not_lent("this checkout cannot be read by other users")
    return as_user


@pytest.fixture
def root() -> Iterator[Path]:
    """As tmpfiles and the vault lay it out; tmp_path is closed to other users."""
    base = Path(tempfile.mkdtemp(prefix="wa-share-"))
    base.chmod(0o755)
    made = base / "sessions"
    for path, mode in ((made, 0o2770), (made / "a", 0o770), (made / "a/session", 0o770)):
        path.mkdir()
        if os.geteuid() == 0:
            os.chown(path, AGENT, GROUP)
        path.chmod(mode)
    yield made
    shutil.rmtree(base)


def test_two_users_share_what_a_browser_kept_to_itself(run: Run, root: Path) -> None:
    folder = root / "a"
    outside = root.parent / "outside"
    outside.mkdir()
    os.chown(outside, WORKER, GROUP)
    secret = outside / "secret"
    secret.write_bytes(b"x")
    os.chown(secret, WORKER, GROUP)
    secret.chmod(0o600)
    made = run(WORKER, BROWSER, folder, secret)
    assert made.returncode == 0, made.stderr
    assert "permission" in run(AGENT, SNAPSHOT, root).stderr
    assert "ermission" in run(AGENT, EMPTY, folder).stderr

    shared = run(WORKER, SHARE, folder)
    assert shared.returncode == 0, shared.stderr
    first, second = map(int, shared.stdout.split())
    assert first >= 8
    assert second == 0
    # Neither a link nor a second name opens what lies elsewhere.
    assert secret.stat().st_mode & 0o777 == 0o600
    (folder / "session/profile/linked").unlink()
    taken = run(AGENT, SNAPSHOT, root)
    assert taken.stdout.strip() == "whole", taken.stderr
    assert run(AGENT, EMPTY, folder).stdout.strip() == "empty"


def test_a_planted_session_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch(mode=0o600)
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o770)
    (tmp_path / "a/session").symlink_to(tmp_path / "elsewhere")
    assert share_session(tmp_path / "a") == 0
    assert (tmp_path / "elsewhere/file").stat().st_mode & 0o777 == 0o600
