"""One session of the baileys engine, worker and Node together, beside a plain Baileys bot in Node
and beside the web engine, and many in one Node; in turns in one run.

All speak with stand-ins for WhatsApp on this machine. A plain bot runs as its users start it: the
same unmodified package, `useMultiFileAuthState`, no flags of Node.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.core.model import ConnectionStatus
from agent.engines.baileys.fetch import fetch_packages
from agent.engines.baileys.node import find_node, find_packages
from agent.engines.program.process import descendants
from agent.errors import ConfigError, HostError, LinkError
from scripts.benches import web
from scripts.benches.lone_worker import WITHIN, LoneWorker
from scripts.benches.machine import TOP, this_machine
from scripts.benches.packs import Member, PackProcess, cost_of_a_crash
from scripts.benches.processes import cpu, launch, pss, spent_in
from scripts.benches.report import OURS, Goal, Report, Row
from tests.standin.baileys.run import WhatsApp, why_not
from tests.standin.web.stand_in import StandIn

BOT, WEB = "plain bot", "wa-agent, web engine"
MEMORY, START, KILLED = 55.0, 1.5, 5.0
"""Goals: MiB that a session may use together with its worker, seconds that a paired one may start,
and seconds until all are connected whose Nodes were killed at once."""
KINDS = (OURS, BOT, WEB)
PROGRAM = Path(__file__).with_name("plain_bot.mjs")
PACKS = (20, 50)
PACKED, SENT = 5.0, 200.0
"""Goals: MiB that a session may use in the largest of these packs, with its worker, and the median
of its sends (ms), while each sends one a second."""
SENDS = 20
DISK = "/var/tmp"
"""Not in memory: what is written and synced costs what it really costs."""
QUIET = 2.0


class Workers:
    """Our workers; `scan` plays the phone for one that shows a code."""

    def __init__(
        self, workers: Sequence[LoneWorker], scan: Callable[[LoneWorker, int], Awaitable[None]]
    ) -> None:
        self.workers, self._scan = workers, scan

    async def pair(self, number: int) -> None:
        worker = self.workers[number]
        await worker.start()
        await worker.until_code()
        await self._scan(worker, number)
        await worker.until_connected()

    async def stop(self, number: int) -> None:
        await self.workers[number].stop()

    async def start(self, number: int) -> float:
        """Seconds until it is connected again."""
        begun = time.perf_counter()
        await self.workers[number].start()
        await self.workers[number].until_connected()
        return time.perf_counter() - begun

    def pids(self) -> list[int]:
        return [pid for worker in self.workers for pid in (worker.pid, *descendants(worker.pid))]

    async def close(self) -> None:
        for worker in self.workers:
            await worker.stop()


class Bots:
    """Plain Node programs; each says in a file what happens to it."""

    def __init__(self, root: Path, count: int, whatsapp: WhatsApp, packages: Path) -> None:
        self._root = root
        self._lines = []
        for number in range(count):
            folder = root / f"i{number}" / "session"
            folder.mkdir(parents=True)
            line = (packages, folder, whatsapp.socket, whatsapp.url, account(number), 0)
            self._lines.append([*map(str, line)])
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    async def pair(self, number: int) -> None:
        await self._launch(number)
        await self.hear(number)

    async def start(self, number: int) -> float:
        """From the first breath of its process: what a supervisor needs before is left out."""
        self.status(number).unlink()
        await self._launch(number)
        return await self.hear(number)

    async def _launch(self, number: int) -> None:
        command: list[str | Path] = [find_node(), PROGRAM, *self._lines[number]]
        env = {"PATH": os.environ["PATH"], "HOME": str(self._root)}
        self._processes[number] = launch(command, env, self._root, "bots.log")

    async def stop(self, number: int) -> None:
        await self._written(number)
        process = self._processes.pop(number)
        process.terminate()
        await asyncio.to_thread(process.wait, WITHIN)

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes.values()]

    async def close(self) -> None:
        for number in list(self._processes):
            await self.stop(number)

    async def _written(self, number: int) -> None:
        """A plain bot that is stopped while it writes its credentials loses the pairing."""
        folder = self._root / f"i{number}" / "session" / "auth"
        async with asyncio.timeout(WITHIN):
            while time.time() - _newest(folder) < QUIET:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def status(self, number: int) -> Path:
        return self._root / f"i{number}" / "session" / "status"

    async def hear(self, number: int) -> float:
        """Seconds of its process until its last login."""
        async with asyncio.timeout(WITHIN):
            while True:
                with suppress(FileNotFoundError, IndexError):
                    text = self.status(number).read_text(encoding="utf-8")
                    return float(json.loads(text.splitlines()[-1])["seconds"])
                await asyncio.sleep(0.01)


def _newest(folder: Path) -> float:
    """When one of its files was written last; the bot removes keys meanwhile."""
    found = 0.0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found = max(found, path.stat().st_mtime)
    return found


def account(number: int) -> str:
    return f"55119000{number:05d}"


def measure(instances: int, *, quick: bool) -> Report:
    if reason := why_not("baileys"):
        raise HostError(f"cannot measure the baileys engine: {reason}")
    machine = this_machine()
    times = web.Times(1, 3.0, 5.0) if quick else web.Times()
    cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
    fetch_packages(cache)
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    missing: dict[str, str] = {}
    failed: list[str] = []
    for _ in range(times.rounds):
        # In turns, so that what else the machine does falls on all of them.
        for name in KINDS:
            if name in missing:
                continue
            try:
                measured = attempt(name, _round(name, instances, times, cache), failed)
            except ConfigError as error:
                missing[name] = str(error)
                continue
            for measure_, values in measured.items():
                figures[measure_][name] += values
        for size in PACKS:
            measured = attempt(f"a pack of {size}", _pack_round(size, times, cache), failed)
            for measure_, values in measured.items():
                figures[f"{measure_} in {size}"][OURS] += values
    rows = [
        *web.rows_at_rest(instances, figures, Goal("", MEMORY)),
        Row("from stopped to connected, paired", "s", figures["start"], Goal("", START)),
        Row("… its processor time", "s", figures["start cpu"]),
        Row(f"{instances} Nodes killed: all connected", "s", figures["killed"], Goal("", KILLED)),
        *(row for size in PACKS for row in _pack_rows(size, figures)),
    ]
    node = subprocess.run([find_node(), "--version"], capture_output=True, text=True, check=True)
    versions = {
        OURS: f"{version('wa-agent')}, engine baileys",
        BOT: f"baileys 7.0.0-rc14, Node {node.stdout.strip()}",
        WEB: "with chrome-headless-shell",
    }
    notes = [
        "Ours is the worker with its Node, started without an agent. A bot's start is counted from"
        " its process's beginning, ours from the order to start the worker.",
        "WhatsApp is the tests' stand-in for the library, and a stand-in page for the web engine.",
        *(f"not measured: {name}: {why}" for name, why in missing.items()),
        *(f"left out: {words}" for words in failed),
    ]
    return Report("baileys", machine, versions, rows, notes)


def attempt(
    what: str, work: Coroutine[Any, Any, dict[str, list[float]]], failed: list[str]
) -> dict[str, list[float]]:
    """Return the figures; none where a session did not start in time, which is added to
    `failed`."""
    print(f"measuring {what} ...", file=sys.stderr)
    try:
        return asyncio.run(work)
    except (TimeoutError, LinkError) as error:
        why = str(error) or f"a session did not start within {WITHIN:.0f} s"
        failed.append(f"a run of {what}: {why}")
        print(failed[-1], file=sys.stderr)
        return {}


async def _round(name: str, count: int, times: web.Times, cache: Path) -> dict[str, list[float]]:
    root = Path(tempfile.mkdtemp(prefix="wa-bench-", dir=DISK))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        fleet = await _open_fleet(name, root, count, cache, stack)
        stack.push_async_callback(fleet.close)
        starts, spent = await _pair_and_restart(fleet, count)
        await asyncio.sleep(times.settle)
        pids = fleet.pids()
        idle = await spent_in(pids, times.idle)
        found = {
            "memory": [sum(pss(pid) for pid in fleet.pids()) / count],
            "processes": [len(pids) / count],
            "cpu": [idle / count],
            "start": [statistics.median(starts)],
            "start cpu": [statistics.median(spent)],
        }
        if name == OURS:
            assert isinstance(fleet, Workers)
            found["killed"] = [await cost_of_a_crash(fleet.workers, fleet.pids())]
        return found


def _pack_rows(size: int, figures: Mapping[str, Mapping[str, list[float]]]) -> list[Row]:
    goal, sent = (Goal("", PACKED), Goal("", SENT)) if size == max(PACKS) else (None, None)
    return [
        Row(f"memory of one, pack of {size}", "MiB PSS", figures[f"memory in {size}"], goal),
        Row(f"of that in the shared Node, pack of {size}", "MiB PSS", figures[f"node in {size}"]),
        Row(f"from stopped to connected, pack of {size}", "s", figures[f"start in {size}"]),
        Row(f"one a second each, pack of {size}: median", "ms", figures[f"sent in {size}"], sent),
        Row(f"Node killed: all {size} connected again", "s", figures[f"crash in {size}"]),
    ]


async def _pack_round(size: int, times: web.Times, cache: Path) -> dict[str, list[float]]:
    root = Path(tempfile.mkdtemp(prefix="wa-bench-", dir=DISK))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        whatsapp = WhatsApp(root / "whatsapp.log")
        stack.callback(whatsapp.end)
        pack = PackProcess(root, cache)
        folders = [root / f"i{number}" for number in range(size)]
        fleet = Workers(*our_workers(folders, whatsapp, cache, pack))
        stack.push_async_callback(pack.stop)
        stack.push_async_callback(fleet.close)
        await pack.start()
        starts, _ = await _pair_and_restart(fleet, size)
        await asyncio.sleep(times.settle)
        memory = {pid: pss(pid) for pid in pack.pids}
        shared = sum(memory[pid] for pid in pack.pids if pid != pack.pid)
        return {
            "sent": [await _median_of_sends(fleet.workers)],
            "memory": [sum(memory.values()) / size],
            "node": [shared / size],
            "start": [statistics.median(starts)],
            "crash": [await cost_of_a_crash(fleet.workers, pack.pids)],
        }


async def _median_of_sends(workers: Sequence[LoneWorker]) -> float:
    took: list[float] = []

    async def send_on(worker: LoneWorker, number: int) -> None:
        await asyncio.sleep(number / len(workers))
        for turn in range(SENDS):
            begun = time.perf_counter()
            message = {"to": account(900), "type": "text", "text": f"{number} {turn}"}
            await worker.link.call("send", {"message": message}, timeout=WITHIN)
            took.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(max(0.0, begun + 1.0 - time.perf_counter()))

    async with asyncio.TaskGroup() as tasks:
        for number, worker in enumerate(workers):
            tasks.create_task(send_on(worker, number), name=f"sender {number}")
    return statistics.median(took)


async def _pair_and_restart(fleet: Workers | Bots, count: int) -> tuple[list[float], list[float]]:
    """Return seconds and processor time of each start. The first login of a session costs more than
    each later one; a fleet runs on later ones."""
    for number in range(count):
        await fleet.pair(number)
    starts: list[float] = []
    spent: list[float] = []
    for number in range(count):
        await fleet.stop(number)
        before = set(fleet.pids())
        starts.append(await fleet.start(number))
        spent.append(cpu(set(fleet.pids()) - before))
    return starts, spent


async def _open_fleet(
    name: str, root: Path, count: int, cache: Path, stack: AsyncExitStack
) -> Workers | Bots:
    """With the stand-in that it speaks to; `stack` ends that."""
    folders = [root / f"i{number}" for number in range(count)]
    if name == WEB:
        page = await StandIn.open(qr_every=300, alive_every=5)
        stack.push_async_callback(page.close)
        browsers = [web.ours(folder, page.url, cache, "headless-shell") for folder in folders]
        web.give_away(root)

        async def scan_page(_worker: LoneWorker, number: int) -> None:
            page.scan(account(number), f"i{number}")

        return Workers(browsers, scan_page)
    whatsapp = WhatsApp(root / "whatsapp.log")
    stack.callback(whatsapp.end)
    if name != OURS:
        return Bots(root, count, whatsapp, find_packages(cache))
    return Workers(*our_workers(folders, whatsapp, cache))


def our_workers(
    folders: Sequence[Path], whatsapp: WhatsApp, cache: Path, pack: PackProcess | None = None
) -> tuple[Sequence[LoneWorker], Callable[[LoneWorker, int], Awaitable[None]]]:
    """With what plays the phone for one that shows a code."""
    settings = {"url": whatsapp.socket}
    workers = [
        Member(folder, settings, cache, pack)
        if pack
        else LoneWorker(folder, "baileys", settings, cache)
        for folder in folders
    ]

    async def scan(worker: LoneWorker, number: int) -> None:
        code: Any = await worker.link.call("qr")
        await asyncio.to_thread(whatsapp.scan, code["qr"]["text"], account(number))
        # WhatsApp ends the connection after a scan; the agent connects again.
        await worker.until(ConnectionStatus.DISCONNECTED)
        await worker.link.call("connect", timeout=WITHIN)

    return workers, scan
