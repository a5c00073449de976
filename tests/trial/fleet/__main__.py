"""scripts/trial fleet [--minutes N] [--sessions N] [--baileys N] [--seed S]

Three machines, each a network namespace with an agent and a member of etcd, with sandbox sessions
and real Baileys clients, while contacts get messages. Agents, machines, workers and members are
killed, frozen and stopped; members are slow, or their disk is full; a machine is cut off, or only
what it sends is lost, or its member is cut from the others, and it reaches all members or that one;
its writes to etcd come up to 16 s late with the answer lost; sessions are moved. It prints the
longest time from the death of a machine until a session of it was connected elsewhere. Ends with 1
if two machines ran workers of one session at a time, if one is not back with its pairing after the
faults ended, if a message came twice, or if an older copy took a copy's place. A message that was
accepted within a second before its machine died may be lost: their number is printed. Needs root.
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from agent.errors import WaError
from agent.fleet import join, plan
from agent.fleet.copies.change import Sealed
from agent.fleet.copies.standby import _HEAD as HEAD
from agent.fleet.etcd import Get, StoreAway
from agent.fleet.records import Session, named
from tests.daemon.conftest import SETTINGS, GrowingLog, RunningAgent, cli, workers_in
from tests.engines.baileys.conftest import PEER, make_cache
from tests.fleet.members import Members, members
from tests.fleet.test_agents import KEYS, in_fleet, store_of
from tests.full import fill
from tests.ports import free_port
from tests.standin.baileys.run import WhatsApp
from tests.trial.machine import ip, own_disks, send
from tests.waiting import alive

BACK_WITHIN, HEARD_WITHIN = 90.0, 90.0
KINDS = "agent agent machine stop worker frozen frozen-agent move move cut mute lone island full"
"""lone: the machine's member is cut from other machines; island: the machine reaches no other."""
PLACES = {
    name: (f"10.91.0.{n}", ("ip", "netns", "exec", f"wa-{name}")) for n, name in enumerate("abc", 1)
}
HERE, NOWHERE = "10.91.0.254", "02:00:00:00:00:09"
"""WhatsApp, and this program; a card that no machine has."""
GIVEN_UP, LATE = 5.0, 16.0
"""Seconds after which no client waits any more, and that a write may be late."""


