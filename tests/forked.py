"""Agents that are forked from one process which has imported what `wa-agent run` imports.

An agent's start is mostly imports: a run of the tests starts thousands. From the first line of
`main` on, a forked agent is like any other one: its own pid, environment, folder and output, also
what `/proc` shows of it where the tests are root's; there its workers are forked as well.
"""

import asyncio
import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from tests.forked_workers import end_at_once, fork_workers, look_like

TOP = Path(__file__).resolve().parents[1]
_PACKET = 1 << 18
_STARTUP = ("PYTHON", "LD_", "FROZENLIST_")
"""Variables that are read before `main`: a process with others of these cannot be forked."""


class ForkedProcess:
    """What tests ask of an `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, ended: int, forks: "_Forks", test: str) -> None:
        self.pid = pid
        self.test = test
        self._ended = ended
        """Readable from its end on."""
        self._forks = forks
        self._status: int | None = None

    @property
    def returncode(self) -> int | None:
        if self._status is None and select.select([self._ended], [], [], 0)[0]:
            self._status = self._forks.status_of(self.pid)
            os.close(self._ended)
        return self._status

    async def wait(self) -> int:
        while (status := self.returncode) is None:
            loop, over = asyncio.get_running_loop(), asyncio.Event()
            ended = os.dup(self._ended)
            loop.add_reader(ended, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(ended)
                os.close(ended)
        return status

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class _Forks:
    """The process that agents are forked from, seen by the tests."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=TOP,
                env=_environment or None,
            )
        self._statuses: dict[int, int] = {}
        self.started: dict[int, ForkedProcess] = {}

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], first: str, out: int
    ) -> "ForkedProcess":
        asked = {"argv": list(argv), "env": dict(env), "cwd": str(Path.cwd()), "first": first}
        socket.send_fds(self._socket, [json.dumps(asked).encode()], [out])
        while True:
            if (forked := self._receive()) is not None:
                pid, ended = forked
                test = env.get("WA_TESTS_TEST", "?")
                self.started[pid] = ForkedProcess(pid, ended, self, test)
                return self.started[pid]

    def status_of(self, pid: int) -> int:
        while pid not in self._statuses:
            self._receive()
        return self._statuses.pop(pid)

    def _receive(self) -> tuple[int, int] | None:
        """One message: a process that was forked and its pidfd, or the end of one."""
        packet, files, _, _ = socket.recv_fds(self._socket, _PACKET, 1)
        if not packet:
            raise RuntimeError("the process that agents are forked from has ended")
        told = json.loads(packet)
        if "status" in told:
            self._statuses[told["pid"]] = told["status"]
            return None
        return told["pid"], files[0]

    def end(self) -> None:
        self._socket.close()
        self._process.wait(20)


_forks: list[_Forks] = []
_environment: dict[str, str] = {}
"""Of the tests before the first of them has changed a variable."""


def begin() -> None:
    """Before all tests. Nothing is started until an agent is."""
    _environment.update(os.environ)


def can_fork(env: Mapping[str, str]) -> bool:
    """Whether Python itself would start with these variables as it did when the tests began."""
    return _at_startup(env) == _at_startup(_environment or os.environ)


def _at_startup(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_STARTUP)}


def fork_agent(
    argv: Sequence[str], env: Mapping[str, str], out: IO[bytes], first: str = ""
) -> ForkedProcess:
    """`wa-agent ARGV`, after the Python of `first`."""
    if not _forks:
        _forks.append(_Forks())
        atexit.register(end)
    return _forks[0].start(argv, env, first, out.fileno())


def started_by(pid: int) -> str | None:
    """Which test has started it."""
    started = _forks[0].started.get(pid) if _forks else None
    return started and started.test


def end() -> None:
    """At the end of all tests. What was forked lives on."""
    while _forks:
        _forks.pop().end()


def serve(sock: socket.socket) -> int:
    """Fork on demand, until the tests' end of the socket is closed."""
    os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")  # as agent/__main__.py does
    import agent.cli.main
    import agent.daemon.main
    import agent.host.process
    import agent.worker.__main__  # noqa: F401
    from agent.config.tables import all_tables
    from agent.engines.catalog import CATALOG, load_engine

    for entry in CATALOG.values():
        if not entry.remote:
            load_engine(entry.name)
    all_tables.__wrapped__()  # not kept: a test may change the defaults

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl+C is for the agents
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    gc.collect()
    gc.freeze()  # what is never looked through stays shared
    while True:
        ready, _, _ = select.select([sock, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(sock)
        if sock in ready:
            packet, files, _, _ = socket.recv_fds(sock, _PACKET, 1)
            if not packet:
                return 0
            asked = json.loads(packet)
            pid = os.fork()
            if pid == 0:
                _become_agent(asked, files[0], (sock.fileno(), woken, wake))
            ended = os.pidfd_open(pid)
            socket.send_fds(sock, [json.dumps({"pid": pid}).encode()], [ended])
            os.close(ended)
            os.close(files[0])


def _reap(sock: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            status = os.waitstatus_to_exitcode(found[1])
            sock.send(json.dumps({"pid": found[0], "status": status}).encode())


def _become_agent(asked: Mapping[str, object], out: int, ours: Sequence[int]) -> NoReturn:
    """What a new process has when `main` begins."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for file in (out, *ours):
        os.close(file)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    time.tzset()
    argv: list[str] = list(asked["argv"])  # type: ignore[call-overload]
    shown = look_like([sys.executable, "-m", "agent", *argv], os.environ)
    if shown and argv[:1] in ([], ["run"]):  # the other commands start no worker
        fork_workers()
    exec(str(asked["first"]), {})
    from agent.__main__ import main

    sys.argv = ["wa-agent", *argv]
    status = main()
    end_at_once(status)


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
