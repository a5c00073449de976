"""scripts/trial fleet [--minutes N] [--sessions N] [--seed S]

Four machines and three members of etcd, as processes. Kills, freezes and stops them, cuts a machine
from the store, delivers its requests up to 16 s late with the answer lost, runs twins, moves
sessions. An oracle has the connection of each session: it prints logins, overlaps, and the longest
time from the death of a machine until its sessions were connected elsewhere. Ends with 1 if two
machines held one session, or if one is not back after the faults ended.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from agent.fleet.etcd import Etcd
from agent.fleet.records import Session, encoded
from agent.fleet.store import Get, Put, Same, StoreAway
from tests.fleet.members import Members, members
from tests.fleet.nemesis import Nemesis
from tests.fleet.world import Logins, World, now
from tests.ports import free_port

GIVEN_UP = 5.0
"""Seconds after which no client waits for an answer any more."""
PROGRAM = "tests.trial.fleet.machine"


class Proxy:
    """One machine's line to etcd."""

    def __init__(self, urls: list[str], draw: random.Random) -> None:
        self.cut, self.bad, self.late = False, 0.0, 16.0
        self._urls, self._draw, self.port = urls, draw, free_port()
        self._late = set[asyncio.Task[Any]]()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def close(self) -> None:
        for task in self._late:
            task.cancel()
        await self._session.close()
        await self._runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        writes = request.path == "/v3/kv/txn"
        if writes and not self.cut and self._draw.random() < self.bad:
            held = max(0.0, self._draw.uniform(-self.late, self.late))
            self._late.add(asyncio.create_task(self._deliver(request.path, body, held)))
            await asyncio.sleep(GIVEN_UP)
        elif request.path == "/v3/watch":
            return await self._watch(request, body)
        elif not self.cut:
            with suppress(aiohttp.ClientError, TimeoutError):
                status, answer = await self._deliver(request.path, body, 0.0)
                if not self.cut:
                    return web.Response(status=status, body=answer)
        await asyncio.sleep(GIVEN_UP)
        return web.Response(status=503)

    async def _watch(self, request: web.Request, body: bytes) -> web.StreamResponse:
        reply, endless = web.StreamResponse(), aiohttp.ClientTimeout(sock_connect=1)
        await reply.prepare(request)
        with suppress(aiohttp.ClientError, OSError):
            url = self._urls[0] + request.path
            async with self._session.post(url, data=body, timeout=endless) as source:
                async for chunk in source.content.iter_any():
                    if self.cut:
                        break
                    await reply.write(chunk)
        return reply

    async def _deliver(self, path: str, body: bytes, held: float) -> tuple[int, bytes]:
        await asyncio.sleep(held)
        for _ in self._urls:
            with suppress(aiohttp.ClientConnectorError):
                async with self._session.post(self._urls[0] + path, data=body) as reply:
                    if reply.status == 200:
                        return reply.status, await reply.read()
            self._urls.append(self._urls.pop(0))
        return 503, b"no member"


class Frozen:
    def __init__(self, host: "Process") -> None:
        self._host = host

    def clear(self) -> None:
        self._host.signal_all(signal.SIGSTOP)

    def set(self) -> None:
        self._host.signal_all(signal.SIGCONT)


class Process:
    """A machine: what the nemesis does to a Host, done to processes."""

    def __init__(self, world: "Real", name: str, disk: Path, boot: str) -> None:
        self.world, self.name, self.disk, self.boot = world, name, disk, boot
        self.id = f"{name}{len(world.processes)}"
        world.processes[self.id] = self
        self.thawed: Any = Frozen(self)
        urls = [*world.etcd.clients.values()]
        self.line = Proxy(urls[ord(name) % 3 :] + urls[: ord(name) % 3], world.draw)
        self._groups, self.files = list[int](), dict[str, int]()
        self._agent: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def workers(self) -> list[str]:
        return [id for id, there in self.world.logins.holders.items() if self in there]

    def start_agent(self) -> None:
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        if not self._groups:
            await self.line.open()
        options = (self.boot, f"http://127.0.0.1:{self.line.port}", str(self.world.port), self.id)
        self._agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", PROGRAM, "agent", self.name, str(self.disk), *options),
            stdin=asyncio.subprocess.PIPE,
            stderr=(self.world.root / f"{self.id}.log").open("ab"),
            start_new_session=True,
        )
        self._groups.append(self._agent.pid)

    async def kill_agent(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._starting is not None:
            await self._starting
        if self._agent is not None and self._agent.returncode is None:
            self._agent.send_signal(number)
            await self._agent.wait()
        self._agent = None

    async def kill(self) -> None:
        self.world.logins.died.update(dict.fromkeys(self.workers, now()))
        self.signal_all(signal.SIGKILL)
        await self.kill_agent()
        self.boot += "+"

    async def stop(self) -> None:
        try:
            async with asyncio.timeout(30):
                await self.kill_agent(signal.SIGTERM)
        except TimeoutError:
            print(f"{self.id} did not stop in order, with {len(self.workers)} sessions")
        await self.kill()

    async def move(self, id: str, target: str) -> None:
        if self._agent is not None and self._agent.stdin is not None:
            self._agent.stdin.write(f"{id} {target}\n".encode())
            await asyncio.sleep(3)

    def signal_all(self, number: signal.Signals) -> None:
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, number)

    async def close(self) -> None:
        await self.kill()
        await self.line.close()


