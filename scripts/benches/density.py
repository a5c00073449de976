"""What a Baileys session costs by how many share one Node: packs of each size beside a Node for
each session, beside plain Baileys bots, pm2 keeping such bots and a real Evolution API, in one run.

Each size is a turn: paired, stopped, started together, at rest, a message a second for each
session, and then every Node killed. All speak with the tests' stand-in for WhatsApp, which tells
what was received: a receipt is the same for all of them.
"""

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.core.admission import parallel_starts
from agent.engines.baileys.fetch import fetch_packages
from agent.engines.baileys.node import find_node
from agent.engines.baileys.packages import find_packages
from agent.errors import ConfigError, HostError
from scripts.benches.baileys import (
    BOT,
    DISK,
    KEPT,
    WITHIN,
    Bots,
    Fleet,
    KeptBots,
    PackedWorkers,
    Workers,
    account,
    attempt,
    our_workers,
)
from scripts.benches.density_rows import (
    ALONE,
    EVOLUTION,
    FIRST,
    KINDS,
    PACK,
    SIZES,
    rows,
)
from scripts.benches.evolution import EvolutionSessions
from scripts.benches.machine import TOP, this_machine
from scripts.benches.packs import PackProcess, cost_of_a_crash
from scripts.benches.peers import PM2, NotHere
from scripts.benches.processes import pss, spent_in
from scripts.benches.report import OURS, Report
from scripts.real_evolution.server import version_of
from tests.standin.baileys.run import WhatsApp, why_not

LATE = 30.0
"""Seconds after the last message until one without a receipt counts as lost."""
RECEIVED = frozenset({"delivered", "inactive"})


@dataclass(frozen=True, slots=True)
class Times:
    settle: float = 10.0
    idle: float = 30.0
    messages: int = 30
    """For each session, one a second."""


@dataclass(frozen=True, slots=True)
class Places:
    cache: Path
    server: Path | None
    """A folder with a real Evolution API 2.x."""


