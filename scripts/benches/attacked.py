"""`scripts/chaos baileys --hostile`: the sessions of one agent, to which a contact sends the cases
of tests/trial/hostile/contact.py, while eight friends write and Nodes and workers are killed.

A plain bot of the library is linked to each account and is never killed: what a friend wrote and
the bot read, the session must read, unless it was under way at a kill; and only a kill may take a
session down.
"""

import asyncio
import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp

from agent.core.event_json import wall_text
from agent.errors import HostError
from scripts.benches.paired import PairedSessions, Session
from scripts.benches.processes import tree
from tests.standin.baileys.run import BaileysServer
from tests.trial.hostile import contact
from tests.trial.hostile.contacting.acts import FRIEND, GROUP, HOSTILE
from tests.trial.hostile.contacting.doing import Target, do
from tests.trial.hostile.frame import case_of

FRIENDS = [FRIEND, *(f"55119000002{number:02d}" for number in range(7))]
LINKED, BACK, READ = 120.0, 180.0, 120.0
"""Seconds until all bots are linked, a session is back after a kill, and with no other receipt."""
BETWEEN_CASES, BETWEEN_WORDS, BETWEEN_KILLS = 6.0, 3.0, 200.0
"""The longest pauses in seconds, of each session's contact, friends and kills. A worker leaves a
Node that ends more often than `client_starts` in ten minutes to the agent, which takes its time."""
LOOK = 5.0


