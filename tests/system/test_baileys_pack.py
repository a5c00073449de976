"""A pack on systemd: two sessions of the baileys engine in the worker of one hardened unit."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin.baileys.run import WhatsApp
from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet
from tests.system.test_baileys_worker import bring_packages, node_of, whatsapp

__all__ = ["whatsapp"]

IDS = {"pack1": "5511900000041", "pack2": "5511900000051"}
PEER = "5511900000002"
PACK, RUN = "wa-pack@baileys-1.service", "/run/wa-pack/baileys-1"
CONFIG = "/etc/wa-agent/agent.toml"


class PackedFleet(Fleet):
    """A fleet whose sessions have no unit of their own."""

    def runs(self) -> dict[str, str]:
        return {id: self.show(id)["unit"]["run"] for id in self.ids}


@pytest.fixture(scope="module")
def fleet(machine: Bed, whatsapp: WhatsApp) -> Iterator[Fleet]:
    if not machine.init:
        machine.boot()
    bring_packages(machine)
    fleet = PackedFleet(machine, tuple(IDS))
    machine.run("systemctl", "start", "wa-agent.socket", AGENT)
    fleet.until_it_answers()
    before = machine.run("cat", CONFIG)
    machine.write(CONFIG, before + "\n[worker]\npack = 8\n")
    machine.run("systemctl", "restart", AGENT)
    for id, account in IDS.items():
        fleet.cli("create", id, "--engine", "baileys", "--set", f"url={whatsapp.socket}")
        machine.until(lambda id=id: fleet.statuses()[id] == "QR_REQUIRED", within=60)
        whatsapp.scan(str(fleet.cli("qr", id)["qr"]), account)
    fleet.until_connected(within=60)
    yield fleet
    for id in IDS:
        fleet.forget(id)
    machine.write(CONFIG, before)
    machine.run("systemctl", "restart", AGENT)


def logins(whatsapp: WhatsApp) -> list[int]:
    return [int(whatsapp.device(account)["logins"]) for account in IDS.values()]


@pytest.mark.timeout(280)
def test_two_sessions_share_a_worker_that_sees_nothing_else_of_the_machine(
    fleet: Fleet, whatsapp: WhatsApp
) -> None:
    bed, node = fleet.bed, node_of(fleet.bed, PACK)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{node}/status").read_text().splitlines()
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["Uid"].split()[0]) not in (0, os.getuid())
    seen = Path(f"/proc/{node}/root/var/lib/wa-agent")
    assert sorted(path.name for path in seen.iterdir()) == ["cache", "sessions"]
    assert not list(Path(f"/proc/{node}/root/run/wa-instance").glob("*"))
    for id in IDS:
        owner = bed.run("stat", "-c", "%U:%G %a", f"{RUN}/members/{id}/link.sock").strip()
        assert owner == "wa-worker:wa 660"
        assert bed.show(f"wa-instance@{id}.service", "ActiveState") == "inactive"
        assert fleet.cli("send", id, PEER, "packed")["outcome"] == "sent"
        kinds = bed.run("sh", "-c", f"stat -c %U /var/lib/wa-agent/sessions/{id}/session/*.json")
        assert set(kinds.split()) == {"wa-worker"}

    # The agent restarts: its sessions and their pack run on.
    before, run = logins(whatsapp), bed.show(PACK, "InvocationID")
    bed.run("systemctl", "restart", AGENT)
    fleet.until_connected(within=60)
    assert (logins(whatsapp), bed.show(PACK, "InvocationID")) == (before, run)
