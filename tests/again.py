"""Whether a failed test fails always: each runs once more, alone, when the run is over.

One that passes then is named FLAKY. The run stays red: such a test, or what it tests, is repaired.
"""

import subprocess
import sys

import pytest

AT_MOST = 20
"""Failed tests that run once more: where more of them fail, something else is broken."""


class Again:
    """Registered by conftest.py, with `--again`, in the process that prints the summary."""

    def __init__(self) -> None:
        self.failed: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        if not 0 < len(self.failed) <= AT_MOST:
            return
        terminalreporter.section("failed tests, once more and alone")
        for test in self.failed:
            word = "FLAKY" if passes_alone(test, config) else "FAILED AGAIN"
            terminalreporter.write_line(f"{word} {test}")


def passes_alone(test: str, config: pytest.Config) -> bool:
    """With the plugins and the settings of this run, in a process that runs nothing else."""
    plugins = [option for plugin in config.option.plugins for option in ("-p", plugin)]
    root = str(config.rootpath)
    settings = ["-c", str(config.inipath), "--rootdir", root, "-n", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, *settings, f"{root}/{test}"],
        cwd=config.invocation_params.dir,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode == pytest.ExitCode.OK
