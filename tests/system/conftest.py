"""One booted machine for all tests of this folder, with wa-agent installed by scripts/install."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lacking import lacks, not_lent
from tests.ports import free_port
from tests.system.bed import CHECKOUT, SOURCE, Bed

STANDIN = SOURCE / "tests/host/standin.py"
PYTHON = "/opt/wa-agent/venv/bin/python"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith("tests/system/"):
            item.add_marker(pytest.mark.systemd)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    for bed in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(bed, Bed):
            if bed.init:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    report.sections.append(("journal", bed.journal("-n", "150")))
            report.sections.append(("console", bed.messages()))
    return report


@pytest.fixture(scope="session", autouse=True)
def told_to_end() -> None:
    """A test run that gets SIGTERM still unmounts its machines."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def machine() -> Iterator[Bed]:
    """Installed in the tree while nothing runs, as for an image; booted afterwards."""
    if shutil.which("systemd-nspawn") is None:
        lacks("this machine has no systemd-nspawn")
    if os.geteuid() != 0:
        not_lent("needs root to boot a machine of its own")
    bed = Bed.make()
    try:
        done = bed.chroot(CHECKOUT / "scripts/install")
        assert done.returncode == 0, done.stdout + done.stderr
        port = free_port()
        bed.port = port
        bed.write(
            "/etc/systemd/system/wa-agent-http.socket.d/bed.conf",
            f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n",
        )
        bed.write("/etc/wa-agent/agent.toml", "[start]\nstagger = 0.1\n")
        bed.boot()
        yield bed
    finally:
        bed.close()


@pytest.fixture
def bed(machine: Bed, request: pytest.FixtureRequest) -> Bed:
    if not machine.init:
        machine.boot()
    if machine.agent_rests and "standin" not in request.fixturenames:
        machine.agent_rests = False
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "reset-failed")
        machine.run("systemctl", "start", "wa-agent.socket", "wa-agent.service")
    return machine


@pytest.fixture
def standin(bed: Bed) -> Iterator[Callable[..., None]]:
    """Make the units of these workers run the stand-in worker; undone afterwards.

    The agent is stopped, and rests until a test does without the stand-in: these look at the
    units without it, and to start it for each of them takes longer than most of them.
    """
    made: list[Path] = []
    ours = ("wa-instance@*.service", "wa-pack@*.service")
    bed.run("systemctl", "stop", "wa-agent.service", within=120)
    bed.agent_rests = True
    bed.try_run("systemctl", "stop", *ours, within=120)
    bed.run("systemctl", "reset-failed")
    # Those that are active, have a job or failed. What is inactive may stay loaded.
    bed.until(lambda: not bed.run("systemctl", "list-units", "--no-legend", *ours).strip())
    shutil.copy(STANDIN, bed.root / "opt/standin.py")

    def make(*ids: str, more: str = "", kind: str = "wa-instance") -> None:
        for id in ids:
            folder = f"/etc/systemd/system/{kind}@{id}.service.d"
            command = f"{PYTHON} /opt/standin.py %i"
            text = f"[Service]\nExecStart=\nExecStart={command}\n{more}"
            made.append(bed.write(f"{folder}/standin.conf", text).parent)
        bed.run("systemctl", "daemon-reload")

    yield make
    bed.try_run("systemctl", "unmask", "--runtime", "wa-instance@good.service")
    bed.try_run("systemctl", "stop", *ours, within=120)
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
