"""Where one run happens: a folder of its own, and the sessions that all supervise in turn."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.core.model import ConnectionStatus, Instance, InstanceId
from agent.core.words import Claim
from agent.errors import LinkError
from agent.link.client import Link, Listener
from agent.link.wire import peer_of
from agent.vault.identity import create
from scripts.benches.machine import TOP
from scripts.benches.processes import kill_marked

SETTINGS = {"scan": "auto", "scan_after": 0.1, "messages_per_minute": 0}
WORKER = (sys.executable, "-m", "agent.worker")
MARK = "WA_BENCH"
CONNECTED_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Site:
    place: Path
    ids: Sequence[InstanceId]

    @property
    def sessions(self) -> Path:
        return self.place / "sessions"

    def runtime(self, id: InstanceId) -> Path:
        return self.place / "run" / id

    def environment(self, tree: Path = TOP) -> dict[str, str]:
        """Ours alone, and marked, so that what is left at the end is found again. `tree`: the
        checkout whose program runs."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**kept, "PATH": path, "PYTHONPATH": str(tree), MARK: str(self.place)}

    def worker_environment(self, id: InstanceId) -> dict[str, str]:
        return {"WA_SESSION_ROOT": str(self.sessions), "RUNTIME_DIRECTORY": str(self.runtime(id))}

    def make_runtimes(self) -> None:
        for id in self.ids:
            self.runtime(id).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def open_site(instances: int) -> Iterator[Site]:
    """On a disk, not in memory: what is written and synced costs what it really costs."""
    place = Path(tempfile.mkdtemp(prefix="wa-bench-", dir="/var/tmp"))
    try:
        yield Site(place, [InstanceId(f"i{number:03}") for number in range(instances)])
    finally:
        if left := kill_marked(str(place)):
            print(f"killed {left} processes that were still there", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)


def make_sessions(site: Site) -> None:
    """Those that are not there yet; they pair themselves on their first start."""
    for id in site.ids:
        if not (site.sessions / id / "instance.json").exists():
            create(site.sessions, Instance(id, "sandbox", True, SETTINGS, time.time()))


class Supervisor(Protocol):
    """A program that keeps workers alive, as far as the measurements need it."""

    name: str
    version: str

    async def begin(self) -> None:
        """Ask for all workers; return without waiting for them."""

    async def end(self) -> None:
        """Stop all in order; return when nothing is left."""

    def own_pids(self) -> Sequence[int]:
        """Processes of the supervisor, whose children the workers are."""

    def link_path(self, id: InstanceId) -> Path: ...


async def all_connected(system: Supervisor, ids: Iterable[InstanceId]) -> dict[InstanceId, int]:
    """Wait until every worker says CONNECTED on its own link; their pids."""
    known = list(ids)
    found = await asyncio.gather(*(connected(system.link_path(id), id) for id in known))
    return dict(zip(known, found, strict=True))


async def connected(path: Path, id: InstanceId, not_pid: int = 0, every: float = 0.02) -> int:
    async with asyncio.timeout(CONNECTED_WITHIN):
        while True:
            if os.path.exists(path):  # noqa: PTH110 - asked thousands of times
                with contextlib.suppress(LinkError, OSError):
                    return await _hear_connected(path, id, not_pid)
            await asyncio.sleep(every)


async def _hear_connected(path: Path, id: InstanceId, not_pid: int) -> int:
    spoken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_claim(_run: str, claim: Claim) -> None:
        if claim.status is ConnectionStatus.CONNECTED and not spoken.done():
            spoken.set_result(None)

    def on_close(why: str) -> None:
        if not spoken.done():
            spoken.set_exception(LinkError(f"cannot hear {id}: {why}"))

    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        if (pid := peer_of(first)) == not_pid:
            raise LinkError(f"cannot hear {id}: it is the old one")
    link = await Link.open(path, id, pid, Listener(on_claim, lambda *_: None, on_close))
    try:
        await spoken
        return pid
    finally:
        spoken.cancel()
        await link.close()


def words(environment: Mapping[str, str]) -> str:
    """As supervisord's and systemd's files write an environment."""
    return ",".join(f'{name}="{value}"' for name, value in environment.items())
