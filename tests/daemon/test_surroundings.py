"""What the machine around a running agent does to it: descriptors, disks, memory, clocks."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.lacking import not_lent
from tests.waiting import alive

from .conftest import LOOKS_OFTEN, PATIENT, SETTINGS

CLOCKS = '''
"""Python's clocks, moved by what two files say: the one thing that a test cannot do for real."""
import os
import time

_time, _clock_gettime = time.time, time.clock_gettime


def _moved(name):
    try:
        with open(os.path.join(os.path.dirname(__file__), name)) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


def _gettime(clock):
    moved = _moved("boot") if clock == time.CLOCK_BOOTTIME else 0.0
    return _clock_gettime(clock) + moved


time.time = lambda: _time() + _moved("wall")
time.clock_gettime = _gettime
'''


class Clocks:
    """Moves the clocks of processes that were started with `environment`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CLOCKS)
        self.folder = folder
        self.environment = {"PYTHONPATH": str(folder)}

    def move(self, name: str, seconds: float) -> None:
        new = self.folder / f".{name}"
        new.write_text(str(seconds))
        new.rename(self.folder / name)


@pytest.fixture
def clocks(tmp_path):
    return Clocks(tmp_path / "clocks")


async def connected(agent, eventually, *ids, **settings):
    for id in ids:
        await agent.create(id, **settings)
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def probes(agent) -> int:
    """How often the agent has asked its engines."""
    lines = str((await agent.ask("GET", "/metrics"))[1]).splitlines()
    counts = [one for one in lines if one.startswith("wa_session_response_time_seconds_count")]
    return sum(int(float(one.split()[-1])) for one in counts)


async def test_f17_without_descriptors_the_agent_waits_and_does_not_spin(agent, eventually):
    await connected(agent, eventually, "a")
    agent_pid, worker = agent.process.pid, await agent.pid("a")
    limit = descriptors(agent_pid) + 4
    resource.prlimit(agent_pid, resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    for _ in range(20):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(1)
        one.connect(str(agent.state / "api.sock"))
        held.append(one)
    await eventually(lambda: descriptors(agent_pid), limit)
    await eventually(lambda: "Too many open files" in agent.log.read_text())
    before, begun = cpu_seconds(agent_pid), time.monotonic()
    await eventually(lambda: time.monotonic() - begun > 1.5)
    assert cpu_seconds(agent_pid) - before < 0.75, "it spins"
    assert agent.log.read_text().count("out of system resource") < 10
    assert agent.process.returncode is None
    for one in held:
        one.close()
    await eventually(lambda: agent.pid("a"), worker)
    await eventually(lambda: agent.status("a"), "CONNECTED")

    async def created() -> bool:
        """As soon as it has closed its ends of those connections."""
        body = {"id": "b", "engine": "sandbox", "settings": {}}
        return (await agent.ask("POST", "/api/instance", body))[0] < 300

    await eventually(created)
    assert sum((await agent.show("a"))["restarts_by_reason"].values()) == 0


@pytest.fixture
def task_group():
    """A control group for pids, as TasksMax= makes one: (set its limit, put a process in)."""
    root = Path("/sys/fs/cgroup/pids")
    root = root if root.is_dir() else Path("/sys/fs/cgroup")
    folder = root / f"wa-agent-test-{os.getpid()}"
    try:
        folder.mkdir()
        limit = folder / "pids.max"
        limit.write_text("max")
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        not_lent(f"this machine lends no control group: {error}")

    def hold(pid):
        (folder / "cgroup.procs").write_text(str(pid))

    def allow(more):
        here = int((folder / "pids.current").read_text())
        limit.write_text("max" if more is None else str(here + more))

    yield hold, allow
    while inside := (folder / "cgroup.procs").read_text().split():
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                (root / "cgroup.procs").write_text(pid)
    folder.rmdir()


async def test_f16_without_tasks_a_start_fails_in_words_and_nothing_hangs(
    agent, eventually, task_group
):
    hold, allow = task_group
    hold(agent.process.pid)
    await connected(agent, eventually, "a")
    worker = await agent.pid("a")
    allow(0)
    try:
        await agent.create("b")
        words = "cannot start a worker for b: [Errno 11]"
        await eventually(lambda: words in agent.log.read_text())
        assert (await agent.ask("GET", "/healthz"))[0] == 200
        assert (await agent.status("a"), await agent.pid("a")) == ("CONNECTED", worker)
        assert agent.process.returncode is None
    finally:
        allow(None)
    await eventually(lambda: agent.status("b"), "CONNECTED", within=30)
    assert "Traceback" not in agent.log.read_text()


async def test_f14_a_worker_over_its_memory_is_killed_and_counted_as_oom(make_agent, eventually):
    agent = make_agent()
    text = agent.config.read_text().replace("[worker]", "[worker]\nmemory_max = 83886080")
    agent.config.write_text(text)
    agent.first = LOOKS_OFTEN
    await agent.start()
    await connected(agent, eventually, "a")
    await agent.fault("a", "leak", bytes_per_second=24 << 20)

    async def counted():
        return (await agent.show("a"))["restarts_by_reason"]["oom"]

    await eventually(counted, within=40)
    await eventually(lambda: agent.status("a"), "CONNECTED")


async def test_f33_a_disk_that_turns_read_only_costs_no_session(
    make_agent, eventually, failing_disk
):
    agent = make_agent(base=with_disk_free(1 << 20))
    agent.state = failing_disk.folder / "state"
    await agent.start()
    await connected(agent, eventually, "a")
    worker = await agent.pid("a")
    failing_disk.fail()
    status, answer = await agent.ask("POST", "/api/instance/a/disable")
    assert status >= 500, answer
    assert "read-only" in str(answer) or "read-only" in agent.log.read_text()
    assert (await agent.ask("GET", "/healthz"))[0] == 200
    await agent.do("POST", "/api/health/check")
    assert await agent.status("a") == "CONNECTED"
    assert (await agent.show("a"))["enabled"] is True, "a refused order is not carried out later"
    assert await agent.pid("a") == worker
    assert await agent.stop() == 1, "not all could be written"
    assert not alive(worker)
    assert "closed 1 workers" in agent.log.read_text()
    failing_disk.mend()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert (await agent.show("a"))["enabled"] is True
    assert not list(agent.state.glob("*damaged*"))


def with_disk_free(least: int) -> str:
    return SETTINGS.replace("[start]\n", f"[start]\ndisk_free = {least}\n")


async def test_no_worker_starts_on_a_full_disk_and_running_ones_go_on(
    make_agent, eventually, small_disk
):
    agent = make_agent(base=with_disk_free(16 << 20))
    disk = small_disk("size=40m,mode=0700")
    agent.state = disk / "state"
    await agent.start()
    await connected(agent, eventually, "a", "b")
    worker = await agent.pid("a")
    await agent.do("POST", "/api/instance/b/stop")
    await eventually(lambda: agent.status("b"), "DISCONNECTED")
    (disk / "filler").write_bytes(bytes(30 << 20))
    await agent.do("POST", "/api/instance/b/start")

    async def held() -> bool:
        shown = await agent.show("b")
        words = "MiB free, 16 MiB must be ([start] disk_free)"
        return shown["hold"] == "disk_full" and words in shown["health"]["sentence"]

    await eventually(held)
    shown = await agent.show("b")
    assert (shown["unit"]["state"], shown["attempts"]) == ("inactive", 0)
    assert (await agent.status("a"), await agent.pid("a")) == ("CONNECTED", worker)
    await agent.do("POST", "/api/instance/a/restart")

    async def anew() -> bool:
        return await agent.pid("a") not in (0, worker)

    await eventually(anew)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    (disk / "filler").unlink()
    await eventually(lambda: agent.status("b"), "CONNECTED")
    assert (await agent.show("b"))["hold"] == ""


async def test_f31_a_full_disk_costs_no_session(make_agent, eventually, small_disk):
    agent = make_agent(base=with_disk_free(0))
    disk = small_disk("size=8m,mode=0700")
    agent.state = disk / "state"
    await agent.start()
    await connected(agent, eventually, "a")
    worker = await agent.pid("a")
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(65536))
            except OSError:
                break

    async def refused():
        return (await agent.ask("POST", "/api/instance/a/enable"))[0] >= 500

    await eventually(refused)
    assert (await agent.status("a"), await agent.pid("a")) == ("CONNECTED", worker)
    await agent.fault("a", "drop")  # passes must write now, and cannot
    await eventually(lambda: "the next one tries again" in agent.log.read_text())
    assert (await agent.ask("GET", "/healthz"))[0] == 200
    (disk / "filler").unlink()

    async def taken():
        return (await agent.ask("POST", "/api/instance/a/enable"))[0] == 202

    await eventually(taken)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert await agent.pid("a") == worker
    await agent.stop()
    await agent.start()
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert not list(agent.state.glob("*damaged*"))


YEAR = 365 * 86400.0


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [
        pytest.param("wall", 10 * YEAR, id="set 10 years ahead"),
        pytest.param("wall", -20 * YEAR, id="set 20 years back"),
        pytest.param("boot", 4 * 3600.0, id="the machine slept for hours"),
    ],
)
async def test_f51_f52_a_clock_that_jumps_moves_nothing(
    make_agent, eventually, clocks, clock, seconds
):
    agent = make_agent("[reconnect.reasons]\nclient_outdated = {base = 1.0, max = 2.0}\n")
    environment = {**clocks.environment, "WA_AGENT_WORKER__WATCHDOG": "4"}
    await agent.start(environment)
    await connected(agent, eventually, "a", "b")
    pids = {id: await agent.pid(id) for id in ("a", "b")}
    clocks.move(clock, seconds)

    # Longer than the workers' watchdog, told by what the loop of passes does meanwhile.
    seen = await probes(agent)

    async def probed_on():
        return await probes(agent) >= seen + 10

    await eventually(probed_on)
    assert {id: await agent.pid(id) for id in pids} == pids
    assert [await agent.status(id) for id in pids] == ["CONNECTED", "CONNECTED"]

    await agent.fault("a", "drop")

    async def reconnected():
        shown = await agent.show("a")
        return shown["reconnects_by_reason"] and shown["connection_status"] == "CONNECTED"

    await eventually(reconnected)
    assert await agent.pid("a") == pids["a"]

    await agent.kill()
    if clock == "wall":
        clocks.move(clock, 0)
    await agent.start(environment)
    await eventually(lambda: agent.status("a"), "CONNECTED")
    assert {id: await agent.pid(id) for id in pids} == pids, "adopted over the jump back"


async def test_f55_a_storm_of_stops_saves_all_at_the_same_time(make_agent, eventually, pauses):
    agent = make_agent()
    await agent.start(PATIENT)
    ids = [f"i{number}" for number in range(8)]
    await connected(agent, eventually, *ids, save_seconds=2.0)
    codes = {id: await agent.codes(id) for id in ids}
    pids = agent.worker_pids()
    assert len(pids) == len(ids)
    begun, still = time.monotonic(), pauses.total
    for pid in [*pids, agent.process.pid]:  # as a shutdown does: everybody at once
        os.kill(pid, signal.SIGTERM)
    assert await asyncio.wait_for(agent.process.wait(), 30) == 0
    took = time.monotonic() - begun - (pauses.total - still)
    assert took < 2.0 * len(ids), "they saved one after the other"
    assert not any(alive(pid) for pid in pids)
    for id in ids:
        assert "closed in order" in (agent.state / "run" / id / "worker.log").read_text()
    await agent.start(PATIENT)
    for id in ids:
        await eventually(lambda id=id: agent.status(id), "CONNECTED")
        assert await agent.codes(id) == codes[id]
