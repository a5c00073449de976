"""The baileys engine in its hardened unit, as the unprivileged user, on the real library."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engines.baileys.node import LOADER, LOADER_TEXT, MARK, packages_folder
from tests.lacking import lacks
from tests.standin.baileys.run import HERE, WhatsApp, why_not
from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet

ID, ACCOUNT, PEER = "node1", "5511900000001", "5511900000002"
CACHE = "/var/lib/wa-agent/cache"


@pytest.fixture(scope="module")
def whatsapp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WhatsApp]:
    """On the loopback that the bed shares with the outside."""
    if reason := why_not("baileys"):
        lacks(reason)
    server = WhatsApp(tmp_path_factory.mktemp("whatsapp") / "log")
    yield server
    server.end()


@pytest.fixture(scope="module")
def fleet(machine: Bed, whatsapp: WhatsApp) -> Iterator[Fleet]:
    if not machine.init:
        machine.boot()
    bring_packages(machine)
    fleet = Fleet(machine, (ID,))
    machine.run("systemctl", "start", "wa-agent.socket", AGENT)
    fleet.until_it_answers()
    fleet.cli("create", ID, "--engine", "baileys", "--set", f"url={whatsapp.socket}")
    yield fleet
    if ID in fleet.list():
        fleet.forget(ID)


def bring_packages(machine: Bed) -> None:
    """The tests' own copy of them, as readable for the workers as a fetch leaves them."""
    folder = packages_folder(machine.path(CACHE))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(HERE / "node_modules", folder / "node_modules", dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / LOADER).write_text(LOADER_TEXT)
    (folder / MARK).touch()
    inside = f"{CACHE}/baileys"
    machine.run("chown", "-R", "wa-agent:wa", inside)
    machine.run("chmod", "-R", "u=rwX,g=rX,o=", inside)


def node_of(bed: Bed, unit: str) -> int:
    """The only child of the unit's worker."""
    worker = bed.outside_pid(int(bed.show(unit, "MainPID")))
    (node,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    return int(node)


@pytest.mark.timeout(280)
def test_a_session_lives_in_its_hardened_unit(fleet: Fleet, whatsapp: WhatsApp) -> None:
    """Paired, connected, and never asked for a second code: kills are in daemon/test_baileys."""
    bed = fleet.bed
    bed.until(lambda: fleet.statuses()[ID] == "QR_REQUIRED", within=60)
    whatsapp.scan(str(fleet.cli("qr", ID)["qr"]), ACCOUNT)
    fleet.until_connected(within=60)
    assert fleet.cli("send", ID, PEER, "the offer")["outcome"] == "sent"
    bed.until(lambda: any(h["text"] == "the offer" for h in whatsapp.person(PEER)["heard"]))

    node = node_of(bed, fleet.unit(ID))
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{node}/status").read_text().splitlines()
    )
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert status["Seccomp"] == "2", "a filter of system calls holds Node, too"
    assert int(status["Uid"].split()[0]) not in (0, os.getuid())

    bed.run("systemctl", "restart", AGENT)
    fleet.until_connected(within=60)
    told = bed.run("wa-agent", "--json", "events", ID, "-n", "1000")
    events = map(json.loads, told.splitlines())
    codes = [one for one in events if one["detail"].get("status") == "QR_REQUIRED"]
    assert len(codes) == 1, codes
