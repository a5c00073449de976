"""Every sandbox fault on a booted machine, side by side: each ends as promised, and is told."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet

# So many pings that a hang is the watchdog's, which is at the door after 20 s.
SETTINGS = """\
[start]
stagger = 0.1
spread = 0.0
parallel = 20
first_check = 1

[health]
interval = 2
timeout = 1
zombie_pings = 15

[phases]
login = 4
pairing = 4
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

[memory]
interval = 1
instance = 167772160
"""
BACK = {
    "crash": "the host started it again",
    "hang": "its worker ended (watchdog)",
    "zombie": "pings failed in a row",
    "slow": "of 15 pings failed",
    "drop": "connect: the connection was lost",
    "leak": "restart: memory critical",
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
    "conflict": ("DISCONNECTED", "the agent makes no further try"),
    "outdated": ("DISCONNECTED", "no longer accepts this version"),
}
"""Where it ends, and a piece of its story."""
UNPAIRED = {
    "no-qr": ("QR_REQUIRED", "cleanup: done"),
    "passkey": ("QR_REQUIRED", "asks the account's owner for a passkey"),
    "no-pairing": ("QR_REQUIRED", "never completed the pairing"),
}
"""The same of what befalls who was never paired."""
SECONDS = {
    "temp-ban": 6,
    "stuck-loading": 15,
    "slow": 15,
    "no-qr": 600,
    "conflict": 600,
}


@pytest.fixture
def fleet(bed: Bed) -> Iterator[Fleet]:
    before = bed.path("/etc/wa-agent/agent.toml").read_text()
    bed.write("/etc/wa-agent/agent.toml", SETTINGS)
    bed.run("systemctl", "restart", AGENT)
    fleet = Fleet(bed, tuple(f"f-{fault}" for fault in (*BACK, *DOWN)))
    try:
        fleet.make()
        for fault in UNPAIRED:
            fleet.create(f"f-{fault}", scan="manual")
        yield fleet
    finally:
        for id in (*fleet.ids, *(f"f-{fault}" for fault in UNPAIRED)):
            with contextlib.suppress(AssertionError):
                fleet.forget(id)
        bed.write("/etc/wa-agent/agent.toml", before)
        bed.run("systemctl", "restart", AGENT)


def ends(fleet: Fleet, fault: str, status: str, told: str, within: float) -> None:
    """Waits until it is told and stands where it must; a failure shows its story."""
    id = f"f-{fault}"

    def ended() -> bool:
        found = fleet.list().get(id, {}).get("connection_status")
        return found == status and told in fleet.story(id)

    try:
        fleet.bed.until(ended, within=within)
    except AssertionError:
        raise AssertionError(f"{fault}: {fleet.list().get(id)}\n{fleet.story(id)}") from None


def test_every_fault_ends_as_promised_and_is_reported(bed: Bed, fleet: Fleet):
    fleet.cli("settings", "f-logout", "--set", "scan=manual")
    fleet.cli("snapshot", "f-corrupt-files")
    for fault in UNPAIRED:
        bed.until(lambda id=f"f-{fault}": fleet.list()[id]["connection_status"] == "QR_REQUIRED")
    accounts = fleet.accounts()
    for fault in (*BACK, *DOWN, *UNPAIRED):
        path = f"/api/instance/f-{fault}"
        lasting = {"for": SECONDS[fault]} if fault in SECONDS else {}
        # Some answer with their own death.
        fleet.ask(f"{path}/sandbox/fault", {"fault": fault, **lasting})
        if fault == "stuck-loading":
            fleet.do("POST", f"{path}/restart")
        if fault in ("passkey", "no-pairing"):
            fleet.do("POST", f"{path}/sandbox/scan")

    for fault, (status, told) in DOWN.items():
        ends(fleet, fault, status, told, within=120)
    for fault, told in BACK.items():
        ends(fleet, fault, "CONNECTED", told, within=180)
    after = fleet.accounts()
    for fault in BACK:
        assert after[f"f-{fault}"] == accounts[f"f-{fault}"], f"{fault} cost a pairing"
    for fault, (status, told) in UNPAIRED.items():
        ends(fleet, fault, status, told, within=180)

    told = bed.run("wa-agent", "events", "f-ban", "-n", "200")
    banned = told.rpartition("banned the account")[2]
    assert "connect:" not in banned
    assert "start:" not in banned