class Seen(Logins):
    """The oracle, and how long a takeover lasted."""

    def __init__(self) -> None:
        super().__init__()
        self.died = dict[str, float]()
        self.longest = 0.0

    def connect(self, id: str, host: Any) -> None:
        super().connect(id, host)
        if died := self.died.pop(id, 0.0):
            self.longest = max(self.longest, now() - died)


class Real(World):
    """A World of processes. `memory` is a picture of etcd, half a second old."""

    host_class = Process
    logins: Seen

    def __init__(self, root: Path, seed: int, etcd: Members) -> None:
        super().__init__(root, seed)
        self.etcd, self.logins = etcd, Seen()
        self.processes = dict[str, Process]()
        self.store = Etcd([*etcd.clients.values()])

    async def open(self) -> None:
        server = await asyncio.start_server(self._login, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.tasks = [asyncio.create_task(it()) for it in (self._look, self._haunt_etcd)]
        self.faults = False

    async def write(self, id: str, record: Session, revision: int = 0) -> None:
        key = self.keys.session(id)
        with suppress(StoreAway):
            await self.store.commit([Same(key, revision)], [Put(key, encoded(record))])

    async def end(self) -> None:
        self.faults = False
        for task in (*self.tasks, *([self.copying] if self.copying else ())):
            task.cancel()
        for process in self.processes.values():
            await process.close()
        await self.store.close()

    async def _login(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            id, name = (await reader.readline()).decode().split()
            host: Any = self.processes[name]
            self.logins.connect(id, host)
            with suppress(OSError):
                await reader.read()
            self.logins.disconnect(id, host)
            writer.close()

    async def _look(self) -> None:
        while True:
            with suppress(StoreAway):
                pairs = (await self.store.read(Get(self.keys.all))).found[0]
                self.memory.pairs = {it.key: it for it in pairs}
            await asyncio.sleep(0.5)

    async def _haunt_etcd(self) -> None:
        """The leader, or each of the members, is killed or frozen for some time."""
        while True:
            await asyncio.sleep(self.draw.expovariate(1 / 45))
            if not self.faults:
                continue
            names = [*self.etcd.clients]
            hit = names if self.draw.random() < 0.2 else [self.draw.choice(names)]
            frozen = self.draw.random() < 0.5
            for name in hit:
                self.etcd.signal(name, signal.SIGSTOP) if frozen else self.etcd.kill(name)
            await asyncio.sleep(self.draw.uniform(1, 25))
            for name in hit:
                self.etcd.signal(name, signal.SIGCONT) if frozen else self.etcd.start(name)


async def trial(seconds: float, sessions: int, seed: int, root: Path, etcd: Members) -> int:
    world = Real(root, seed, etcd)
    await world.open()
    nemesis, begun, status = Nemesis(world, sessions), now(), 0
    playing = asyncio.create_task(nemesis.story(seconds))
    try:
        while not playing.done():
            await asyncio.wait([playing], timeout=15)
            world.faults = 10 < now() - begun < seconds
            faults = sum(nemesis.done.values())
            print(
                f"{now() - begun:.0f} s: {world.logins.count} logins, {faults} faults,"
                f" overlaps {len(world.logins.wrong)},"
                f" longest takeover {world.logins.longest:.1f} s",
                flush=True,
            )
        await playing
    except AssertionError as error:
        print(error)
        status = 1
    finally:
        await world.end()
    print(", ".join(f"{kind} {count}" for kind, count in sorted(nemesis.done.items())))
    print(*world.logins.wrong, sep="\n")
    return status or bool(world.logins.wrong)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("scripts/trial fleet", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wa-fleet-"))
    with members(root, 3) as etcd:
        task = trial(60 * asked.minutes, asked.sessions, asked.seed, root, etcd)
        status = asyncio.run(task)
    if not status:
        shutil.rmtree(root)
    else:
        print(f"what the processes said: {root}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
