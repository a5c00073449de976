"""Paired Baileys sessions of one agent in packs, as many as a small machine may have: created and
paired over the API, taken over by another agent, and cut off from WhatsApp for a minute.

All settings but `[worker] pack` and `[agent] host` are the agent's own.
"""

import asyncio
import shutil
import tempfile
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path

from agent.errors import HostError
from scripts.benches.baileys import DISK
from scripts.benches.machine import this_machine
from scripts.benches.processes import pss, tree
from scripts.benches.report import OURS, Goal, Report, Row
from scripts.messages.beds import BaileysBed
from tests.daemon.conftest import RunningAgent
from tests.standin.baileys.run import why_not

SETTINGS = '[agent]\nhost = "process"\n\n[worker]\npack = {pack}\n'
PACK = 50
MEMORY = 6 * 1024.0
"""MiB of a thousand and of all that keeps them."""
AT_ONCE = 8
"""Sessions that are paired side by side."""
CUT = 60.0
LOGINS = 2
"""Of one session after an outage, at most."""
BACK_AT_ONCE, BACK_EACH = 30, 0.2
"""`[start] logins` and `login_every`: the budget of logins."""
BACK_WITHIN = 1800.0


def measure(instances: int) -> Report:
    if reason := why_not("baileys"):
        raise HostError(f"cannot measure the baileys engine: {reason}")
    machine = this_machine()
    rows: list[Row] = []
    notes = [f"Packs of {PACK}; memory is PSS of the agent, the packs' workers and their Nodes."]
    try:
        asyncio.run(_run(instances, rows))
    except (KeyboardInterrupt, SystemExit):
        notes.append("Interrupted: the table has what was measured before.")
    except TimeoutError:
        notes.append(f"Ended: not all were connected within {BACK_WITHIN:.0f} s.")
    return Report("thousand", machine, {OURS: version("wa-agent")}, rows, notes)


async def _run(count: int, rows: list[Row]) -> None:
    """Add a row for each measure as soon as it is known."""
    root = Path(tempfile.mkdtemp(prefix="wa-bench-", dir=DISK))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        crowd = Crowd(root, count)
        await crowd.begin(stack)

        def add(measure_: str, unit: str, figure: float, limit: float | None = None) -> None:
            goal = None if limit is None else Goal("", limit)
            rows.append(Row(f"{count} sessions: {measure_}", unit, {OURS: [figure]}, goal))

        add("created, paired and connected", "s", await crowd.pair())
        used = sum(pss(pid) for pid in crowd.pids())
        add("memory of the whole", "MiB PSS", used, MEMORY)
        add("… of one", "MiB PSS", used / count)
        before = await crowd.logins()
        add("kill -9 of the agent → all adopted", "s", await crowd.replace_the_agent())
        after = await crowd.logins()
        dropped = sum(after[account] > logins for account, logins in before.items())
        add("… that logged in again for it", "", float(dropped), 0.0)
        budget = max(count - BACK_AT_ONCE, 0) * BACK_EACH
        limit = budget + 10.0
        add(f"back after {CUT:.0f} s without WhatsApp", "s", await crowd.cut_off(), limit)
        last = await crowd.logins()
        most = max(last[account] - logins for account, logins in after.items())
        add("… most logins of one", "", float(most), float(LOGINS))


class Crowd:
    def __init__(self, root: Path, count: int) -> None:
        self._root, self._ids = root, [f"s{n}" for n in range(1, count + 1)]
        self._bed = BaileysBed(root)

    async def begin(self, stack: AsyncExitStack) -> None:
        await self._bed.open(stack)
        config = self._root / "agent.toml"
        config.write_text(SETTINGS.format(pack=PACK), encoding="utf-8")
        self._agent = RunningAgent(self._root / "state", config)
        stack.push_async_callback(self._agent.close)
        self._agent.state.mkdir(mode=0o700)
        (self._agent.state / "cache").symlink_to(self._bed.cache)
        await self._agent.start()

    async def pair(self) -> float:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(id: str) -> None:
            async with places:
                await self._bed.add(self._agent, id)

        begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for id in self._ids:
                tasks.create_task(one(id))
        await self._until_connected()
        return time.monotonic() - begun

    async def replace_the_agent(self) -> float:
        """As a crash or an upgrade does it."""
        await self._agent.kill()
        begun = time.monotonic()
        await self._agent.start()
        await self._until_connected()
        return time.monotonic() - begun

    async def cut_off(self) -> float:
        """Seconds beyond the outage until all are connected."""
        await self._bed.cut(CUT)
        begun = time.monotonic()
        await self._until_connected()
        return time.monotonic() - begun

    async def logins(self) -> dict[str, int]:
        """By account."""
        devices = await asyncio.to_thread(self._bed.whatsapp.devices)
        return {device["user"]: device["logins"] for device in devices}

    def pids(self) -> set[int]:
        """The agent's, and of all that keeps its sessions."""
        assert self._agent.process is not None
        roots = (self._agent.process.pid, *self._agent.worker_pids())
        return {pid for root in roots for pid in tree(root)}

    async def _until_connected(self) -> None:
        """By WhatsApp's word and the agent's: each alone may be of before."""
        async with asyncio.timeout(BACK_WITHIN):
            while True:
                devices = await asyncio.to_thread(self._bed.whatsapp.devices)
                shown = (await self._agent.do("GET", "/api/instances"))["instances"]
                up = sum(bool(device["connected"]) for device in devices)
                told = sum(each["connection_status"] == "CONNECTED" for each in shown)
                if min(up, told) >= len(self._ids):
                    return
                await asyncio.sleep(0.5)
