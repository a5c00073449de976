"""scripts/trial fleet-agents [--minutes N] [--sessions N] [--baileys N] [--seed S]

Three real agents with sandbox sessions, with --baileys real Baileys clients as well, and three
members of etcd, while contacts get messages.
Agents, machines and workers are killed, frozen and stopped, sessions are moved. Ends with 1 if two
machines ran workers of one session at a time, if one is not back with its pairing after the faults
ended, or if a message came twice. A message that was accepted within a second before its machine
died may be lost: their number is printed.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import aiohttp

from agent.errors import WaError
from agent.fleet.records import Session, decoded, named
from agent.fleet.store import Get
from tests.daemon.conftest import SETTINGS, GrowingLog, RunningAgent, cli, workers_in
from tests.engines.baileys.conftest import PEER, make_cache
from tests.fleet.members import Members, members
from tests.fleet.test_agents import KEYS, in_fleet, store_of
from tests.ports import free_port
from tests.standin.baileys.run import WhatsApp
from tests.waiting import alive

BACK_WITHIN = 90.0
HEARD_WITHIN = 15.0
KINDS = (
    *("agent", "agent", "machine", "frozen", "frozen agent"),
    *("move", "move", "stop", "worker"),
)


class Trial:
    def __init__(self, root: Path, etcd: Members, sessions: int, baileys: int, seed: int) -> None:
        self.draw, self.done = random.Random(seed), Counter[str]()
        self.whatsapp = WhatsApp(root / "whatsapp.log")
        self.ids = [f"s{n}" for n in range(sessions)] + [f"b{n}" for n in range(baileys)]
        self.accounts, self.sent = dict[str, str](), list[str]()
        self.wrong, self.away, self.leased = set[str](), set[str](), set[int]()
        self.agents = {name: self._agent(root, etcd, name) for name in "abc"}
        make_cache(root / "cache")
        for agent in self.agents.values():
            (agent.state / "cache").symlink_to(root / "cache")

    def _agent(self, root: Path, etcd: Members, name: str) -> RunningAgent:
        agent = RunningAgent(root / name, root / f"{name}.toml")
        agent.config.write_text(SETTINGS)
        agent.log = GrowingLog(root / f"{name}.log")
        in_fleet(agent, etcd, name, f"127.0.0.1:{free_port()}")
        return agent

    async def play(self, etcd: Members, seconds: float) -> None:
        async with store_of(etcd) as self.store:
            for n, agent in enumerate(self.agents.values()):
                await agent.start()
                for id in self.ids[n :: len(self.agents)]:
                    await (self._scan(agent, id) if id[0] == "b" else agent.create(id))
            await self._all_back()
            self.accounts = {id: await self._shown(id, "account") for id in self.ids}
            tasks = [asyncio.create_task(work()) for work in (self._watch, self._talk)]
            end = time.monotonic() + seconds
            await asyncio.gather(*(self._haunt(name, end) for name in self.agents))
            await self._all_back()
            tasks[1].cancel()
            await asyncio.sleep(HEARD_WITHIN)
            tasks[0].cancel()
            now = {id: await self._shown(id, "account") for id in self.ids}
            self.wrong |= {
                f"{id}: another account" for id, _ in now.items() ^ self.accounts.items()
            }

    async def _scan(self, agent: RunningAgent, id: str) -> None:
        body = {"id": id, "engine": "baileys", "settings": {"url": self.whatsapp.socket}}
        await agent.do("POST", "/api/instance", body)
        begun, code = time.monotonic(), dict[str, str]()
        while "qr" not in code:
            assert time.monotonic() < begun + BACK_WITHIN, code
            await asyncio.sleep(0.1)
            _, code = await agent.ask("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self.whatsapp.scan, code["qr"], f"551191000{id[1:]:0>4}")

    async def _records(self) -> dict[str, Session]:
        pairs = (await self.store.read(Get(KEYS.sessions))).found[0]
        return {named(it.key): record for it in pairs if (record := decoded(it.value, Session))}

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
            await asyncio.sleep(0.03)

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

    async def _haunt(self, name: str, end: float) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(self.draw.expovariate(1 / 10))
            if len(self.away) > 1:
                continue
            kind = self.draw.choice(KINDS)
            self.done[kind] += 1
            self.away.add(name)
            await self._hit(kind, name, self.agents[name])
            self.away.discard(name)

    async def _hit(self, kind: str, name: str, agent: RunningAgent) -> None:
        pids = [*self._workers(agent).values()]
        if kind == "worker" and pids:
            _signal(signal.SIGKILL, self.draw.choice(pids))
        elif kind == "move":
            mine = [id for id, it in (await self._records()).items() if it.machine == name]
            other = self.draw.choice([it for it in self.agents if it != name])
            if mine:
                status, _ = await cli(agent, "fleet", "move", self.draw.choice(mine), other)
                self.done[f"move with status {status}"] += 1
        elif kind.startswith("frozen"):
            assert agent.process is not None
            pids = [agent.process.pid, *(pids if kind == "frozen" else ())]
            _signal(signal.SIGSTOP, *pids)
            await asyncio.sleep(self.draw.choice([2, 5, 12]))
            _signal(signal.SIGCONT, *pids)
        elif kind in ("agent", "machine", "stop"):
            await (agent.stop() if kind == "stop" else agent.kill())
            if kind == "machine":
                _signal(signal.SIGKILL, *self._workers(agent).values())
            await asyncio.sleep(self.draw.choice([0, 1, 4, 9, 15]))
            await agent.start()

    def heard(self, root: Path) -> set[tuple[str, str]]:
        """Texts that contacts got, with their ids: a phone shows an id once. A sandbox session's
        WhatsApp lies beside it on each machine."""
        every = [(it["id"], it["text"]) for it in self.whatsapp.person(PEER).get("heard", ())]
        for path in root.rglob("whatsapp/*.db"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                rows = db.execute("select * from heard").fetchall()
                every += [(id, json.loads(body).get("text")) for *_, id, body in rows]
        return {(text, id) for id, text in every if text in self.sent}


def _signal(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def trial(seconds: float, it: Trial, root: Path, etcd: Members) -> int:
    try:
        await it.play(etcd, seconds)
        heard = dict(sorted(found := it.heard(root)))
        it.wrong |= {f"{text}: came twice, {id}" for text, id in found if heard[text] != id}
        print(f"{len(it.sent)} messages, {len(it.sent) - len(heard)} did not arrive")
    except (AssertionError, WaError) as error:
        it.wrong.add(f"{type(error).__name__}: {error}")
    finally:
        for agent in it.agents.values():
            await agent.close()
        it.whatsapp.end()
    print(", ".join(f"{kind} {count}" for kind, count in sorted(it.done.items())))
    print(*sorted(it.wrong), sep="\n")
    return bool(it.wrong)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("scripts/trial fleet-agents", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sessions", type=int, default=9)
    parser.add_argument("--baileys", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="wa-fleet-", dir="/dev/shm"))
    with members(root, 3) as etcd:
        it = Trial(root, etcd, asked.sessions, asked.baileys, asked.seed)
        status = asyncio.run(trial(60 * asked.minutes, it, root, etcd))
    print(f"what the agents said: {root}/*.log") if status else shutil.rmtree(root)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