class Attack:
    """The processes of one run, and what was done to them."""

    def __init__(self, root: Path, sessions: int, seed: int) -> None:
        self._root, self._seed = root, seed
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self.kills: Counter[str] = Counter()
        self.not_back: list[str] = []
        self._paired = PairedSessions(root, sessions)
        self.sessions = self._paired.each

    async def run(self, seconds: float) -> None:
        async with AsyncExitStack() as stack:
            await self._paired.begin(stack)
            await self._link_bots(stack)
            accounts = [each.account for each in self.sessions]
            members = [*accounts, HOSTILE, *FRIENDS]
            await asyncio.to_thread(self._paired.whatsapp.make_group, GROUP, members)
            await asyncio.to_thread(self._paired.whatsapp.takes_enclosed_keys, HOSTILE, *FRIENDS)
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as tasks:
                for session in self.sessions:
                    tasks.create_task(self._attack(session, until))
                    tasks.create_task(self._befriend(session, until))
                tasks.create_task(self._kill_all_the_time(until))
                tasks.create_task(self._watch(until))
            for session in self.sessions:
                for friend in FRIENDS:
                    await self._say(session, friend)
            self.unread = await self._read_in_the_end()
            await self._paired.look()

    async def _link_bots(self, stack: AsyncExitStack) -> None:
        names = {str(number): each.id for number, each in enumerate(self.sessions)}
        places = (self._root / "bots", self._root / "bots.log")
        bots = await asyncio.to_thread(
            lambda: BaileysServer(self._paired.whatsapp, *places, sessions=names)
        )
        stack.callback(bots.end)
        async with asyncio.timeout(LINKED):
            for id, session in zip(names, self.sessions, strict=True):
                while not (code := await asyncio.to_thread(bots.qr, id)):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
                await asyncio.to_thread(self._paired.whatsapp.scan, code, session.account)
                while await asyncio.to_thread(bots.status, id) != "CONNECTED":  # noqa: ASYNC110
                    await asyncio.sleep(0.2)

    async def _attack(self, session: Session, until: float) -> None:
        folder = self._paired.agent.state / "sessions" / session.id / "session"

        async def send(message: Mapping[str, Any]) -> str:
            path = f"/api/instance/{session.id}/messages?wait=30"
            status, said = await self._paired.agent.ask("POST", path, dict(message))
            return str(said["id"]) if status == 200 else ""

        target = Target(self._paired.whatsapp, session.account, folder, send)
        while time.monotonic() < until:
            for step in case_of(contact, self._seed, next(self._numbers)):
                with suppress(aiohttp.ClientError, FileNotFoundError):
                    await do(target, step)
                session.stanzas += len(step.get("groups", "1"))
            session.cases += 1
            await asyncio.sleep(self._chance.uniform(0.0, BETWEEN_CASES))

    async def _befriend(self, session: Session, until: float) -> None:
        while time.monotonic() < until:
            await self._say(session, self._chance.choice(FRIENDS))
            await asyncio.sleep(self._chance.uniform(0.0, BETWEEN_WORDS))

    async def _say(self, session: Session, friend: str) -> None:
        at, text = time.time(), f"message {len(session.said)}"
        id = await asyncio.to_thread(self._paired.whatsapp.say, friend, session.account, text)
        session.said[id] = at

    async def _kill_all_the_time(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self._chance.uniform(0.0, BETWEEN_KILLS / len(self.sessions)))
            await self._kill(self._chance.choice(self.sessions))

    async def _kill(self, session: Session) -> None:
        pid = await self._paired.agent.pid(session.id)
        if pid == 0:
            return
        worker, *children = tree(pid)
        target = self._chance.choice(["worker", "Node"] if children else ["worker"])
        begun = time.time()
        for pid in [worker] if target == "worker" else children:
            os.kill(pid, signal.SIGKILL)
        session.kills.append((begun, float("inf")))
        self.kills[target] += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(BACK):
                while not self._paired.came_back(session, begun):
                    await asyncio.sleep(0.5)
                    await self._paired.look_at(session)
                return
        self.not_back.append(f"{session.id} is not back {BACK:.0f} s after a kill of its {target}")

    async def _watch(self, until: float) -> None:
        told = 0.0
        while time.monotonic() < until:
            await self._paired.look()
            if time.monotonic() > told + 300.0:
                told = time.monotonic()
                print(f"{time.strftime('%H:%M:%S')} {self.summary()}", flush=True)
            await asyncio.sleep(LOOK)

    def summary(self) -> str:
        kills, drops = self.kills.total(), sum(len(each.drops()) for each in self.sessions)
        cases = sum(each.cases for each in self.sessions)
        return f"{cases} cases, {kills} kills, {drops} times down for a contact's sake"

    async def _read_in_the_end(self) -> dict[str, list[str]]:
        """By session, what a friend wrote and only the bot read, once nothing more is read."""
        quiet, last = time.monotonic() + READ, -1
        while True:
            devices = await asyncio.to_thread(self._paired.whatsapp.devices)
            self.read, unread = {}, {}
            for session in self.sessions:
                ours, bots = (_read(d) for d in devices if d["user"] == session.account)
                self.read[session.id] = len(ours.intersection(session.said))
                unread[session.id] = [id for id in session.said if id in bots - ours]
            everything = sum(self.read.values())
            if everything != last:
                quiet, last = time.monotonic() + READ, everything
            if everything == sum(len(e.said) for e in self.sessions) or time.monotonic() > quiet:
                return unread
            await asyncio.sleep(2.0)

    def table(self) -> str:
        said = sum(len(each.said) for each in self.sessions)
        kinds = Counter(e["kind"] for each in self.sessions for e in each.events)
        rows = {
            "sessions": len(self.sessions),
            "cases": sum(each.cases for each in self.sessions),
            "hostile stanzas and damaged files": sum(each.stanzas for each in self.sessions),
            "kills": " and ".join(f"{count} of the {name}" for name, count in self.kills.items()),
            "sessions down for a contact's sake": len(self.drops()),
            "pairings lost": sum(each.codes() for each in self.sessions),
            "records of contacts moved aside": kinds["key_unreadable"],
            "friends' messages": said,
            "of these read by the session": sum(self.read.values()),
            "read by the bot, and not by the session": sum(map(len, self.unread.values())),
            "of these under way at a kill": self._under_way(),
        }
        lines = ["| measure | figure |", "|---|---|"]
        return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])

    def _under_way(self) -> int:
        return sum(e.was_under_way(id) for e in self.sessions for id in self.unread[e.id])

    def drops(self) -> list[str]:
        return [words for each in self.sessions for words in each.drops()]

    def broke(self) -> list[str]:
        """A line for each thing that must not be."""
        lost = [f"{each.id} showed another code" for each in self.sessions if each.codes() > 0]
        unread = [
            f"{each.id} did not read {id}, written {wall_text(each.said[id])}"
            for each in self.sessions
            for id in self.unread[each.id]
            if not each.was_under_way(id)
        ]
        return [*self.drops(), *self.not_back, *lost, *unread]


def _read(device: Mapping[str, Any]) -> set[str]:
    return {each["id"] for each in device["receipts"] if each["type"] != "retry"}


def attack(root: Path, sessions: int, seconds: float, seed: int) -> int:
    """Play it in this folder, which stays where something did not hold; the exit status."""
    run = Attack(root, sessions, seed)
    try:
        asyncio.run(run.run(seconds))
    except HostError as error:
        print(f"not held: {error}; see {root}", file=sys.stderr)
        return 1
    print(run.table())
    if broke := run.broke():
        print(f"not held, see {root}:", *broke, sep="\n", file=sys.stderr)
        return 1
    shutil.rmtree(root)
    return 0
