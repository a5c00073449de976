"""What it costs one session to keep what arrives and to give it to a reader; and how long a
message takes, beside a plain bot; and what a session costs that rests."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.wings.messages.record import clean
from agent.wings.messages.spool.line import Entry, entry_of
from agent.wings.messages.spool.page import Bounds
from agent.wings.messages.spool.spool import Spool
from scripts.benches.idle_messages import WITHOUT, measure_idle
from scripts.benches.machine import CACHE, this_machine
from scripts.benches.message_paths import PLAIN, measure_paths
from scripts.benches.report import OURS, Report, Row
from tests.standin.baileys.run import why_not

RECORDS = 100_000
WRITES = 200
SESSIONS, RESTS = 6, 60.0
"""That rest, and for so many seconds."""
PATHS = 200
"""Messages of each path, beside a plain bot."""


def measure(*, quick: bool = False) -> Report:
    count = RECORDS // 10 if quick else RECORDS
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        rows = list(_rows(Path(name) / "messages", count))
    notes = [f"resting: {SESSIONS} sandbox sessions; “{WITHOUT}”: [messages] of the same agent"]
    versions = {OURS: version("wa-agent"), WITHOUT: "wa-agent"}
    with tempfile.TemporaryDirectory(prefix="wa-bench-", dir="/var/tmp") as name:
        seconds = RESTS / 6 if quick else RESTS
        rows += asyncio.run(measure_idle(Path(name) / "idle", SESSIONS, seconds))
    if reason := why_not("baileys"):
        notes.append(f"no message's path was measured: {reason}")
    else:
        with tempfile.TemporaryDirectory(prefix="wa-bench-", dir="/var/tmp") as name:
            rows += asyncio.run(measure_paths(Path(name), PATHS // 10 if quick else PATHS))
        versions[PLAIN] = "its Baileys is ours"
    notes += [f"{count:,} text messages on the disk of {CACHE}, one fdatasync for each write"]
    return Report("messages", this_machine(), versions, rows, notes)


def _rows(folder: Path, count: int) -> Iterator[Row]:
    bounds = Bounds(most=2 * count)
    begun = time.perf_counter()
    entries = [entry(number) for number in range(count)]
    yield _row("a record is checked and encoded", begun, count)
    spool, taken = Spool(folder, bounds), 0
    for share in (1, 10, 100, 1000):
        writes = min(WRITES, count // 5 // share)
        begun = time.perf_counter()
        for _ in range(writes):
            spool.append(entries[taken : taken + share])
            taken += share
        yield _row(f"a record is kept, {share} with one write", begun, writes * share)
    spool.append(entries[taken:])
    for limit in (100, 1000):
        begun, after = time.perf_counter(), 0
        while (page := spool.page(after, limit)).records:
            after = page.next
        yield _row(f"a record is read, in pages of {limit}", begun, count)
    spool.close()
    begun = time.perf_counter()
    Spool(folder, bounds).open()
    yield _row("a record is looked at when the spool is opened", begun, count)


def _row(measure: str, begun: float, count: int) -> Row:
    return Row(measure, "µs", {OURS: [(time.perf_counter() - begun) / count * 1e6]})


def entry(number: int) -> Entry:
    chat = f"55119{number % 997:08}@s.whatsapp.net"
    record: dict[str, Any] = {
        "id": f"m:{chat}:{chat}:3EB0{number:016X}",
        "kind": "message",
        "at": 1_790_000_000 + number,
        "chat": chat,
        "from_me": False,
        "sender": chat,
        "alias": f"{number:015}@lid",
        "message_id": f"3EB0{number:016X}",
        "type": "text",
        "text": "Olá, o pedido já saiu para entrega? " * 2,
        "name": "Maria",
        "fresh": True,
    }
    return entry_of(clean(record))
