"""A command that root runs as another user gets nothing of root's, whatever it does."""

import fcntl
import json
import os
import pty
import pwd
import shutil
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from agent.other_user import TIMED_OUT, User, owner_of, run_as
from tests.lacking import not_lent

CHECKOUT = Path(__file__).resolve().parents[1]
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or sys.executable


@pytest.fixture
def nobody() -> User:
    if os.geteuid() != 0:
        not_lent("needs root, who alone runs commands as another user")
    row = pwd.getpwnam("nobody")
    return User(row.pw_uid, row.pw_gid)


# All that a hostile process can do about the terminal of who started it.
TYPE = r"""
import fcntl, json, os, sys, termios
tried = [0, 1, 2]
try:
    tried.append(os.open("/dev/tty", os.O_RDWR))
except OSError:
    pass
for fd in tried:
    try:
        for byte in b"id\n":
            fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
    except OSError:
        continue
terminal = int(open("/proc/self/stat").read().rpartition(")")[2].split()[4])
inherited = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
print(json.dumps({"uid": os.getuid(), "terminal": terminal, "fds": len(inherited),
                  "environment": sorted(os.environ)}))
"""

SAFELY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from agent.other_user import User, run_as
left_open = os.open("/etc/passwd", os.O_RDONLY)
os.set_inheritable(left_open, True)
answer = run_as(User(int(sys.argv[2]), int(sys.argv[3])), sys.argv[4:], within=60)
open(os.environ["ANSWER"], "w").write(answer.text)
sys.exit(answer.status)
"""


def test_a_command_of_another_user_types_nothing_into_roots_terminal(
    nobody: User, tmp_path: Path
) -> None:
    ours, terminal = pty.openpty()
    answer = tmp_path / "answer"
    ids = (str(nobody.uid), str(nobody.gid))
    # A shell makes the terminal its own; what it starts is in the terminal's foreground.
    take = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    take += "os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", SAFELY, str(CHECKOUT), *ids, SYSTEM_PYTHON, "-c", TYPE]
    done = subprocess.run(
        [sys.executable, "-c", take, *command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "ANSWER": str(answer), "SECRET": "of root"},
        timeout=60,
        check=False,
    )
    typed = int.from_bytes(fcntl.ioctl(terminal, termios.FIONREAD, b"\0" * 4), sys.byteorder)
    os.close(ours)
    os.close(terminal)
    assert done.returncode == 0
    told = json.loads(answer.read_text())
    assert told["uid"] == nobody.uid
    assert told["terminal"] == 0
    assert typed == 0, "what the command typed would be root's next command"
    assert told["fds"] == 4, "its three, and the folder that it lists"
    assert "SECRET" not in told["environment"] and "HOME" not in told["environment"]


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        ("sleep 1000 & echo gone; exit 3", 3, "gone"),
        ("trap '' TERM HUP; echo begun; cat /dev/zero > /dev/null", TIMED_OUT, "begun\nsh did"),
        (r"printf 'a\033]0;b\007c\n\302\2331m\342\200\256d'", 0, "a?]0;b?c\n?1m?d"),
        ("echo x > /proc/self/fd/0 || echo refused", 0, "refused"),
    ],
    ids=["leaves a process", "never ends", "speaks to the terminal", "its input"],
)
def test_a_hostile_command_holds_root_up_with_nothing(
    nobody: User, script: str, status: int, text: str
) -> None:
    within = 2.0 if status == TIMED_OUT else 60.0
    answer = run_as(nobody, ["sh", "-c", script], within=within, feed=b"fed")
    assert answer.status == status
    assert text in answer.text[-200:]
    assert len(answer.text) <= 65536 and answer.text.replace("\n", "").isprintable()


def test_the_owner_of_the_way_writes_below_it(nobody: User, tmp_path: Path) -> None:
    folder = tmp_path / "own/deep/cache"
    for above in (*tmp_path.parents, tmp_path):
        if above.lstat().st_uid != 0:
            not_lent(f"needs a temporary folder of root's: {above}")
    assert owner_of(folder) is None
    folder.mkdir(parents=True)
    assert owner_of(folder) is None
    os.chown(tmp_path / "own", nobody.uid, nobody.gid)
    assert owner_of(folder) == nobody