class Proxy:
    """One machine's lines to the members of etcd. What it holds back comes late, and its answer to
    no one."""

    def __init__(self, urls: list[str], draw: random.Random) -> None:
        self._draw, self._late = draw, set[asyncio.Task[Any]]()
        self.clients = {url: f"http://{HERE}:{free_port()}" for url in urls}
        self._members = {urlsplit(line).port: url for url, line in self.clients.items()}
        self.bad = 0.0
        """Share of the writes that it holds back."""
        self.only = ""
        """A part of the address of the only member that is reached."""

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_post("/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        for port in self._members:
            await web.TCPSite(self._runner, HERE, port).start()

    async def close(self) -> None:
        await self._session.close()
        await self._runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body, url = await request.read(), self._members[request.url.port] + request.path
        if request.path == "/v3/watch":
            return await self._watch(request, url, body)
        reached = self.only in url
        late = request.path == "/v3/kv/txn" and self._draw.random() < self.bad
        if reached and not late:
            status, answer = await self._deliver(url, body, 0.0)
            return web.Response(status=status, body=answer)
        if reached:
            held = max(0.0, self._draw.uniform(-LATE, LATE))
            self._late.add(asyncio.create_task(self._deliver(url, body, held)))
        await asyncio.sleep(GIVEN_UP)
        return web.Response(status=503)

    async def _watch(self, request: web.Request, url: str, body: bytes) -> web.StreamResponse:
        reply, endless = web.StreamResponse(), aiohttp.ClientTimeout(sock_connect=1)
        await reply.prepare(request)
        with suppress(aiohttp.ClientError, OSError):
            async with self._session.post(url, data=body, timeout=endless) as source:
                async for chunk in source.content.iter_any():
                    if self.only in url:
                        await reply.write(chunk)
        return reply

    async def _deliver(self, url: str, body: bytes, held: float) -> tuple[int, bytes]:
        await asyncio.sleep(held)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.post(url, data=body) as reply:
                return reply.status, await reply.read()
        return 503, b"no member"


class Trial:
    def __init__(self, root: Path, etcd: Members, sessions: int, baileys: int, seed: int) -> None:
        self.draw, self.done, self.root = random.Random(seed), Counter[str](), root
        self.whatsapp, self.etcd = WhatsApp(root / "whatsapp.log", host=HERE), etcd
        self.ids = [f"s{n}" for n in range(sessions)] + [f"b{n}" for n in range(baileys)]
        self.accounts, self.sent = dict[str, str](), list[str]()
        self.wrong, self.away, self.leased = set[str](), set[str](), set[int]()
        urls = [*etcd.clients.values()]
        self.lines = {it: Proxy(urls[n:] + urls[:n], self.draw) for n, it in enumerate(PLACES)}
        plan.plan("f", {name: host for name, (host, _) in PLACES.items()}, root)
        self.agents = {name: self._agent(root, line, name) for name, line in self.lines.items()}
        self.died, self.longest = dict[str, float](), 0.0
        make_cache(root / "cache")

    def _agent(self, root: Path, etcd: Any, name: str) -> RunningAgent:
        agent = RunningAgent(root / name, root / f"{name}.toml")
        agent.config.write_text(SETTINGS)
        agent.log = GrowingLog(root / f"{name}.log")
        host, agent.inside = PLACES[name]
        in_fleet(agent, etcd, name, f"{host}:{free_port()}")
        (agent.state / "cache").symlink_to(root / "cache")
        join.put_keys(agent.state / "fleet", (root / f"plan-{name}.tar").read_bytes())
        return agent

    async def play(self, etcd: Members, seconds: float) -> None:
        async with store_of(etcd) as self.store:
            port = str(urlsplit(self.whatsapp.url).port)
            for name, (_, inside) in PLACES.items():
                await self.lines[name].open()
                # Without TLS a session may have WhatsApp on loopback only.
                way = f"TCP-LISTEN:{port},bind=127.0.0.1,fork TCP:{HERE}:{port}".split()
                subprocess.Popen([*inside, "socat", "-lf/dev/null", *way])  # noqa: ASYNC220
            for n, agent in enumerate(self.agents.values()):
                await agent.start()
                for id in self.ids[n :: len(self.agents)]:
                    await (self._scan(agent, id) if id[0] == "b" else agent.create(id))
            await self._all_back()
            self.accounts = {id: await self._shown(id, "account") for id in self.ids}
            works = (self._watch(), self._look_at_copies(), self._talk(), self._late())
            *looking, talking, late = [asyncio.create_task(work) for work in works]
            end = time.monotonic() + seconds
            await asyncio.gather(self._haunt_etcd(end), *map(self._haunt, self.agents, repeat(end)))
            late.cancel()
            await self._all_back()
            talking.cancel()
            await asyncio.sleep(HEARD_WITHIN)
            _ = [task.cancel() for task in looking]
            now = {id: await self._shown(id, "account") for id in self.ids}
            self.wrong |= {f"{id}: another account" for id in now if now[id] != self.accounts[id]}
            self.wrong |= set() if self.done["move with status 0"] else {"no session was moved"}

    async def _scan(self, agent: RunningAgent, id: str) -> None:
        url = self.whatsapp.socket.replace(HERE, "127.0.0.1")
        body = {"id": id, "engine": "baileys", "settings": {"url": url}}
        await agent.do("POST", "/api/instance", body)
        begun, code = time.monotonic(), dict[str, str]()
        while "qr" not in code:
            assert time.monotonic() < begun + BACK_WITHIN, code
            await asyncio.sleep(0.1)
            _, code = await agent.ask("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self.whatsapp.scan, code["qr"], f"551191000{id[1:]:0>4}")

    async def _records(self) -> dict[str, Session]:
        while True:
            with suppress(StoreAway):
                pairs = (await self.store.read(Get(KEYS.sessions))).found[0]
                return {named(it.key): msgspec.json.decode(it.value, type=Session) for it in pairs}
            await asyncio.sleep(1)

    async def _shown(self, id: str, what: str) -> str:
        """By the machine that owns it."""
        record = (await self._records()).get(id)
        return str((await self.agents[record.machine].show(id))[what]) if record else ""

    async def _all_back(self) -> None:
        begun, states = time.monotonic(), dict[str, str]()
        while {*states.values()} != {"CONNECTED"}:
            assert time.monotonic() < begun + BACK_WITHIN, states
            await asyncio.sleep(0.5)
            for id in self.ids:
                states[id] = "?"
                with suppress(AssertionError, KeyError, aiohttp.ClientError, OSError):
                    states[id] = await self._shown(id, "connection_status")
        print(f"all are connected after {time.monotonic() - begun:.1f} s", flush=True)

    def _workers(self, agent: RunningAgent) -> dict[str, int]:
        found = dict[str, int]()
        for folder in agent.state.glob("run*"):
            with suppress(OSError):
                found |= {id: pid for id, pid in workers_in(folder).items() if alive(pid)}
        return found

    async def _watch(self) -> None:
        """Oracle: a session has workers that may connect on one machine."""
        while True:
            there = (each for it in self.agents.values() for each in self._workers(it).items())
            every = Counter(id for id, pid in there if self._may_connect(pid))
            self.wrong |= {f"{id}: on more than one machine" for id in every if every[id] > 1}
            for id in self.died.keys() & every:
                self.longest = max(self.longest, time.monotonic() - self.died.pop(id))
            await asyncio.sleep(0.03)

    async def _look_at_copies(self) -> None:
        """Oracle: a copy that a machine has is followed by no older one."""
        before = dict[Path, tuple[int, int]]()
        while True:
            logs = self.root.glob("?/fleet/standby/*/log")
            now = {log: last for log in logs if (last := last_of(log))}
            older = [log for log in before.keys() & now if now[log] < before[log]]
            self.wrong |= {f"{it}: {now[it]} after {before[it]}" for it in older}
            before = now
            await asyncio.sleep(0.3)

    def _may_connect(self, pid: int) -> bool:
        """True once its fence has a lease: a timer on the boot clock is set."""
        if pid not in self.leased:
            with suppress(OSError):
                timers = (it.read_text() for it in Path(f"/proc/{pid}/fdinfo").iterdir())
                if any("clockid: 7" in it and "it_value: (0, 0)" not in it for it in timers):
                    self.leased.add(pid)
        return pid in self.leased

    async def _talk(self) -> None:
        for n in count():
            await asyncio.sleep(self.draw.uniform(0.2, 1.0))
            id, text = self.draw.choice(self.ids), f"m{n}"
            body = {"to": PEER, "type": "text", "text": text}
            for agent in self.agents.values():
                with suppress(aiohttp.ClientError, OSError):
                    path, key = f"/api/instance/{id}/messages", {"Idempotency-Key": text}
                    if (await agent.ask("POST", path, body, key))[0] in (200, 202):
                        self.sent.append(text)
                        break

    async def _late(self) -> None:
        """One machine's line is bad, then another one's."""
        while True:
            line = self.draw.choice([*self.lines.values()])
            line.bad = 0.5
            await asyncio.sleep(self.draw.uniform(0, 20))
            line.bad = 0.0
            await asyncio.sleep(self.draw.uniform(0, 40))

    async def _haunt_etcd(self, end: float) -> None:
        """A member, or each of them, is frozen for some time, or slow: frozen for moments."""
        while time.monotonic() < end:
            await asyncio.sleep(self.draw.expovariate(1 / 45))
            hit = [it for it in self.agents if it not in self.away]
            hit = hit if self.draw.random() < 0.2 else [self.draw.choice(hit)]
            times = self.draw.choice([1, 25])
            self.done["members slow" if times > 1 else "members frozen"] += len(hit)
            for number in (signal.SIGSTOP, signal.SIGCONT) * times:
                for name in hit:
                    self.etcd.signal(name, number)
                await asyncio.sleep(self.draw.uniform(1, 25) / times)

    async def _haunt(self, name: str, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(self.draw.expovariate(1 / 10))
            if len(self.away) > 1:
                continue
            kind = self.draw.choice(KINDS.split())
            self.done[kind] += 1
            self.away.add(name)
            await self._hit(kind, name, self.agents[name])
            self.away.discard(name)

    async def _hit(self, kind: str, name: str, agent: RunningAgent) -> None:
        pids = [*self._workers(agent).values()]
        if kind == "worker":
            send(signal.SIGKILL, self.draw.sample(pids, min(len(pids), 1)))
        elif kind == "move":
            mine = [id for id, it in (await self._records()).items() if it.machine == name]
            other = self.draw.choice([it for it in self.agents if it != name])
            if mine:
                status, _ = await cli(agent, "fleet", "move", self.draw.choice(mine), other)
                self.done[f"move with status {status}"] += 1
        elif kind.startswith("frozen"):
            pids = [agent.process.pid, *(pids if kind == "frozen" else ())]
            send(signal.SIGSTOP, pids)
            await asyncio.sleep(self.draw.choice([2, 5, 12]))
            send(signal.SIGCONT, pids)
        elif kind in ("agent", "machine", "stop"):
            await (agent.stop() if kind == "stop" else agent.kill())
            if kind == "machine":
                there = self._workers(agent)
                self.died.update(dict.fromkeys(there, time.monotonic()))
                send(signal.SIGKILL, there.values())
                self.etcd.kill(name)
            await asyncio.sleep(self.draw.choice([0, 1, 4, 9, 15]))
            if kind == "machine":
                self.etcd.start(name)
            await agent.start()
        elif kind == "full":
            filler = fill(self.root / name / "member")
            await asyncio.sleep(self.draw.choice([5, 15, 30]))
            filler.unlink()
            self.etcd.kill(name)  # it has ended when it could not write
            self.etcd.start(name)
        else:
            self.lines[name].only = f"//{PLACES[name][0]}:" * (kind == "island")
            cut(name, kind, begins=True)
            await asyncio.sleep(self.draw.choice([1, 5, 15, 30]))
            cut(name, kind, begins=False)
            self.lines[name].only = ""

    def heard(self, root: Path) -> set[tuple[str, str]]:
        """Texts that contacts got, with their ids: a phone shows an id once. A sandbox session's
        WhatsApp lies beside it on each machine."""
        every = [(it["id"], it["text"]) for it in self.whatsapp.person(PEER).get("heard", ())]
        for path in root.rglob("whatsapp/*.db"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                rows = db.execute("select * from heard").fetchall()
                every += [(id, json.loads(body).get("text")) for *_, id, body in rows]
        return {(text, id) for id, text in every if text in self.sent}


def last_of(log: Path) -> tuple[int, int] | None:
    """Epoch and number of the last change in a copy; None: it is gone."""
    found = None
    with suppress(OSError, msgspec.MsgspecError, struct.error), log.open("rb") as file:
        while head := file.read(HEAD.size):
            last = msgspec.msgpack.decode(file.read(HEAD.unpack(head)[0]), type=Sealed)
            found = last.epoch, last.number
    return found


@contextmanager
def network() -> Iterator[None]:
    """A namespace for each machine, on a bridge."""
    try:
        ip("link add wa-fleet type bridge")
        ip(f"address add {HERE}/24 dev wa-fleet")
        ip("link set wa-fleet up")
        for name, (host, _) in PLACES.items():
            ip(f"netns add wa-{name}")
            ip(f"link add wa-{name} type veth peer name eth0 netns wa-{name}")
            ip(f"link set wa-{name} master wa-fleet up")
            ip(f"-n wa-{name} address add {host}/24 dev eth0")
            ip(f"-n wa-{name} link set eth0 up")
            ip(f"-n wa-{name} link set lo up")
        yield
    finally:
        for name in PLACES:
            send(signal.SIGKILL, map(int, ip(f"netns pids wa-{name}", check=False).split()))
            ip(f"link del wa-{name}", check=False)  # a process may hold its namespace for a moment
            ip(f"netns del wa-{name}", check=False)
        ip("link del wa-fleet", check=False)


def cut(name: str, kind: str, *, begins: bool) -> None:
    """`mute`: what it sends goes to no card; else what it sends to the other machines."""
    if kind == "cut":
        ip(f"link set wa-{name} {'down' if begins else 'up'}")
        return
    for host in (*[HERE] * (kind == "mute"), *(host for host, _ in PLACES.values())):
        how = f"replace {host} lladdr {NOWHERE} nud permanent" if begins else f"del {host}"
        ip(f"-n wa-{name} neigh {how} dev eth0")


async def trial(seconds: float, it: Trial, root: Path, etcd: Members) -> int:
    try:
        await it.play(etcd, seconds)
        heard = dict(sorted(found := it.heard(root)))
        it.wrong |= {f"{text}: came twice, {id}" for text, id in found if heard[text] != id}
        it.wrong |= {f"{text}: did not arrive" for text in {*it.sent} - heard.keys()}
    except (AssertionError, WaError) as error:
        it.wrong.add(f"{type(error).__name__}: {error}")
    finally:
        for name, agent in it.agents.items():
            await agent.close()
            await it.lines[name].close()
        it.whatsapp.end()
    print(f"{len(it.sent)} messages, longest takeover {it.longest:.1f} s", dict(it.done))
    print(*sorted(it.wrong), sep="\n")
    return bool(it.wrong)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("scripts/trial fleet", description=__doc__)
    for name, usual in {"minutes": 10.0, "sessions": 9, "baileys": 3, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=type(usual), default=usual)
    asked = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wa-fleet-", dir="/dev/shm"))
    disks = own_disks("200m", *(root / name / "member" for name in PLACES))
    with network(), disks, members(root, 3, PLACES) as etcd:
        it = Trial(root, etcd, asked.sessions, asked.baileys, asked.seed)
        status = asyncio.run(trial(60 * asked.minutes, it, root, etcd))
    print(f"what the agents said: {root}/*.log") if status else shutil.rmtree(root)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
