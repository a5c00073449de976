"""The worker of a backend in its hardened unit: the real engine, a stand-in for its server."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from agent.cli.backends.drop_in import drop_in_path, render_reach
from tests.system.bed import Bed
from tests.system.conftest import PYTHON

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
