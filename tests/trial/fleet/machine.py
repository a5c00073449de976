"""A stand-in of a machine, as two processes: the agent with the real keeper, and the workers.

The workers' process holds one connection to the oracle for each session, and the kernel kills it
after its lease, a frozen one as well. It outlives the agent.
"""

import asyncio
import ctypes
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.fleet.etcd import Etcd
from agent.fleet.keeper import BootClock, Keeper
from agent.fleet.records import Fleet, Held, Keys, Machine, Session

FENCE = 1.0
"""Seconds past the lease; 2 are allowed."""
UNUSED = 30.0
"""Seconds that it lives without a lease."""
_ABSOLUTE = 1


def main(argv: list[str]) -> None:
    part, *rest = argv
    asyncio.run(Workers(*rest).serve() if part == "workers" else Agent(*rest).run())


class Workers:
    def __init__(self, disk: str, oracle: str, host: str) -> None:
        self._path, self._port, self._host = Path(disk) / "workers", int(oracle), host
        self._open = dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        self._libc, self._timer = ctypes.CDLL(None), ctypes.c_void_p()
        event = struct.pack("@qii48x", 0, signal.SIGKILL, 0)
        self._libc.timer_create(time.CLOCK_BOOTTIME, event, ctypes.byref(self._timer))
        self._kill_at(time.clock_gettime(time.CLOCK_BOOTTIME) + UNUSED)

    def _kill_at(self, moment: float) -> None:
        when = struct.pack("@4l", 0, 0, int(moment), int(moment % 1 * 1e9))
        assert self._libc.timer_settime(self._timer, _ABSOLUTE, when, None) == 0

    async def serve(self) -> None:
        self._path.unlink(missing_ok=True)
        await asyncio.start_unix_server(self._agent, self._path)
        await asyncio.Event().wait()

    async def _agent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                writer.write(json.dumps([*self._open]).encode() + b"\n")
                asked = json.loads(await reader.readline() or "null")
                if asked is None:
                    return
                await self._do(**asked)

    async def _do(
        self, until: float = 0.0, start: Collection[str] = (), end: Collection[str] = ()
    ) -> None:
        if until:
            self._kill_at(until + FENCE)
        for id in {*start} - self._open.keys():
            self._open[id] = pair = await asyncio.open_connection("127.0.0.1", self._port)
            pair[1].write(f"{id} {self._host}\n".encode())
        for id in {*end} & self._open.keys():
            reader, writer = self._open.pop(id)
            writer.write_eof()
            await reader.read()  # the oracle has noted it
            writer.close()


class Agent:
    """A Runner."""

    def __init__(self, *words: str) -> None:
        self.name, self._disk, self._boot, self._etcd, oracle, host = words
        self._command = [sys.executable, "-m", __spec__.name, "workers", self._disk, oracle, host]
        self._up, self._until, self._known = set[str](), 0.0, set[str]()
        self._writer: asyncio.StreamWriter | None = None
        self._asked = self._heard = 0
        self._changed = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._moves = list[asyncio.Task[None]]()

    async def run(self) -> None:
        loop, store = asyncio.get_running_loop(), Etcd([self._etcd])
        await self._connect()
        keeper = Keeper(
            *(store, Keys("f"), self.name),
            **{"fleet": Fleet(), "runner": self, "path": Path(self._disk) / "agent.json"},
            **{"boot_and_folder": self._boot, "clock": BootClock(), "draw": random.SystemRandom()},
        )
        running = asyncio.create_task(keeper.run())
        loop.add_signal_handler(signal.SIGTERM, running.cancel)
        loop.add_reader(sys.stdin, self._move, keeper)
        with suppress(asyncio.CancelledError):
            await running
        await self.end_all()
        await keeper.release()
        await store.close()

    def _move(self, keeper: Keeper) -> None:
        words = sys.stdin.readline().split()
        if not words:
            os._exit(1)  # the nemesis has ended
        self._moves.append(asyncio.create_task(keeper.hand_over(*words)))

    async def _connect(self) -> None:
        """To the workers, which may be those of the agent before this one."""
        with suppress(OSError):
            reader, self._writer = await asyncio.open_unix_connection(f"{self._disk}/workers")
            self._asked = self._heard = 0
            self._up = {*json.loads(await reader.readline())}
            self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                self._heard += 1
                self._up = {*json.loads(line)}
                self._changed.set()
        self._writer, self._up = None, set()
        self._changed.set()

    async def _open(self, ids: list[str]) -> None:
        if self._writer is None:
            await asyncio.create_subprocess_exec(*self._command, stdin=subprocess.DEVNULL)
        while self._writer is None:
            await asyncio.sleep(0.1)
            await self._connect()
        if time.clock_gettime(time.CLOCK_BOOTTIME) < self._until:
            self._known.update(ids)
            self._ask(until=self._until, start=ids)

    def _ask(self, **asked: Any) -> None:
        if self._writer is not None:
            self._asked += 1
            self._writer.write(json.dumps(asked).encode() + b"\n")

    def describe(self) -> Machine:
        return Machine(address=self.name, capacity=1000, used=len(self._up))

    def running(self) -> Collection[str]:
        return self._up

    def extend(self, until: float) -> None:
        self._until = until
        self._ask(until=until)

    def start(self, owned: Mapping[str, Session]) -> None:
        new = [id for id in owned if id not in self._up]
        if new and (self._opening is None or self._opening.done()):
            self._opening = asyncio.create_task(self._open(new))

    async def end(self, ids: Collection[str]) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._ask(end=[*ids])
        asked = self._asked
        while self._writer is not None and self._heard < asked:
            self._changed.clear()
            await self._changed.wait()

    def held(self) -> Mapping[str, Held]:
        return dict.fromkeys(self.running(), (1, 1, 0))

    async def end_all(self) -> None:
        await self.end(self._known | self._up)


if __name__ == "__main__":
    main(sys.argv[1:])
