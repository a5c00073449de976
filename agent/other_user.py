"""Root runs a command as another user of this machine: the one way to do so in this program.

Any other process of that user can take the command over (ptrace). So the command gets nothing of
root's: no terminal (a process on root's terminal types into it), no open file, no environment but
proxies and certificates; root reads a limited part of what it says, for a limited time.

    python -I -m agent.other_user USER:GROUP SECONDS COMMAND...
"""

import fcntl
import grp
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

TIMED_OUT = 124
"""The exit status of a command that root ended, as timeout(1) says it."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("WA_NODE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_DIR", "SSL_CERT_FILE")
_MOST_TEXT = 64 * 1024
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def named(cls, name: str, group: str) -> "User":
        """KeyError: this machine has no such user or group."""
        gid = grp.getgrnam(group).gr_gid
        return cls(pwd.getpwnam(name).pw_uid, gid, tuple(os.getgrouplist(name, gid)))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    text: str
    """The end of what the command printed; "?" stands for what a terminal would act on."""


def owner_of(folder: Path) -> User | None:
    """As whom root must write below the folder; None: no other user can change the way to it.

    That is the owner of the first folder on its path that is not root's: that user could put a
    link in root's way.
    """
    if os.geteuid() != 0:
        return None
    for path in (*reversed(folder.parents), folder):
        try:
            status = path.lstat()
        except OSError:  # not there yet: root's, as all before it
            return None
        if status.st_uid != 0:
            return User(status.st_uid, status.st_gid)
    return None


def run_as(
    user: User, command: Sequence[str | Path], *, within: float, feed: bytes = b""
) -> Answer:
    """OSError: it cannot be run. A command that does not end `within` is killed."""
    groups = ",".join(map(str, user.groups))
    line = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--no-new-privs"]
    line += [f"--groups={groups}" if groups else "--clear-groups", "--pdeathsig=KILL", "--"]
    with _to_read(feed) as stdin:
        child = subprocess.Popen(
            [*line, *map(str, command)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            umask=0o027,
            start_new_session=True,
        )
    try:
        said, ended = _listen(child, time.monotonic() + within)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
    text = _plain(said)
    if ended:
        return Answer(status if status >= 0 else 128 - status, text)
    return Answer(TIMED_OUT, f"{text}\n{command[0]} did not end within {within:g} s".strip())


def _listen(child: subprocess.Popen[bytes], until: float) -> tuple[bytes, bool]:
    """What it says to its end, and whether it ended. What it started may live on: unheard."""
    assert child.stdout is not None
    said, ended = b"", False
    with child.stdout as pipe:
        os.set_blocking(pipe.fileno(), False)
        while time.monotonic() < until:
            ended = child.poll() is not None
            if select.select([pipe], [], [], 0 if ended else _LOOK)[0]:
                if part := os.read(pipe.fileno(), _MOST_TEXT):
                    said = (said + part)[-_MOST_TEXT:]
                    continue
                break  # it closed its output, and may run on
            if ended:
                break
    if not ended:
        with suppress(subprocess.TimeoutExpired):
            ended = child.wait(max(until - time.monotonic(), 0)) is not None
    return said, ended


@contextmanager
def _to_read(content: bytes) -> Iterator[int]:
    """A file in memory that its reader cannot change."""
    fd = os.memfd_create("feed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd


def _environment() -> dict[str, str]:
    """Other processes of the user can read it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.lower().endswith("_proxy") or name.startswith("npm_config_")
    }
    return {"PATH": _PATH, "LANG": "C.UTF-8", **kept}


def _plain(said: bytes) -> str:
    text = said.decode("utf-8", "replace").strip()
    return "".join(c if c == "\n" or c.isprintable() else "?" for c in text)


def main(argv: list[str]) -> int:
    if len(argv) < 3:
        print("usage: python -I -m agent.other_user USER:GROUP SECONDS COMMAND...", file=sys.stderr)
        return 2
    name, _, group = argv[0].partition(":")
    try:
        answer = run_as(User.named(name, group), argv[2:], within=float(argv[1]))
    except (KeyError, OSError) as error:
        print(f"cannot run {argv[2]} as {argv[0]}: {error}", file=sys.stderr)
        return 126
    if answer.text:
        print(answer.text)
    return answer.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
