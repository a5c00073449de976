"""What sessions use is known on a booted machine, and what leaks is restarted.

The bed has the control groups of Debian 12, but the controller that counts memory stays
with the machine outside: memory is each worker's own word, the rest the kernel's.
"""

import re
from collections.abc import Iterator

import pytest

from agent.cli.unit_memory import memory_drop_in
from agent.host.units import control_group
from tests.system.bed import Bed
from tests.system.fleet import AGENT, Fleet
from tests.system.test_doctor import wrong

MIB = 1 << 20
SETTINGS = f"""\
[start]
stagger = 0.1
spread = 0.0
first_check = 1

[memory]
interval = 1
instance = {60 * MIB}
warn = 0.5
"""


@pytest.fixture(scope="module", autouse=True)
def counting(machine: Bed) -> Iterator[None]:
    if machine.init:
        machine.power_off()
    machine.counting = True
    machine.boot()
    yield
    machine.power_off()
    machine.counting = False


@pytest.fixture
def fleet(bed: Bed) -> Iterator[Fleet]:
    before = bed.path("/etc/wa-agent/agent.toml").read_text()
    bed.write("/etc/wa-agent/agent.toml", SETTINGS)
    bed.run("systemctl", "restart", AGENT)
    fleet = Fleet(bed, ("u1", "u2"))
    fleet.make()
    yield fleet
    for id in fleet.ids:
        fleet.forget(id)
    bed.write("/etc/wa-agent/agent.toml", before)
    bed.run("systemctl", "restart", AGENT)


def test_memory_and_processor_time_of_a_session_are_measured(bed: Bed, fleet: Fleet) -> None:
    group = control_group(fleet.unit("u1"))
    assert bed.show(fleet.unit("u1"), "ControlGroup") == f"/{group.relative_to('/sys/fs/cgroup')}"
    bed.until(lambda: (fleet.show("u1").get("memory_bytes") or 0) in fleet.memory("u1"))
    found = fleet.show("u1")
    assert found["cpu_seconds"] > 0
    assert found["processes"] == 1
    metrics = bed.run("curl", "-s", "--unix-socket", "/run/wa-agent/api.sock", "http://x/metrics")
    for name in ("memory_bytes", "cpu_seconds_total", "processes"):
        assert re.search(rf'^wa_session_{name}{{session="u1"}} \d', metrics, re.M), name


def test_a_leak_is_freed_first_and_then_restarted_gracefully(bed: Bed, fleet: Fleet) -> None:
    before, other = fleet.runs()["u1"], fleet.runs()["u2"]
    accounts = fleet.accounts()
    bed.run("wa-agent", "sandbox", "fault", "u1", "leak")

    def story() -> str:
        return bed.run("wa-agent", "events", "u1", "-n", "100")

    bed.until(lambda: fleet.runs()["u1"] not in ("", before), within=60)
    bed.until(lambda: "outcome: restart" in story())
    fleet.until_connected()
    told = story()
    assert re.search(r"asked it to free its caches: memory \w+: \d+ of 60 MiB", told), told
    assert re.search(r"restart: memory critical: \d+ of 60 MiB", told), told
    assert "memory critical" not in told.rpartition("outcome: restart")[2], told
    assert fleet.show("u1")["restarts_by_reason"]["agent"] == 1
    assert fleet.accounts() == accounts
    assert fleet.runs()["u2"] == other, "its neighbour was left alone"


def test_a_session_that_may_use_more_than_its_unit_grants_is_named_with_the_cure(
    bed: Bed, fleet: Fleet
) -> None:
    unit, run = fleet.unit("u1"), fleet.runs()["u1"]
    assert bed.show(unit, "MemoryMax") == str(2 << 30)
    fleet.cli("settings", "u1", "--set", f"memory_limit={3 << 30}")
    assert f"u1 may use {3 << 30} bytes" in wrong(bed)["memory limits"]
    path, text = memory_drop_in("u1", 3 << 30)
    try:
        bed.write(path, text)
        bed.run("systemctl", "daemon-reload")
        assert bed.show(unit, "MemoryMax") == str(int(3.75 * (1 << 30)))
        assert "memory limits" not in wrong(bed)
        assert fleet.runs()["u1"] == run, "it went on all the time"
    finally:
        bed.run("rm", path)
        bed.run("systemctl", "daemon-reload")
