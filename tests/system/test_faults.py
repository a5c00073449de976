"""Every sandbox fault on a booted machine, side by side: each ends as promised, and is told."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet

SETTINGS = """\
[start]
stagger = 0.1
spread = 0.0
parallel = 20

[health]
interval = 2
timeout = 1

[phases]
login = 4
sync = 4

[reconnect]
base = 0.5
jitter = 0

[recovery]
tries = 2
first_delay = 0.2
settle = 5
settle_start = 1
settle_keys = 2
round_pause = 2
"""
# Not `leak`: no memory controller is delegated in a container, and the agent may not look
# into another user's process; tests/daemon has it.
BACK = {
    "crash": "was started again by the host",
    "hang": "its worker ended (watchdog)",
    "zombie": "pings failed in a row",
    "drop": "connect: the connection was lost",
    "bad-mac": "regenerate_keys: done",
    "prekey": "regenerate_keys: done",
    "temp-ban": "banned the account for a time",
    "stuck-loading": "stuck in phase sync",
    "corrupt-files": "restore: done",
}
"""Connected again without a person; and a piece of its story."""
DOWN = {
    "logout": ("QR_REQUIRED", "renew: done"),
    "ban": ("AUTH_FAILURE", "banned the account"),
    "conflict": ("", "taken over"),
    "outdated": ("", "no longer accepts this version"),
}
SECONDS = {"temp-ban": "6", "stuck-loading": "8"}


@pytest.fixture
def fleet(bed: Bed) -> Iterator[Fleet]:
    before = bed.path("/etc/wa-agent/agent.toml").read_text()
    bed.write("/etc/wa-agent/agent.toml", SETTINGS)
    bed.run("systemctl", "restart", AGENT)
    fleet = Fleet(bed, tuple(f"f-{fault}" for fault in (*BACK, *DOWN)))
    try:
        fleet.make()
        yield fleet
    finally:
        for id in fleet.ids:
            with contextlib.suppress(AssertionError):
                bed.run("wa-agent", "delete", id)
        bed.write("/etc/wa-agent/agent.toml", before)
        bed.run("systemctl", "restart", AGENT)


def story(fleet: Fleet, id: str) -> str:
    return fleet.bed.run("wa-agent", "events", id, "-n", "200")


def test_every_fault_ends_as_promised_and_is_told(bed: Bed, fleet: Fleet):
    fleet.cli("settings", "f-logout", "--set", "scan=manual")
    fleet.cli("snapshot", "f-corrupt-files")
    accounts = fleet.accounts()
    for fault in (*BACK, *DOWN):
        lasting = ("--for", SECONDS[fault]) if fault in SECONDS else ()
        # Some answer with their own death.
        bed.try_run("wa-agent", "sandbox", "fault", f"f-{fault}", fault, *lasting)
        if fault == "stuck-loading":
            bed.run("wa-agent", "restart", "f-stuck-loading")

    for fault, (status, told) in DOWN.items():
        bed.until(lambda fault=fault, told=told: told in story(fleet, f"f-{fault}"), within=60)
        assert not status or fleet.statuses()[f"f-{fault}"] == status, fault
    for fault, told in BACK.items():
        id = f"f-{fault}"

        def is_back(id: str = id, told: str = told) -> bool:
            return told in story(fleet, id) and fleet.statuses()[id] == "CONNECTED"

        try:
            bed.until(is_back, within=120)
        except AssertionError:
            raise AssertionError(f"{fault}: {story(fleet, id)}") from None
        assert fleet.accounts()[id] == accounts[id], f"{fault} cost a pairing"

    banned = story(fleet, "f-ban").rpartition("banned the account")[2]
    assert "connect:" not in banned
    assert "start:" not in banned
