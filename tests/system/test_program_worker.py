"""A user's own bot in its hardened unit, with the drop-in that `programs drop-in` prints."""

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.standin.baileys.run import WhatsApp
from tests.system.bed import CHECKOUT, SOURCE, Bed
from tests.system.fleet import AGENT, Fleet
from tests.system.test_baileys_worker import whatsapp

__all__ = ["whatsapp"]

ID, ACCOUNT = "shop", "5511900000001"
UNIT = f"wa-instance@{ID}.service"
FOLDER = "/srv/shopbot"
BOTS = "tests/standin/baileys"
CONFIG = "/etc/wa-agent/agent.toml"
PROGRAM = """
[[program]]
name = "shopbot"
command = ["{node}", "{bot}"]
folder = "{folder}"
environment = ["WHATSAPP={url}"]
"""
EXPOSURE = re.compile(r"Overall exposure level for \S+: ([\d.]+)")


@pytest.fixture
def fleet(bed: Bed, whatsapp: WhatsApp) -> Iterator[Fleet]:
    """With the bot's folder and its table; the agent's settings are as before in the end."""
    node = shutil.which("node")
    bot, packages = CHECKOUT / BOTS / "bots/plain.mjs", f"{BOTS}/node_modules"
    if not (there := bed.path(str(CHECKOUT / packages))).exists():
        shutil.copytree(SOURCE / packages, there, symlinks=True)
    before = bed.path(CONFIG).read_text()
    bed.run("install", "-d", "-o", "wa-worker", "-g", "wa", "-m", "0750", FOLDER)
    text = PROGRAM.format(node=node, bot=bot, folder=FOLDER, url=whatsapp.socket)
    fleet = Fleet(bed, (ID,))
    bed.run("systemctl", "start", "wa-agent.socket", AGENT)
    bed.path(CONFIG).write_text(f"{before}{text}[agent]\nx = 1\n")
    assert bed.try_run("systemctl", "reload", AGENT).returncode == 1
    bed.path(CONFIG).write_text(before + text)
    bed.run("systemctl", "reload", AGENT)
    fleet.until_it_answers()
    yield fleet
    if ID in fleet.list():
        fleet.forget(ID)
    bed.path(CONFIG).write_text(before)
    bed.run("rm", "-rf", f"/etc/systemd/system/{UNIT}.d")
    bed.run("systemctl", "daemon-reload")


def exposure(bed: Bed) -> float:
    found = EXPOSURE.search(bed.run("systemd-analyze", "security", "--no-pager", UNIT))
    assert found is not None
    return float(found[1])


@pytest.mark.timeout(600)
def test_a_bot_keeps_its_session_in_its_own_folder_behind_its_drop_in(
    fleet: Fleet, whatsapp: WhatsApp, capsys: pytest.CaptureFixture[str]
) -> None:
    bed = fleet.bed
    plain = exposure(bed)
    drop_in = fleet.cli("programs", "drop-in", "shopbot")
    bed.write(drop_in["path"].replace("INSTANCE", ID), drop_in["text"])
    bed.run("systemctl", "daemon-reload")
    opened = exposure(bed)
    with capsys.disabled():
        print(f"\n  {UNIT}: exposure {plain}, with its drop-in {opened}")
    assert opened <= plain + 0.2

    fleet.cli("create", ID, "--engine", "program", "--program", "shopbot")
    bed.until(lambda: fleet.statuses()[ID] == "QR_REQUIRED", within=90)
    whatsapp.scan(str(fleet.cli("qr", ID)["qr"]), ACCOUNT)
    fleet.until_connected(within=90)
    assert bed.path(f"{FOLDER}/auth_info_baileys/creds.json").stat().st_size > 100
    assert (len(whatsapp.devices()), whatsapp.overlaps()) == (1, [])
