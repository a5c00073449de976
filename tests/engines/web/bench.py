"""A worker of the web engine with its folder, its link and its notices, as tests play with it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.core.words import Claim, ConnectionStatus, Happening, parse_instance_id
from agent.errors import EngineError
from agent.link.client import Link, Listener
from tests.standin.web.stand_in import StandIn
from tests.waiting import alive

ACCOUNT = "5511999999999"
ROOT = Path(__file__).parents[3]


class Bench:
    """One instance and its worker program, as a host and an agent see it."""

    def __init__(self, root: Path, cache: Path, url: str, id: str = "sales") -> None:
        self.id = parse_instance_id(id)
        self.root = root / "sessions"
        self.folder = self.root / id
        self.session = self.folder / "session"
        self.runtime = root / f"run-{id}"
        self.url = f"{url}?name={id}"
        self.cache = cache
        self.claims: list[Claim] = []
        self.happened: list[Happening] = []
        self.notices: list[str] = []
        self.runs = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.link_: Link | None = None
        self._all: list[subprocess.Popen[bytes]] = []
        self.folder.mkdir(parents=True)
        self.runtime.mkdir()
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setblocking(False)
        self._notify_path = self.runtime / "notify"
        folder = os.open(self.runtime, os.O_PATH)
        self._notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        asyncio.get_running_loop().add_reader(self._notify, self._hear)

    @property
    def link(self) -> Link:
        assert self.link_ is not None
        return self.link_

    async def start(
        self, *, user: int | None = None, first: str = "", paired: bool = False, **settings: Any
    ) -> Link:
        """Start a worker, connect to it as the agent does.

        `first`: Python that it runs before all else; `paired`: as the agent wrote it.
        """
        told = {"version": 1, "id": self.id, "engine": "web", "enabled": True, "paired": paired}
        told["settings"] = {"url": self.url, **settings}
        (self.folder / "instance.json").write_text(json.dumps(told))
        self.runs += 1
        if self.link_ is not None:
            await self.link_.close()  # with what an earlier worker said last
        self.notices.clear()
        self.claims.clear()
        self.process = subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds, in a test
            [sys.executable, *_program(first), self.id],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "NOTIFY_SOCKET": str(self._notify_path),
                "WATCHDOG_USEC": "10000000",
                "INVOCATION_ID": f"run{self.runs}",
                "RUNTIME_DIRECTORY": str(self.runtime),
                "WA_SESSION_ROOT": str(self.root),
                "WA_CACHE_PATH": str(self.cache),
                "WA_BROWSER": os.environ.get("WA_BROWSER", ""),
            },
            stdin=subprocess.DEVNULL,
            **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
        )
        self._all.append(self.process)
        started = self.process
        await self.until(
            lambda: started.poll() is not None or any("READY=1" in each for each in self.notices)
        )
        assert started.poll() is None, "the worker ended"
        self.link_ = await Link.open(
            self.runtime / "link.sock",
            self.id,
            self.process.pid,
            Listener(
                lambda _run, claim: self.claims.append(claim),
                lambda _run, happening: self.happened.append(happening),
                lambda _why: None,
            ),
            timeout=60.0,
        )
        return self.link_

    async def claimed(
        self, status: ConnectionStatus, reason: str = "", *, within: float = 60.0
    ) -> Claim:
        """Wait until this is the newest claim."""

        def found() -> bool:
            last = self.claims[-1] if self.claims else None
            return last is not None and (last.status, last.reason) == (status, reason)

        try:
            await self.until(found, within=within)
        except AssertionError as error:
            shown = [f"{c.status} {c.reason} {c.phase} {c.raw}" for c in self.claims]
            raise AssertionError(f"wanted {status} {reason}, heard {shown}") from error
        return self.claims[-1]

    async def came(self, status: ConnectionStatus, since: int) -> Claim:
        """Wait until this was claimed after so many claims; another one may have followed."""
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
        """What a deep probe tells, once the page answers one and tells these details of itself."""
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
        """Its browser ends with it, without being asked."""
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
        process = self.process
        process.terminate()
        await self.until(lambda: process.poll() is not None, within=within)
        return int(process.returncode)

    @staticmethod
    async def until(probe: Callable[[], Any], *, within: float = 60.0) -> None:
        deadline = asyncio.get_running_loop().time() + within
        while not probe():
            assert asyncio.get_running_loop().time() < deadline, f"not within {within} s"
            await asyncio.sleep(0.02)

    async def clean_up(self) -> None:
        asyncio.get_running_loop().remove_reader(self._notify)
        self._notify.close()
        if self.link_ is not None:
            await self.link_.close()
        if self.process is not None and self.process.poll() is None:
            await self.kill_worker()
        for process in self._all:
            process.kill()
            process.wait()

    def _hear(self) -> None:
        while True:
            try:
                self.notices.append(self._notify.recv(65536).decode())
            except BlockingIOError:
                return


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
    """Of a process's folder; none where it has ended."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
