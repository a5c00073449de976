"""A plugin that finds the processes that tests left behind.

Every process that a test starts inherits two environment variables: one names this run of pytest,
one names the test. A process that outlived all tests is found by the first, reported with the
second, and killed; the run then fails.
"""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forked

RUN = "WA_TESTS_RUN"
TEST = "WA_TESTS_TEST"
_TEST = f"{TEST}=".encode()
ENDING = 5.0
"""Seconds that a process which was asked to end has for it, after the last test."""


@dataclass(frozen=True)
class Leftover:
    pid: int
    test: str
    command: str


class Leftovers:
    """Registered by conftest.py in each process that runs tests."""

    def __init__(self) -> None:
        self.run = uuid.uuid4().hex
        self.found: list[Leftover] = []
        os.environ[RUN] = self.run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        os.environ[TEST] = item.nodeid

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        deadline = time.monotonic() + ENDING
        while (found := list(leftovers(self.run))) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.found = found
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["leftovers"] = [sentence(process) for process in found]


def sentence(process: Leftover) -> str:
    return f"{process.test} left process {process.pid} behind: {process.command}"


def leftovers(run: str) -> Iterator[Leftover]:
    """Every other live process that carries the name of this run in its environment."""
    mark = f"{RUN}={run}".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes().split(b"\0")
            if mark not in environment:
                continue
            test = forked.started_by(int(folder.name)) or next(
                (v[len(TEST) + 1 :].decode() for v in environment if v.startswith(_TEST)), "?"
            )
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").strip()
            if command:  # a zombie has none: it has ended, and its parent will read how
                yield Leftover(int(folder.name), test, command.decode(errors="replace")[:200])
