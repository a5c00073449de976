"""A worker's process: its start, its pidfd, and the notify socket that hears this process only."""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.files import short_path
from agent.host.life import UNKNOWN, Exit

_CREDENTIALS = struct.Struct("3i")
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)
_PING = {"WATCHDOG": "1"}
# For the agent alone: its own manager's socket, its sockets, its settings.
_AGENTS_OWN = (
    *("INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_", "NOTIFY_SOCKET", "RUNTIME_DIRECTORY"),
    *("WATCHDOG_", "WA_AGENT_"),
)
_CLEAN_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


@dataclass(frozen=True, slots=True)
class Places:
    run_dir: Path
    session_root: Path
    cache_root: Path | None = None
    """None = beside the sessions, as a worker finds by itself."""
    members_root: Path | None = None
    """Of the sessions that one worker may hold several of."""

    def environment(self, folder: Path, run: str, watchdog: float) -> dict[str, str]:
        """The same variables that systemd sets."""
        paths = {
            "WA_CACHE_PATH": self.cache_root,
            "WA_MEMBERS_ROOT": self.members_root,
            "WA_SESSION_ROOT": self.session_root,
            "NOTIFY_SOCKET": folder / "notify",
            "RUNTIME_DIRECTORY": folder,
        }
        ours = os.environ.items()
        return {
            **{name: value for name, value in ours if not name.startswith(_AGENTS_OWN)},
            **{name: str(path.absolute()) for name, path in paths.items() if path is not None},
            "WATCHDOG_USEC": str(round(watchdog * 1_000_000)),
            "INVOCATION_ID": run,
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "1",
        }


def spawn(arguments: list[str], environment: Mapping[str, str], out: int) -> int:
    """A fresh Python in a session of its own; returns its pid. Output and errors go to `out`."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", *arguments],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, out, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[*_CLEAN_SIGNALS, signal.SIGCHLD, signal.SIGXFSZ],
    )


class ProcessChild:
    """Its notices come to `path`, where those of an earlier agent's child arrived as well."""

    pid = 0

    def __init__(
        self,
        path: Path,
        notice: Callable[[Mapping[str, str]], None],
        clear: Callable[[int], Awaitable[int]],
    ) -> None:
        """`notice` hears of the process that `watch` names; `clear` ends what it leaves."""
        self._path, self._notice, self._clear = path, notice, clear
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = self._loop.create_future()
        self._folder, self._pidfd = path.parent.stat().st_ino, -1
        self._open()

    def watch(self, pid: int) -> "ProcessChild":
        """OSError: it is gone already."""
        self._pidfd = os.pidfd_open(pid)
        self.pid = pid
        self._loop.add_reader(self._pidfd, self._end)
        return self

    def send(self, number: signal.Signals) -> None:
        """To this very process; nothing when it is gone."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
                if number is not signal.SIGKILL:
                    # A frozen process gets no other signal.
                    signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def listen(self, *, at_once: bool) -> None:
        """200 workers send a thousand pings a minute, and each would be a turn of the loop."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._sock)
            if at_once:
                self._loop.add_reader(self._sock, self._read)

    def hears(self) -> bool:
        """A socket that is no longer at its path, as after a cleaner of old files, heard nothing:
        it is made again, but in no other folder that stands there now."""
        self._read_all()
        with suppress(OSError):
            if self._path.lstat().st_ino == self._inode:
                return True
        with suppress(OSError):
            if self._path.parent.stat().st_ino == self._folder:
                self._loop.remove_reader(self._sock)
                self._sock.close()
                self._open()
        return False

    async def clear(self) -> int:
        return await self._clear(self.pid)

    def release(self) -> None:
        for fd in (self._pidfd, self._sock.fileno()):
            if fd >= 0:
                self._loop.remove_reader(fd)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._sock.close()

    def _open(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._path.unlink(missing_ok=True)
            with short_path(self._path) as name:
                self._sock.bind(name)
            self._path.chmod(0o600)
            self._inode = self._path.lstat().st_ino
        except OSError:
            self._sock.close()
            raise

    def _read_all(self) -> None:
        with suppress(OSError):
            for _ in range(100):
                self._read()

    def _read(self) -> None:
        """One at a time: a flood must not hold up the loop."""
        text, sent, _, _ = self._sock.recvmsg(4096, _ROOM)
        said: Mapping[str, str] = _PING
        if text != b"WATCHDOG=1":
            lines = text.decode(errors="replace").splitlines()
            said = dict(line.split("=", 1) for line in lines if "=" in line)
        for _level, _kind, credentials in sent:
            if _CREDENTIALS.unpack(credentials)[0] == self.pid:
                self._notice(said)

    def _end(self) -> None:
        self._read_all()
        how = UNKNOWN
        with suppress(ChildProcessError):  # an earlier agent's
            # By pidfd: no other wait can take the status away in between.
            if (end := os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)) is not None:
                how = _exit_of(end)
        self.release()
        self.ended.set_result(how)


def _exit_of(end: os.waitid_result) -> Exit:
    if end.si_code == os.CLD_EXITED:
        return Exit("exit-code" if end.si_status else "", end.si_status)
    if end.si_status in _CLEAN_SIGNALS:
        return Exit("", end.si_status)
    return Exit("core-dump" if end.si_code == os.CLD_DUMPED else "signal", end.si_status)


def listener(path: Path) -> int:
    """The process that listens at this socket, as the kernel names it. OSError: there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, short_path(path) as name:
        sock.setblocking(False)
        sock.connect(name)
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(peer)[0])
