"""The worker of a backend in its hardened unit: the real engine, a stand-in for its server."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent.cli.backends.drop_in import drop_in_path, render_reach
from tests.system.bed import SOURCE, Bed
from tests.system.conftest import PYTHON
from tests.system.fleet import AGENT, Fleet

UNIT = "wa-backend@evo.service"
COUNT = 20
IDS = tuple(f"line-{number:04}" for number in range(COUNT))
CONFIG = "/etc/wa-agent/agent.toml"
PLAIN = "[start]\nstagger = 0.1\nspread = 0.0\n"


@dataclass
class Evo:
    bed: Bed
    fleet: Fleet

    def show(self, name: str) -> str:
        return self.bed.show(UNIT, name)

    def run(self) -> str:
        return self.show("InvocationID")

    def until_all_connected(self) -> None:
        self.fleet.until_connected(60)
        wanted = f"{COUNT} of {COUNT} connected; server up (2.3.7)"
        self.bed.until(lambda: self.show("StatusText") == wanted, within=40)


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    """It listens on the loopback that the bed shares with the outside."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.standin.evolution", "--instances", str(COUNT)],
        cwd=SOURCE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    words = process.stdout.readline().split()
    yield dict(zip(words[::2], words[1::2], strict=True))
    process.terminate()
    process.wait(60)
    process.stdout.close()


@pytest.fixture
def evo(bed: Bed, server: dict[str, str]) -> Iterator[Evo]:
    declared = {"name": "evo", "engine": "evolution", "url": server["url"], "key": server["key"]}
    lines = [f"{key} = {json.dumps(value)}" for key, value in declared.items()]
    configure(bed, PLAIN + "\n".join(["[[backend]]", *lines, 'adopt = ["*"]', ""]))
    found = Evo(bed, Fleet(bed, IDS))
    yield found
    for id in found.fleet.list():
        if id in IDS:
            found.fleet.forget(id)
    configure(bed, PLAIN)
    bed.try_run("systemctl", "stop", UNIT, within=60)
    bed.try_run("rm", "-r", "/var/lib/wa-agent/backends/evo")


def configure(bed: Bed, text: str) -> None:
    bed.run("sh", "-c", f"cat > {CONFIG} <<'END'\n{text}END")
    bed.run("systemctl", "reset-failed")
    bed.run("systemctl", "restart", "wa-agent.socket", AGENT)
    Fleet(bed, ()).until_it_answers()


# What a backend's worker can reach from inside its unit, tried by the unit itself.
PROBE = """\
import json, os, pathlib, subprocess
def can(act):
    try: act(); return True
    except OSError: return False
def read(path): return lambda: pathlib.Path(path).read_text()
def write(path): return lambda: pathlib.Path(path).write_text("x")
journal = subprocess.run(
    ["journalctl", "--lines=1", "--output=cat", "--unit=dbus.service"], capture_output=True
)
print("PROBE " + json.dumps({
    "own": can(write("/var/lib/wa-agent/backends/probe/kept/new")),
    "own_link": can(write("/run/wa-backend/probe/x")),
    "backends": sorted(os.listdir("/var/lib/wa-agent/backends")),
    "state": sorted(os.listdir("/var/lib/wa-agent")),
    "links": sorted(os.listdir("/run/wa-backend")),
    "other_links": can(lambda: os.listdir("/run/wa-instance")),
    "settings": can(read("/etc/wa-agent/agent.toml")),
    "bus": os.access("/run/dbus/system_bus_socket", os.W_OK),
    "log": can(read("/home/deploy/.pm2/logs/app.log")),
    "write_log": can(write("/home/deploy/.pm2/logs/app.log")),
    "journal": bool(journal.stdout.strip()),
    "auth": can(read("/srv/wt/auth/7/creds.json")),
    "write_auth": can(write("/srv/wt/auth/7/session-1.json")),
    "home": can(read("/home/deploy/secret")),
    "write_srv": can(write("/srv/wt/other")),
}))
"""


@pytest.fixture
def probe(bed: Bed) -> Iterator[Any]:
    """Start the unit with the probe in it, with this drop-in or none; returns what it found."""
    folder = "/etc/systemd/system/wa-backend@probe.service.d"
    place = "/var/lib/wa-agent/backends"
    for path in (f"{place}/probe", f"{place}/probe/kept", f"{place}/other"):
        bed.run("install", "-d", "-m", "2770", "-o", "wa-agent", "-g", "wa", path)
    bed.run("install", "-d", "-m", "755", "/home/deploy/.pm2/logs", "/srv/wt/auth")
    bed.run("install", "-d", "-o", "wa-worker", "/srv/wt/auth/7")
    for path in ("/home/deploy/.pm2/logs/app.log", "/home/deploy/secret"):
        bed.run("sh", "-c", f"echo x > {path}")
    bed.run("install", "-o", "wa-worker", "/etc/hostname", "/srv/wt/auth/7/creds.json")

    def found(reach: str) -> dict[str, Any]:
        bed.write("/opt/probe.py", PROBE)
        oneshot = f"[Service]\nType=oneshot\nExecStart=\nExecStart={PYTHON} /opt/probe.py\n"
        bed.write(f"{folder}/probe.conf", f"{oneshot}Restart=no\n")
        if reach:
            bed.write(str(drop_in_path("probe")), reach)
        bed.run("systemctl", "daemon-reload")
        bed.run("systemctl", "start", "wa-backend@probe.service")
        lines = bed.journal("-o", "cat", "-u", "wa-backend@probe.service")
        told: dict[str, Any] = json.loads(re.findall(r"^PROBE (.*)$", lines, re.MULTILINE)[-1])
        return told

    yield found
    bed.try_run("rm", "-r", folder, f"{place}/probe", f"{place}/other", "/home/deploy", "/srv/wt")
    bed.run("systemctl", "daemon-reload")


def test_f85_a_backends_worker_reaches_its_own_folder_and_nothing_else_of_ours(probe: Any):
    assert probe("") == {
        "own": True,
        "own_link": True,
        "backends": ["probe"],
        "state": ["backends"],
        "links": ["probe"],
        "other_links": False,
        "settings": False,
        "bus": False,
        "log": False,
        "write_log": False,
        "journal": False,
        "auth": True,  # readable by everybody there, as to every program of the machine
        "write_auth": False,
        "home": False,
        "write_srv": False,
    }


def test_with_its_drop_in_it_reaches_logs_and_auth_folders_of_another_program(bed: Bed, probe: Any):
    settings = {
        "logs": ["pm2:/home/deploy/.pm2/logs", "journal:dbus.service"],
        "auth_folder": "/srv/wt/auth/{id}",
    }
    found = probe(render_reach("probe", settings))
    done = bed.try_run("systemd-analyze", "verify", "--man=no", "wa-backend@probe.service")
    assert "wa-backend" not in done.stderr and "reach.conf" not in done.stderr
    gained = {name for name, can in found.items() if can is True}
    assert gained == {"own", "own_link", "log", "journal", "auth", "write_auth"}
    assert found["backends"] == ["probe"] and found["links"] == ["probe"]
