"""Where the time of a run went, printed at its end: seconds of each room, and processor time."""

import resource
from collections import defaultdict
from typing import Any

import pytest

from tests.order import remember, scope


class Durations:
    """Registered by conftest.py in the process that prints the summary."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.tests: dict[str, int] = defaultdict(int)
        self.scopes: dict[str, float] = defaultdict(float)
        self.spent = 0.0

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A process of xdist has ended, and says how much processor time it took."""
        self.spent += getattr(node, "workeroutput", {}).get("spent", 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        room = room_of(report.nodeid)
        self.scopes[scope(report.nodeid)] += report.duration
        self.seconds[room] += report.duration
        self.tests[room] += report.when == "call"

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if ended and not session.shouldstop and not session.shouldfail:
            remember(session.config, self.scopes)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("where the time went")
        for room, seconds in sorted(self.seconds.items(), key=lambda row: -row[1]):
            terminalreporter.write_line(f"{seconds:8.1f} s  {self.tests[room]:5} tests  {room}")
        spent = self.spent or processor_time()
        terminalreporter.write_line(
            f"{spent:8.1f} s  of processor time, with all that was waited for"
        )


def processor_time() -> float:
    """Seconds of this process, and of the children that it waited for."""
    uses = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def room_of(nodeid: str) -> str:
    """The folder of a test's file; the file itself where it stands in tests/."""
    path = nodeid.split("::", maxsplit=1)[0]
    folder, _, name = path.rpartition("/")
    return name if folder == "tests" else folder
