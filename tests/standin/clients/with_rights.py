"""A client with rights, in a process of its own beside hostile ones: it asks the agent again and
again until its stdin ends, then says for each way how often it asked, what was refused and how long
the agent let it wait.

What the machine took is not the agent's: the seconds in which the agent's loop or this process
waited for a processor, by the kernel's count, and those in which all stood still, are taken off.
"""

import asyncio
import http.client
import json
import select
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.standin.clients.rude import Door
from tests.waiting import Pauses

SERVED = 1.0
"""Seconds of the agent's own for an answer."""
GIVES_UP = 60.0
_BETWEEN = 0.01
BESIDE_LISTENERS = "127.0.0.6"
"""The address of many listeners that have rights as well."""
_ELSEWHERE = "127.0.0.9"
"""No hostile client has this address: a load balancer's probe shows no key."""


@dataclass(slots=True)
class Served:
    asked: int = 0
    worst: float = 0.0
    """Seconds of the agent's own."""
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Way:
    connect: Callable[[], http.client.HTTPConnection]
    path: str
    headers: dict[str, str]
    keeps: bool = False
    kept: http.client.HTTPConnection | None = None

    def ask(self) -> str:
        """Return the fault of the answer; "" = none. A connection that ends without a word, idle or
        one of many that said nothing yet, is opened again, as any client does."""
        until = time.monotonic() + GIVES_UP
        while True:
            try:
                return self._ask(self.kept or self.connect())
            except ConnectionError:
                self.kept = None
                if time.monotonic() > until:
                    raise

    def _ask(self, connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("GET", self.path, headers=self.headers)
            with connection.getresponse() as answer:
                body = answer.read()
                wrong = "" if answer.status == 200 else f"{answer.status} {body[:200]!r}"
        except BaseException:
            connection.close()
            raise
        if self.keeps and connection.sock is not None:
            self.kept = connection
        else:
            connection.close()
        return wrong


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=GIVES_UP)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(GIVES_UP)
        self.sock.connect(self._path)


def ways(port: int, path: str, key: str) -> dict[str, Way]:
    def tcp(source: str = "127.0.0.1") -> Callable[[], http.client.HTTPConnection]:
        def connect() -> http.client.HTTPConnection:
            return http.client.HTTPConnection(
                "127.0.0.1", port, timeout=GIVES_UP, source_address=(source, 0)
            )

        return connect

    right = {"Authorization": key}
    return {
        "the Unix socket": Way(lambda: _Unix(path), "/api/instances", {}),
        "a key": Way(tcp(), "/api/instances", right),
        "a key beside listeners": Way(tcp(BESIDE_LISTENERS), "/api/instances", right),
        "a key on a kept connection": Way(tcp(), "/api/caller", right, keeps=True),
        "the scrape": Way(tcp(), "/metrics", right),
        "the probe": Way(tcp(_ELSEWHERE), "/healthz", {}),
    }


def waited(thread: str) -> float:
    """Seconds in which a thread could run and had no processor."""
    return int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9


def ask_until_told(pid: int, among: dict[str, Way]) -> dict[str, Served]:
    served = {name: Served() for name in among}
    pauses = Pauses()
    pauses.start()

    def machine() -> float:
        return waited(f"{pid}/task/{pid}") + waited("thread-self") + pauses.total

    told = False
    while not told:
        told = bool(select.select([sys.stdin], [], [], _BETWEEN)[0])
        for name, way in among.items():
            before, begun = machine(), time.monotonic()
            try:
                wrong = way.ask()
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
            took = time.monotonic() - begun - (machine() - before)
            served[name].asked += 1
            served[name].worst = max(served[name].worst, took)
            if wrong:
                served[name].wrong.append(wrong)
        print(flush=True)
    pauses.end()
    return served


class Asking:
    """It, while it asks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self._lines = process, list[bytes]()
        self._heard = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._lines.append(line)

    async def whole_rounds(self, count: int) -> None:
        """In which each way was asked."""
        until = len(self._lines) + count + 1  # one is under way
        while len(self._lines) < until and not self._heard.done():
            await asyncio.wait([self._heard], timeout=0.02)

    async def end(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._heard, GIVES_UP * 6)
        said: dict[str, Any] = json.loads(self._lines[-1])
        return said


@asynccontextmanager
async def served(pid: int, door: Door) -> AsyncIterator[Asking]:
    """It asks the agent of that pid meanwhile, and was answered in time."""
    told = {"pid": pid, "port": door.port, "socket": str(door.path), "key": door.keys["read"]}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, json.dumps(told)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        asking = Asking(process)
        await asking.whole_rounds(0)
        yield asking
        said = await asking.end()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    for name, it in said.items():
        assert not it["wrong"], f"{name} was refused: {it['wrong'][:3]}"
        assert it["worst"] < SERVED, f"{name} waited {it['worst']:.2f} s"


def main() -> None:
    told = json.loads(sys.argv[1])
    among = ways(told["port"], told["socket"], told["key"])
    served = ask_until_told(told["pid"], among)
    print(json.dumps({name: asdict(it) for name, it in served.items()}))


if __name__ == "__main__":
    main()
