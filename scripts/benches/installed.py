"""The installed agent on a booted systemd, beside the same units without it.

What hardening and units cost, both have; what is left between them is the agent.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from agent.core.model import InstanceId
from scripts.benches.footprint import Shape, as_good_as, fixed
from scripts.benches.machine import this_machine
from scripts.benches.ours import Client
from scripts.benches.peers import NotHere
from scripts.benches.processes import children, cpu, new_child, uss
from scripts.benches.report import OURS, Report
from scripts.benches.rounds import QUICK, SETTLE, Figures, Times, kills
from scripts.benches.site import all_connected
from scripts.benches.systemd import systemd_version
from tests.ports import free_port
from tests.system.bed import CHECKOUT, Bed

AGENT, SOCKET = "wa-agent.service", "wa-agent.socket"
PLAIN = "systemd alone"
LONGEST = 300.0


def measure(instances: int, *, quick: bool) -> Report:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        raise SystemExit("scripts/bench: needs root and systemd-nspawn (Debian: systemd-container)")
    times, machine = (QUICK if quick else Times()), this_machine()
    if instances < 2 * times.kills:
        raise SystemExit(f"scripts/bench: needs at least {2 * times.kills} instances")
    ids = [InstanceId(f"i{number:03}") for number in range(instances)]
    bed = Bed.make()
    try:
        found = asyncio.run(_measure_both(_install(bed, ids), times))
    finally:
        bed.close()
    rows = [row for shape in _shapes(instances) if (row := shape.row(found)) is not None]
    versions = {OURS: version("wa-agent"), PLAIN: systemd_version()}
    return Report("systemd", machine, versions, rows, _notes(times))


@dataclass(slots=True)
class Installed:
    """As `Client` and the measurements need it: the agent and its units in the container."""

    bed: Bed
    port: int
    ids: Sequence[InstanceId]

    @property
    def state(self) -> Path:
        return self.bed.path("/run/wa-agent")

    @property
    def units(self) -> Sequence[str]:
        return [f"wa-instance@{id}.service" for id in self.ids]

    def check_alive(self) -> None:
        if self.bed.nspawn is None or self.bed.nspawn.poll() is not None:
            raise RuntimeError(f"cannot measure: the container ended\n{self.bed.messages()}")

    def link_path(self, id: InstanceId) -> Path:
        return self.bed.path(f"/run/wa-instance/{id}/link.sock")

    def parents(self) -> Sequence[int]:
        return [self.bed.init]

    async def systemctl(self, *words: str) -> None:
        await asyncio.to_thread(self.bed.run, "systemctl", *words, within=LONGEST)

    async def agent_pid(self) -> int:
        inside = await asyncio.to_thread(self.bed.show, AGENT, "MainPID")
        return await asyncio.to_thread(self.bed.outside_pid, int(inside))


def _install(bed: Bed, ids: Sequence[InstanceId]) -> Installed:
    print("installing ...", file=sys.stderr)
    done = bed.chroot(CHECKOUT / "scripts/install")
    if done.returncode:
        raise NotHere(f"cannot install in the container: {done.stdout}{done.stderr}")
    bed.port = free_port()
    bed.write(
        "/etc/systemd/system/wa-agent-http.socket.d/bench.conf",
        f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{bed.port}\n",
    )
    bed.write(
        "/etc/wa-agent/agent.toml",
        "[api]\ntrust_loopback = true\n[memory]\ntotal = 0\n"
        f"[start]\nstagger = 0\nspread = 0\nlogin_every = 0\nparallel = {len(ids)}\n",
    )
    bed.boot()
    return Installed(bed, bed.port, ids)


async def _measure_both(host: Installed, times: Times) -> dict[str, Figures]:
    print(f"measuring {OURS} ...", file=sys.stderr)
    ours = await _with_agent(host, times)
    print(f"measuring {PLAIN} ...", file=sys.stderr)
    return {OURS: ours, PLAIN: await _without_agent(host, times)}


async def _with_agent(host: Installed, times: Times) -> Figures:
    figures = Figures(list)
    async with Client(host) as client:
        await client.answers()
        await client.create_all()
        await client.all_connected()
        for _ in range(times.starts):
            await asyncio.sleep(SETTLE)
            figures["stop"].append(await _took(host.systemctl("stop", AGENT)))
            await host.systemctl("reset-failed")
            begun = time.perf_counter()
            await host.systemctl("start", SOCKET, AGENT)
            await client.all_connected()
            figures["start"].append(time.perf_counter() - begun)
        await _at_rest(host, times, figures)
        await _kills(host, client, times, figures)
        await _adoptions(host, client, times, figures)
    await host.systemctl("stop", AGENT)
    return figures


async def _without_agent(host: Installed, times: Times) -> Figures:
    figures = Figures(list)
    for turn in range(times.starts):
        await host.systemctl("reset-failed")
        begun = time.perf_counter()
        await host.systemctl("start", "--no-block", *host.units)
        workers = await all_connected(host, host.ids)
        figures["start"].append(time.perf_counter() - begun)
        if turn < times.starts - 1:
            await asyncio.sleep(SETTLE)
            figures["stop"].append(await _took(host.systemctl("stop", *host.units)))
    await asyncio.sleep(times.settle)
    figures["idle manager"].append(await _cpu_per_minute([host.bed.init], times.idle))
    await kills(host, workers, host.ids[: times.kills], figures)
    await host.systemctl("stop", *host.units)
    return figures


async def _at_rest(host: Installed, times: Times, figures: Figures) -> None:
    await asyncio.sleep(times.settle)
    agent = await host.agent_pid()
    both = await asyncio.gather(
        _cpu_per_minute([agent], times.idle), _cpu_per_minute([host.bed.init], times.idle)
    )
    figures["idle"].append(both[0])
    figures["idle manager"].append(both[1])
    figures["agent uss"].append(uss(agent))


async def _cpu_per_minute(pids: Sequence[int], seconds: float) -> float:
    before, begun = cpu(pids), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu(pids) - before) * 60 / (time.monotonic() - begun)


async def _kills(host: Installed, client: Client, times: Times, figures: Figures) -> None:
    """As `rounds.kills`, but CONNECTED is what the agent publishes."""
    for id in host.ids[-times.kills :]:
        inside = (await client.get(f"/api/instance/{id}/details"))["unit"]["main_pid"]
        worker = await asyncio.to_thread(host.bed.outside_pid, inside)
        before = children(host.parents())
        begun = time.perf_counter()
        os.kill(worker, signal.SIGKILL)
        await new_child(host.parents(), before)
        figures["new pid"].append((time.perf_counter() - begun) * 1000)
        await client.connected_again(id, inside)
        figures["connected again"].append((time.perf_counter() - begun) * 1000)
        await asyncio.sleep(SETTLE / 4)


async def _adoptions(host: Installed, client: Client, times: Times, figures: Figures) -> None:
    """kill -9 the agent; systemd starts the next one, which must find every worker as it was."""
    for _ in range(times.adoptions):
        lost, agent = await client.losses(), await host.agent_pid()
        begun = time.perf_counter()
        os.kill(agent, signal.SIGKILL)
        await client.answers()
        figures["adoption api"].append(time.perf_counter() - begun)
        await client.all_connected()
        figures["adoption"].append(time.perf_counter() - begun)
        figures["adoption lost"].append(max(await client.losses() - lost, 0))
        await asyncio.sleep(SETTLE)


async def _took(work: Awaitable[None]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def _shapes(instances: int) -> list[Shape]:
    return [
        Shape("agent uss", "own memory (USS) of the agent", "MiB", fixed(45.0)),
        Shape("idle", "idle CPU of the agent", "s/min", fixed(0.1 + 0.05 * instances / 100)),
        Shape("idle manager", "idle CPU of PID 1", "s/min"),
        Shape(
            "start",
            f"start {instances} → all CONNECTED",
            "s",
            as_good_as(PLAIN, "start", 1.3),
        ),
        Shape("stop", "stop all in order", "s"),
        Shape(
            "new pid",
            "kill -9 worker → new PID, RestartSec=100ms",
            "ms",
            as_good_as(PLAIN, "new pid", 1.05),
        ),
        Shape("connected again", "kill -9 worker → CONNECTED", "ms", fixed(500.0)),
        Shape("adoption api", "kill -9 agent → the API answers", "s", fixed(2.0)),
        Shape("adoption", "kill -9 agent → all adopted and CONNECTED", "s", fixed(2.0)),
        Shape("adoption lost", "… sessions dropped or workers replaced by it", "", fixed(0.0)),
    ]


def _notes(times: Times) -> list[str]:
    return [
        "scripts/install in a container that systemd booted; every worker is a unit with all "
        "its hardening, and a Python of its own, in both columns.",
        f"{PLAIN}: the agent is stopped, `systemctl start` begins the same units; CONNECTED is "
        "what the worker says. With the agent it is what the agent publishes.",
        f"Idle over {times.idle:g} s after {times.settle:g} s of rest, one window.",
        "The next agent begins 200 ms after a kill (RestartSec of its unit).",
    ]
