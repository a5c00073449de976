"""restic as the agent runs it: its user, its hardened unit, its cache in the state folder."""

import json
import shutil

import pytest

from tests.lacking import lacks
from tests.system.bed import Bed
from tests.system.conftest import PYTHON

OWN_START = ("Type=", "NotifyAccess=", "Exec", "Restart", "WatchdogSec=", "Requires=", "Wants=")
TRY = """
import asyncio, json
from pathlib import Path
from agent.errors import WaError
from agent.fleet.copies.env_file import read_env_file
from agent.fleet.copies.restic import Restic

async def main():
    state = Path("/var/lib/wa-agent")
    env = read_env_file(Path("/etc/wa-agent/profiles.env"))
    restic = Restic("/srv/profiles/repository", "secret " * 8, state / "restic-cache", env)
    await restic.make()
    source, target = state / "restic-source", state / "restic-target"
    source.mkdir()
    (source / "file").write_text("a profile")
    await restic.restore(await restic.save(source, "web-1", 0), target)
    return {"read": (target / "file").read_text(), "cached": restic.cache.is_dir()}

try:
    print(json.dumps(asyncio.run(main())))
except WaError as error:
    print(json.dumps({"code": error.code, "message": str(error)}))
"""


@pytest.fixture
def unit(bed: Bed) -> str:
    """The agent's unit with another program."""
    if shutil.which("restic") is None:
        lacks("restic is not installed")
    shipped = bed.root / "usr/local/lib/systemd/system/wa-agent.service"
    kept = [line for line in shipped.read_text().splitlines() if not line.startswith(OWN_START)]
    start = f"[Service]\nType=oneshot\nExecStart={PYTHON} /opt/try-restic.py"
    text = "\n".join(kept).replace("[Service]", start)
    bed.write("/opt/try-restic.py", TRY)
    bed.write("/etc/systemd/system/wa-restic.service", text)
    return "wa-restic.service"


def test_restic_runs_in_the_agents_unit_once_it_is_let_in(bed: Bed, unit: str) -> None:
    bed.write("/etc/wa-agent/profiles.env", "AWS_ACCESS_KEY_ID=none\n", 0o600)
    bed.run("install", "-d", "-o", "wa-agent", "-g", "wa", "/srv/profiles")
    assert "cannot read /etc/wa-agent/profiles.env" in said(bed, unit)["message"]
    bed.run("chown", "wa-agent", "/etc/wa-agent/profiles.env")
    refused = said(bed, unit)
    assert refused["code"] == "profiles_read_only"
    assert "ReadWritePaths=" in refused["message"]
    bed.write(f"/etc/systemd/system/{unit}.d/x.conf", "[Service]\nReadWritePaths=/srv/profiles\n")
    assert said(bed, unit) == {"read": "a profile", "cached": True}
    bed.run("rm", "-r", *(f"/var/lib/wa-agent/restic-{it}" for it in ("cache", "source", "target")))


def said(bed: Bed, unit: str) -> dict[str, str]:
    bed.run("systemctl", "daemon-reload")
    bed.run("systemctl", "start", unit)
    lines = bed.journal("-o", "cat", "-u", unit).splitlines()
    found: dict[str, str] = json.loads([line for line in lines if line.startswith("{")][-1])
    return found
