"""A worker of the web engine with its folder, its link and its notices, as tests play with it."""

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.words import Claim, ConnectionStatus
from agent.errors import EngineError
from agent.link.client import Link
from tests.standin.web.stand_in import StandIn
from tests.waiting import alive
from tests.worker import conftest

ACCOUNT = "5511999999999"
ROOT = Path(__file__).parents[3]


class Bench(conftest.Bench):
    """One instance and its worker program, as a host and an agent see it."""

    patience = 60.0
    stderr = None

    def __init__(self, root: Path, cache: Path, url: str, id: str = "sales") -> None:
        super().__init__(root, id)
        self.url = f"{url}?name={id}"
        self.cache = cache

    async def start(
        self, *, user: int | None = None, first: str = "", paired: bool = False, **settings: Any
    ) -> Link:
        """Start a worker, connect to it as the agent does.

        `first`: Python that it runs before all else; `paired`: as the agent wrote it.
        """
        self.identity(engine="web", paired=paired, settings={"url": self.url, **settings})
        if self.link is not None:
            await self.link.close()  # with what an earlier worker said last
        self.program = _program(first)
        env = {"WA_CACHE_PATH": str(self.cache), "WA_BROWSER": os.environ.get("WA_BROWSER", "")}
        own = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        super().start(identity=False, watchdog=10, env=env, **own)
        return await self.linked()

    claimed = conftest.Bench.status

    async def came(self, status: ConnectionStatus, since: int) -> Claim:
        """Wait until `status` was claimed after `since` claims; another claim may have followed."""
        await self.until(lambda: any(claim.status is status for claim in self.claims[since:]))
        return next(claim for claim in self.claims[since:] if claim.status is status)

    async def pair(self, stand_in: StandIn, **settings: Any) -> str:
        """Bring a new worker to CONNECTED; the linked device's id."""
        await self.start(**settings)
        await self.claimed(ConnectionStatus.QR_REQUIRED)
        device = stand_in.scan(ACCOUNT, self.id)
        await self.claimed(ConnectionStatus.CONNECTED)
        return device

    async def browser(self) -> int:
        """The worker's one child, once it has one."""
        assert self.process is not None
        worker = self.process.pid
        await self.until(lambda: len(list(processes_below(worker))) > 1)
        return list(processes_below(worker))[1]

    async def probe(self, *names: str) -> Mapping[str, Any]:
        """Return a deep probe's answer once the page answers one with these details."""
        async with asyncio.timeout(60):
            while True:
                with suppress(EngineError):
                    told = await self.link.call("probe", {"deep": True})
                    if told["detail"].keys() >= {*names}:
                        return told
                await asyncio.sleep(0.1)

    async def detail(self, name: str) -> Any:
        return (await self.probe(name))["detail"][name]

    async def kill_worker(self) -> None:
        """Kill the worker; its browser ends with it, without being asked."""
        assert self.process is not None
        tree = list(processes_below(self.process.pid))
        self.process.kill()
        self.process.wait()
        await self.until(lambda: not any(alive(pid) for pid in tree))

    def be_patient(self) -> None:
        """From now on a start has all the time that it has without haste.py."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)

    async def stop(self, within: float = 60.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return await self.ended(within)

    async def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            await self.kill_worker()
        await super().clean_up()


def _program(first: str) -> list[str]:
    if not first:
        return ["-m", "agent.worker"]
    main = "import sys; from agent.worker.__main__ import main; sys.exit(main(sys.argv[1:]))"
    return ["-c", f"{first}; {main}"]


def processes_below(pid: int) -> Iterator[int]:
    """A process and all of its descendants that live; each of them may end meanwhile."""
    yield pid
    for task in entries(Path(f"/proc/{pid}/task")):
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                yield from processes_below(int(child))


def renderers_below(pid: int) -> list[int]:
    found = []
    for each in processes_below(pid):
        with suppress(OSError):
            if b"--type=renderer" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def entries(folder: Path) -> list[Path]:
    """Entries of a process's folder; none where the process has ended."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
