"""SystemdHost against the real manager, from outside the bed over its bus, with the stand-in."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from agent.core.model import InstanceId, UnitState, UnitStatus
from agent.errors import HostError
from agent.host import units
from agent.host.life import Limits
from agent.host.systemd import SystemdHost
from tests.conftest import Eventually
from tests.host.contract import GOOD, HostContract
from tests.system.bed import Bed

UNIT = "wa-instance@good.service"
Standin = Callable[..., None]


@pytest.fixture
def woken() -> list[str]:
    """The instances that the host woke, oldest first."""
    return []


@pytest_asyncio.fixture
async def host(
    bed: Bed, standin: Standin, woken: list[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SystemdHost]:
    standin("good", "exit7", "exit77", "exit78", "hang")
    standin("deaf", more="TimeoutStopSec=500ms\n")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bed.bus_address)
    folders = [bed.path("/etc/systemd/system"), bed.path("/run/systemd/system")]
    monkeypatch.setattr(units, "FOLDERS", folders)
    host = await SystemdHost.open(woken.append, Limits(20.0))
    yield host
    await host.close(leave_workers=True)


async def running(host: SystemdHost) -> dict[InstanceId, UnitStatus]:
    """Units of earlier tests may be loaded still."""
    return {id: status for id, status in (await host.list()).items() if status.runs}


@pytest.fixture
def watching(host: SystemdHost, standin: Standin) -> SystemdHost:
    standin("hang", more="WatchdogSec=1s\n")
    return host


@pytest.fixture
def kill(bed: Bed) -> Callable[[int], object]:
    return lambda pid: bed.run("kill", "-9", str(pid))


class TestSystemdHost(HostContract):
    async def test_a_status_is_what_systemd_says(self, bed: Bed, host: SystemdHost):
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        await host.start(GOOD)
        status = await host.status(GOOD)
        assert status.run == bed.show(UNIT, "InvocationID")
        assert status.main_pid == int(bed.show(UNIT, "MainPID"))
        assert begun - 0.01 < status.since < time.clock_gettime(time.CLOCK_BOOTTIME) + 0.01
        assert await running(host) == {GOOD: status}
        await host.stop(GOOD)
        assert bed.show(UNIT, "ActiveState") == "inactive"


async def test_f29_a_masked_unit_is_told_apart(bed: Bed, host: SystemdHost, eventually: Eventually):
    bed.run("systemctl", "mask", "--runtime", UNIT)

    async def masked():
        return (await host.status(GOOD)).masked

    await eventually(masked)
    assert (await host.list())[GOOD].masked
    with pytest.raises(HostError, match="an operator masked it") as refused:
        await host.start(GOOD)
    assert refused.value.code == "masked"
    bed.run("systemctl", "unmask", "--runtime", UNIT)
    await eventually(masked, False)
    await host.start(GOOD)


async def test_systemctl_commands_of_an_operator_wake_the_agent(
    bed: Bed, host: SystemdHost, woken: list[str], eventually: Eventually
):
    async def state() -> UnitState:
        return (await host.status(GOOD)).state

    assert await state() is UnitState.INACTIVE
    for command, wanted in (("start", UnitState.ACTIVE), ("stop", UnitState.INACTIVE)):
        woken.clear()
        bed.run("systemctl", command, UNIT)
        await eventually(lambda: GOOD in woken)
        # Woken by the first of several signals.
        await eventually(state, wanted)


async def test_f21_a_killed_bus_comes_back_and_a_job_meanwhile_is_not_lost(
    bed: Bed, host: SystemdHost, standin: Standin, woken: list[str], eventually: Eventually
):
    standin("late")
    await host.start(GOOD)
    woken.clear()
    start = asyncio.create_task(host.start(InstanceId("late")))
    await eventually(lambda: host.jobs_pending, 1)
    before = host._bus._bus
    bed.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "dbus.service")
    await eventually(lambda: host._bus._bus not in (None, before) and host.connected)
    await start
    assert (await host.status(InstanceId("late"))).state is UnitState.ACTIVE
    assert GOOD in woken
    pid = (await host.status(GOOD)).main_pid
    bed.run("kill", "-9", str(pid))

    async def seen():
        return (await host.status(GOOD)).restarts

    await eventually(seen, 1)


async def test_f26_reload_and_reexec_change_nothing(
    bed: Bed, host: SystemdHost, eventually: Eventually
):
    await host.start(GOOD)
    before = await host.status(GOOD)
    seen: set[tuple[UnitState, str]] = set()

    async def look() -> None:
        while True:
            status = await host.status(GOOD)
            seen.add((status.state, status.run))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    for _ in range(5):
        await asyncio.to_thread(bed.run, "systemctl", "daemon-reload")
    looking.cancel()
    # Not for a moment does it look stopped: that would be taken for an operator's stop.
    assert seen == {(UnitState.ACTIVE, before.run)}
    bed.run("systemctl", "daemon-reexec")

    async def run():
        try:
            return (await host.list())[GOOD].run
        except (HostError, KeyError):
            return None

    await eventually(run, before.run)
    pinged = bed.show(UNIT, "WatchdogTimestampMonotonic")
    await eventually(lambda: bed.show(UNIT, "WatchdogTimestampMonotonic") != pinged)
    assert (await host.status(GOOD)).run == before.run
    await host.stop(GOOD)