def measure(
    sizes: Sequence[int] = SIZES,
    *,
    quick: bool,
    server: Path | None = None,
    minutes: float = float("inf"),
) -> Report:
    """Within so many minutes; what is not begun or ended by then is named."""
    if reason := why_not("baileys"):
        raise HostError(f"cannot measure the baileys engine: {reason}")
    machine, times = this_machine(), Times(3.0, 5.0, 5) if quick else Times()
    places = Places(Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache")), server)
    fetch_packages(places.cache)
    deadline = time.monotonic() + minutes * 60
    found: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(dict)
    missing: dict[str, str] = {}
    failed: list[str] = []
    notes = _notes(times)
    try:
        for kind, size in _order(sizes):
            if kind in missing:
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                failed.append(f"{kind}, {size}: no time is left of {minutes:g} minutes")
                continue
            turn = _turn(kind, size, times, places, found[size, kind])
            try:
                attempt(f"{kind}, {size}", _within(left, turn), failed)
            except (NotHere, ConfigError) as error:
                missing[kind] = str(error)
    except (KeyboardInterrupt, SystemExit):
        notes.append("Interrupted: the table has what was measured before.")
    notes += [f"Not measured: {kind}: {why}." for kind, why in missing.items()]
    notes += [f"Left out: {words}." for words in failed]
    return Report("density", machine, _versions(server), [*rows(sizes, found)], notes)


def _order(sizes: Sequence[int]) -> Iterator[tuple[str, int]]:
    for kind in KINDS[:FIRST]:
        yield from ((kind, size) for size in sizes)
    for size in sizes:
        yield from ((kind, size) for kind in KINDS[FIRST:])


async def _within(
    seconds: float, turn: Coroutine[Any, Any, dict[str, list[float]]]
) -> dict[str, list[float]]:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await turn
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError("the time of this run was over before its end") from error


async def _turn(
    kind: str,
    count: int,
    times: Times,
    places: Places,
    figures: dict[str, list[float]],
) -> dict[str, list[float]]:
    """Add to `figures` what `count` sessions of one kind cost: what was measured stays where a
    later part fails. All that it begins ends with it."""
    root = Path(tempfile.mkdtemp(prefix="wa-bench-", dir=DISK))
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        whatsapp = WhatsApp(root / "whatsapp.log")
        stack.callback(whatsapp.end)
        fleet = _open_fleet(kind, root, count, whatsapp, places)
        stack.push_async_callback(fleet.close)
        if isinstance(fleet, PackedWorkers | EvolutionSessions):
            await fleet.begin()
        # The first login of a session costs more than each later one; a fleet runs on later ones.
        await _side_by_side(fleet.pair, count)
        figures["start"] = [await _start_all(fleet, count)]
        await asyncio.sleep(times.settle)
        figures["idle"] = [await spent_in(fleet.pids(), times.idle) / count]
        figures["memory"] = [sum(pss(pid) for pid in fleet.pids()) / count]
        figures.update(await _messages(whatsapp, count, times.messages))
        figures.update(await _killed(fleet, count))
        return figures


def _open_fleet(
    kind: str, root: Path, count: int, whatsapp: WhatsApp, places: Places
) -> Fleet | EvolutionSessions:
    if kind == EVOLUTION:
        return EvolutionSessions(places.server, root, count, whatsapp)
    packages = find_packages(places.cache)
    if kind in (BOT, KEPT):
        return (Bots if kind == BOT else KeptBots)(root, count, whatsapp, packages)
    folders = [root / f"i{number}" for number in range(count)]
    if kind == ALONE:
        return Workers(*our_workers(folders, whatsapp, places.cache))
    packs = [PackProcess(root, places.cache, 1 + number) for number in range(-(-count // PACK))]
    return PackedWorkers(*our_workers(folders, whatsapp, places.cache, packs), packs)


async def _start_all(fleet: Fleet | EvolutionSessions, count: int) -> float:
    """Stop all; seconds of the start. A pack's Node begins with its sessions, pm2 gets one order
    for all, and Evolution's server connects all that it has."""
    if isinstance(fleet, EvolutionSessions):
        await fleet.kill()
        begun = time.perf_counter()
        await fleet.start_all()
        return time.perf_counter() - begun
    await _side_by_side(fleet.stop, count)
    if isinstance(fleet, PackedWorkers):
        await fleet.end()
    begun = time.perf_counter()
    if isinstance(fleet, KeptBots):
        for number in range(count):
            fleet.status(number).unlink()
        await fleet.ask("start", "all")
        await asyncio.gather(*(fleet.hear(number, "open") for number in range(count)))
        return time.perf_counter() - begun
    if isinstance(fleet, PackedWorkers):
        await fleet.begin()
    await _side_by_side(fleet.start, count)
    return time.perf_counter() - begun


async def _side_by_side(do: Callable[[int], Awaitable[object]], count: int) -> None:
    """As many at a time as the agent starts."""
    places = asyncio.Semaphore(parallel_starts(0, os.cpu_count() or 1))

    async def one(number: int) -> None:
        async with places:
            await do(number)

    await asyncio.gather(*map(one, range(count)))


async def _messages(whatsapp: WhatsApp, count: int, each: int) -> dict[str, list[float]]:
    """Each session hears from a contact of its own, who made its keys with a first message."""
    for number in range(count):
        await asyncio.to_thread(whatsapp.say, _contact(number), account(number), "first")
    said: dict[tuple[str, str], float] = {}
    begun = time.monotonic()
    for turn in range(each):
        for number in range(count):
            due = begun + turn + number / count
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            at = time.time()
            id = await asyncio.to_thread(
                whatsapp.say, _contact(number), account(number), f"message {turn}"
            )
            said[account(number), id] = at
    received: dict[tuple[str, str], float] = {}
    deadline = time.monotonic() + LATE
    while len(received) < len(said) and time.monotonic() < deadline:
        await asyncio.sleep(max(0.2, count * each / 4000))
        for device in await asyncio.to_thread(whatsapp.devices):
            for receipt in device["receipts"]:
                key = device["user"], receipt["id"]
                if key in said and receipt["type"] in RECEIVED:
                    received.setdefault(key, receipt["at"] / 1000)
    took = sorted(max(at - said[key], 0.0) * 1000 for key, at in received.items())
    lost = {"lost": [float(len(said) - len(received))]}
    if not took:
        return lost
    late = took[min(int(len(took) * 0.95), len(took) - 1)]
    return lost | {"latency": [statistics.median(took)], "late": [late]}


async def _killed(fleet: Fleet | EvolutionSessions, count: int) -> dict[str, list[float]]:
    """Seconds from the kill of all Nodes until all are connected; {}: nobody starts them again."""
    if isinstance(fleet, EvolutionSessions):
        return {"killed": [await _start_all(fleet, count)]}
    if isinstance(fleet, Workers):
        return {"killed": [await cost_of_a_crash(fleet.workers, fleet.pids)]}
    if not isinstance(fleet, KeptBots):
        return {}
    for number in range(count):
        fleet.status(number).unlink()
    begun = time.perf_counter()
    for pid in fleet.bots():
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*(fleet.hear(number, "open") for number in range(count)))
    return {"killed": [time.perf_counter() - begun]}


def _contact(number: int) -> str:
    return f"55117000{number:05d}"


def _versions(server: Path | None) -> dict[str, str]:
    node = subprocess.run([find_node(), "--version"], capture_output=True, text=True, check=True)
    return {
        OURS: f"{version('wa-agent')}, engine baileys in packs of {PACK}",
        ALONE: "the same engine without packs",
        BOT: f"baileys 7.0.0-rc14, Node {node.stdout.strip()}",
        KEPT: f"pm2 {PM2}",
        EVOLUTION: version_of(server) if server is not None else "",
    }


def _notes(times: Times) -> list[str]:
    return [
        "Ours are workers without an agent; pm2's figures hold its daemon, and Evolution's its"
        " server without its PostgreSQL.",
        "As many are started at a time as the agent starts; pm2 gets one order for all of them,"
        " and Evolution's server, which was killed, connects all that it has.",
        f"{times.messages} messages for each session, one a second, each from a contact of its"
        f" own; lost: no receipt {LATE:.0f} s after the last. Received is when the stand-in has"
        " the receipt. No record is written to a spool here.",
        "Killed: ours are asked to connect at once, as the agent does without its own delays; pm2"
        " starts the bots again by itself; nobody starts a plain bot again; Evolution's server is"
        " started at once.",
    ]
