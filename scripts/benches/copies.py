"""Copies of busy Baileys sessions on one real PostgreSQL: processor time, lag, write-ahead log."""

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.clock import boot_now
from agent.core.model import InstanceId
from agent.files import write_whole
from agent.fleet.coordinator import Member
from agent.fleet.copies.take import Taken
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.postgres.schema import prepare
from agent.store.database import Store
from agent.supervise.fleet.stored import replicas
from agent.vault.identity import Identity
from scripts.benches.machine import this_machine
from scripts.benches.report import OURS, Goal, Report, Row
from tests.fleet.sites import Site
from tests.standin.postgres import Postgres, temporary_postgres
from tests.wings.moving.conftest import creds

FILES = 1100
EACH = 10.0
"""Seconds between two messages of a session."""
KEYS = 3
"""Files that a message changes: a key of its peer, and two more."""
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


@dataclass
class Busy:
    """What was written, and when it was stored."""

    site: Site
    lags: list[float] = field(default_factory=list)
    written: int = 0
    waiting: dict[str, list[float]] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)

    def watch(self) -> None:
        """A copy holds what was written before its files were read."""
        take = replicas.take_copy

        def taking(root: Path, identity: Identity, **more: Any) -> Taken:
            self.begun[identity.instance.id] = time.monotonic()
            return take(root, identity, **more)

        replicas.take_copy = taking  # type: ignore[assignment]
        coordinator: Any = self.site.coordinator
        for name in ("store_copy", "store_change"):
            setattr(coordinator, name, self._noting(getattr(coordinator, name)))

    def _noting(self, store: Any) -> Any:
        async def storing(member: Member, id: str, *content: Any, **more: Any) -> Any:
            begun = self.begun[id]
            stored = await store(member, id, *content, **more)
            now, waiting = time.monotonic(), self.waiting.get(id, [])
            if stored:
                self.lags += [now - at for at in waiting if at <= begun]
                self.waiting[id] = [at for at in waiting if at > begun]
            return stored

        return storing

    def message(self, id: str) -> None:
        folder = self.site.root / id / "session"
        for name in ("creds.json", *(f"session-{random.randrange(FILES)}.json" for _ in "12")):
            path = folder / name
            text = path.read_bytes() if name == "creds.json" else _key()
            write_whole(path, text, durable=False)
            self.written += len(text)
        self.waiting.setdefault(id, []).append(time.monotonic())


def _key() -> bytes:
    return json.dumps({"key": os.urandom(90).hex()}).encode()


def measure(sessions: int, *, quick: bool = False) -> Report:
    with temporary_postgres() as server, TemporaryDirectory(prefix="wa-copies-") as place:
        rows = asyncio.run(_measure(server, Path(place), sessions, 20.0 if quick else 120.0))
    return Report(
        f"copies of {sessions} busy sessions",
        this_machine(),
        {OURS: "this tree"},
        rows,
        [
            f"Each session has {FILES} files and a message each {EACH:g} s, which changes {KEYS}.",
            "The processor's time is the copying process's, with the writing of the files.",
        ],
    )


async def _measure(server: Postgres, place: Path, sessions: int, window: float) -> list[Row]:
    await prepare(server.url)
    (place / "sessions").mkdir(mode=0o700)
    store = await Store.open(place / "agent.db")
    coordinator = PostgresCoordinator(server.url, 6.0, 30.0)
    busy = Busy(Site(place / "sessions", store, coordinator))
    await busy.site.join("a")
    ids = [f"s{number}" for number in range(sessions)]
    made = place / "made"
    _fill(made)
    for id in ids:
        await busy.site.add(id, "baileys")
        files = [f"{made}/.", str(busy.site.root / id / "session")]
        await asyncio.to_thread(subprocess.run, ["cp", "-r", *files], check=True)
    async with busy.site.sending():
        await _until(lambda: all(_rests(busy.site, id) for id in ids), 600.0)
        busy.watch()
        wal, cpu, begun = int(server.sql(WAL)), time.process_time(), boot_now()
        await _write(busy, ids, window)
        spent = time.process_time() - cpu
        seconds, logged = boot_now() - begun, int(server.sql(WAL)) - wal
        await _until(lambda: not any(busy.waiting.values()), 60.0)
    left = sum(map(len, busy.waiting.values()))
    await store.close()
    await coordinator.close()
    lags = sorted([*busy.lags, *[60.0] * left])
    lag99 = lags[len(lags) * 99 // 100]
    return [
        Row("processor", "cores", {OURS: [spent / seconds]}, Goal("≤ 0.2", 0.2)),
        Row("lag, median", "s", {OURS: [lags[len(lags) // 2]]}),
        Row("lag, 99th percentile", "s", {OURS: [lag99]}, Goal("≤ 2", 2.0)),
        Row(
            "write-ahead log ÷ bytes that changed",
            "",
            {OURS: [logged / busy.written]},
            Goal("≤ 3", 3.0),
        ),
        Row("bytes that changed, a second", "kB", {OURS: [busy.written / seconds / 1e3]}),
    ]


def _rests(site: Site, id: str) -> bool:
    replica = site.replicas.of(InstanceId(id))
    return replica is not None and replica.mark is not None


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    end = boot_now() + seconds
    while not is_so():
        if boot_now() > end:
            return
        await asyncio.sleep(0.1)


def _fill(session: Path) -> None:
    session.mkdir(exist_ok=True)
    write_whole(session / "creds.json", json.dumps(creds()).encode(), durable=False)
    write_whole(session / "pre-key-1.json", _key(), durable=False)
    for number in range(FILES):
        write_whole(session / f"session-{number}.json", _key(), durable=False)


async def _write(busy: Busy, ids: list[str], window: float) -> None:
    """At an even pace: one session after the other, again and again."""
    begun, pause = time.monotonic(), EACH / len(ids)
    for number in range(int(window / pause)):
        await asyncio.sleep(max(begun + number * pause - time.monotonic(), 0.0))
        busy.message(ids[number % len(ids)])
