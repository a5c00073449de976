"""The real worker program with its real sockets, played with as a host and an agent do."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.core.words import Claim, ConnectionStatus, Happening, parse_instance_id
from agent.link.client import Link, Listener

QUICK = {"scan_after": 0.05, "login_seconds": 0.01, "sync_seconds": 0.02}


class Bench:
    """One instance's folder and its worker, started as often as a test wants."""

    program = ("-m", "agent.worker")
    quick: Mapping[str, Any] = QUICK
    patience = 5.0
    stderr: int | None = subprocess.PIPE

    def __init__(self, root: Path, id: str = "sales") -> None:
        self.root = root / "sessions"
        self.folder = self.root / id
        self.session = self.folder / "session"
        self.runtime = root / "run"
        self.folder.mkdir(parents=True)
        self.runtime.mkdir(parents=True)
        self.id = parse_instance_id(id)
        self.notices: list[str] = []
        self.claims: list[Claim] = []
        self.happened: list[Happening] = []
        self.closed: list[str] = []
        self.link: Link | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.runs = 0
        self._links: list[Link] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setblocking(False)
        self._notify_path = root / "notify"
        folder = os.open(root, os.O_PATH)
        self._notify.bind(f"/proc/self/fd/{folder}/notify")
        os.close(folder)
        asyncio.get_running_loop().add_reader(self._notify, self._hear)

    def identity(self, **changes: Any) -> None:
        told = {"version": 1, "id": self.id, "engine": "sandbox", "enabled": True, "settings": {}}
        told |= {"lineage": f"{hash(self.root)} {os.getpid()}", **changes}
        (self.folder / "instance.json").write_text(json.dumps(told))

    def environment(self, watchdog: float | None = None) -> dict[str, str]:
        self.runs += 1
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "NOTIFY_SOCKET": str(self._notify_path),
            "INVOCATION_ID": f"run{self.runs}",
            "RUNTIME_DIRECTORY": str(self.runtime),
            "WA_SESSION_ROOT": str(self.root),
        }
        if watchdog is not None:
            env["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        return env

    def start(
        self,
        *,
        settings: dict[str, Any] | None = None,
        watchdog: float | None = None,
        argument: str | None = None,
        identity: bool = True,
        env: dict[str, str] | None = None,
        **own: Any,
    ) -> subprocess.Popen[bytes]:
        if identity:
            self.identity(settings={**self.quick, **(settings or {})})
        self._hear()  # what the run before has sent, or its READY would be taken for this one's
        self.notices.clear()
        self.process = subprocess.Popen(
            [sys.executable, *self.program, self.id if argument is None else argument],
            env={**self.environment(watchdog), **(env or {})},
            stdin=subprocess.DEVNULL,
            stderr=self.stderr,
            **own,
        )
        self._processes.append(self.process)
        return self.process

    async def linked(self) -> Link:
        """Connect as the agent does, as soon as the worker listens."""
        ended = self.process.poll
        await self.until(lambda: "READY=1" in "\n".join(self.notices) or ended() is not None)
        assert ended() is None, "the worker ended"
        self.claims.clear()
        listener = Listener(
            lambda _run, claim: self.claims.append(claim),
            lambda _run, happening: self.happened.append(happening),
            self.closed.append,
        )
        path, pid = self.runtime / "link.sock", self.process.pid
        self.link = await Link.open(path, self.id, pid, listener, timeout=self.patience)
        self._links.append(self.link)
        return self.link

    async def connected(self, **how: Any) -> Link:
        self.start(**how)
        link = await self.linked()
        await self.status(ConnectionStatus.CONNECTED)
        return link

    async def status(
        self, wanted: ConnectionStatus, reason: str = "", *, within: float = 60.0
    ) -> Claim:
        def found() -> bool:
            last = self.claims[-1] if self.claims else None
            return last is not None and (last.status, last.reason) == (wanted, reason)

        try:
            await self.until(found, within=within)
        except AssertionError as error:
            raise AssertionError(f"wanted {wanted} {reason}, heard {self.claims}") from error
        return self.claims[-1]

    async def fault(self, name: str, lasting: float | None = None, **more: Any) -> dict[str, Any]:
        assert self.link is not None
        arguments = {"name": name, "for": lasting, **more}
        return dict(await self.link.call("command", {"name": "fault", "arguments": arguments}))

    async def ended(self, within: float = 60.0) -> int:
        process = self.process
        assert process is not None
        await self.until(lambda: process.poll() is not None, within=within)
        self._hear()  # its last notices may have come since the loop looked
        return int(process.returncode)

    def errors(self) -> str:
        assert self.process is not None and self.process.stderr is not None
        return self.process.stderr.read().decode()

    @staticmethod
    async def until(probe: Any, *, within: float = 60.0) -> None:
        async with asyncio.timeout(within + 1):
            deadline = asyncio.get_running_loop().time() + within
            while not probe():
                assert asyncio.get_running_loop().time() < deadline, f"not within {within} s"
                await asyncio.sleep(0.01)

    async def clean_up(self) -> None:
        asyncio.get_running_loop().remove_reader(self._notify)
        self._notify.close()
        for link in self._links:
            await link.close()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(60)
            if process.stderr is not None:
                process.stderr.close()

    def _hear(self) -> None:
        while True:
            try:
                self.notices.append(self._notify.recv(65536).decode())
            except BlockingIOError:
                return


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[[Path], Bench]]:
    made: list[Bench] = []

    def make(root: Path) -> Bench:
        made.append(Bench(root))
        return made[-1]

    yield make
    for bench in made:
        await bench.clean_up()


@pytest.fixture
async def bench(make_bench: Callable[[Path], Bench], tmp_path: Path) -> Bench:
    return make_bench(tmp_path)
