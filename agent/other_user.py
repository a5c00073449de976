"""Root runs a command as another user of this machine: the one way to do so in this program.

Any other process of that user can take the command over (ptrace). So the command gets nothing of
root's: no terminal (a process on root's terminal types into it), no open file, no environment but
proxies and certificates; root reads a limited part of what it says, for a limited time.

    python -I -m agent.other_user USER:GROUP SECONDS COMMAND...
"""

import grp
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMED_OUT = 124
"""The exit status of a command that root ended, as timeout(1) says it."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("WA_NODE", "NODE_EXTRA_CA_CERTS", "SSL_CERT_DIR", "SSL_CERT_FILE")
_MOST_TEXT = 64 * 1024


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def named(cls, name: str, group: str) -> "User":
        """Return the user; KeyError: this machine has no such user or group."""
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
    with suppress(OSError):  # what is not there yet is root's, as all before it
        for path in (*reversed(folder.parents), folder):
            if (status := path.lstat()).st_uid != 0:
                return User(status.st_uid, status.st_gid)
    return None


def run_as(
    user: User, command: Sequence[str | Path], *, within: float, feed: bytes = b""
) -> Answer:
    """Run a command; OSError: it cannot be run. One that does not end `within` is killed."""
    groups = ",".join(map(str, user.groups))
    line = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--no-new-privs"]
    line += [f"--groups={groups}" if groups else "--clear-groups", "--pdeathsig=KILL", "--"]
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(
            [*line, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
            umask=0o027,
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                child.communicate(feed, within)
            status = child.returncode
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(max(out.seek(0, os.SEEK_END) - _MOST_TEXT, 0))
        said = out.read(_MOST_TEXT).decode("utf-8", "replace").strip()
    text = "".join(c if c == "\n" or c.isprintable() else "?" for c in said)
    if status is None:
        late = f"{command[0]} did not end within {within:g} s"
        return Answer(TIMED_OUT, f"{text}\n{late}".strip())
    return Answer(status if status >= 0 else 128 - status, text)


def as_owner(folder: Path, words: Sequence[object], within: float, feed: bytes = b"") -> int | None:
    """Run `python -m WORDS` as the user whose folder it is and print its answer; the exit status.
    None: this process itself may write there."""
    if (owner := owner_of(folder)) is None:
        return None
    command = [sys.executable, "-I", "-m", *map(str, words)]
    answer = run_as(owner, command, within=within, feed=feed)
    print(answer.text, file=sys.stderr if answer.status else sys.stdout)
    return answer.status


def _environment() -> dict[str, str]:
    """Return the command's environment, which other processes of the user can read."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.lower().endswith("_proxy") or name.startswith("npm_config_")
    }
    return {"PATH": _PATH, "LANG": "C.UTF-8", **kept}


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
