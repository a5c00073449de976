"""scripts/trial kills [--minutes N] [--every S] [--pack N] [--seed S] [--sandbox N] [--baileys N] …

One real agent with 51 sessions of five engines, while those of three send and get a message each
second. Workers, Nodes, browsers and the agent are killed (kill -9) and frozen, and the network is
cut: one each S seconds (2; 0: none, for a soak). Each minute, and as slopes at the end, it prints
memory. A webhook, whose target breaks off one answer in twenty, and a reader with a cursor must get
each message, and each must be kept once; two of one id are one to a contact, as on a phone. Ends
with 1 if a message was lost or came twice, if a session lost its pairing, or if one is not back.
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
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, suppress
from itertools import count
from pathlib import Path
from statistics import fmean, linear_regression
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from agent.engines.program.process import descendants
from agent.engines.web.fetch import fetch_bundle
from scripts.benches.machine import TOP
from scripts.benches.processes import uss
from tests.daemon.conftest import NOWHERE, RunningAgent, workers_in
from tests.daemon.line import Line, line_to
from tests.engines.baileys.conftest import PEER, make_cache
from tests.ports import free_port
from tests.standin.baileys.run import HERE, WhatsApp
from tests.standin.evolution import server as evolution
from tests.standin.web.stand_in import StandIn

BACK_WITHIN = 180.0
WARM = 10
"""Minutes that a slope leaves out."""
ENGINES = {"s": "sandbox", "b": "baileys", "w": "web", "p": "program", "e": "evolution"}
KINDS = (
    "worker",
    "worker",
    "below",
    "below",
    "agent",
    "frozen",
    "frozen below",
    "frozen agent",
    "cut",
)
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0

[worker]
burst = 500
pack = {pack}

[memory]
total = 0

[reconnect]
base = 0.5
attempts = 1000
max = 20
breaker_failures = 100

[[webhook]]
name = "consumer"
url = "http://127.0.0.1:{port}/"
private = true
kinds = ["message*"]
oldest = true

[[program]]
name = "bot"
command = ["node", "{bot}"]
environment = ["WHATSAPP={whatsapp}"]

[[backend]]
name = "evo"
engine = "evolution"
url = "{url}"
key = "{key}"
adopt = ["*"]
"""
"""No wait for a process that was killed on purpose is longer than the fault."""


class Trial:
    def __init__(self, root: Path, asked: argparse.Namespace) -> None:
        self.root, self.asked, self.draw = root, asked, random.Random(asked.seed)
        self.ids = [
            f"{kind}{n}" for kind, name in ENGINES.items() for n in range(vars(asked)[name])
        ]
        self.talkers = [id for id in self.ids if id[0] in "sbw"]
        self.agent = RunningAgent(root / "state", root / "agent.toml")
        self.agent.first = f"{NOWHERE}pass"
        self.whatsapp = WhatsApp(root / "whatsapp.log")
        self.numbers = {id: f"55119{n:08}" for n, id in enumerate(self.ids)}
        self.lines, self.done, self.wrong = list[Line](), Counter[str](), set[str]()
        self.sent, self.said, self.posted = set[str](), set[str](), defaultdict[str, set[str]](set)
        self.used = defaultdict[str, list[tuple[float, float]]](list)

    async def open(self, stack: AsyncExitStack) -> None:
        stack.callback(self.whatsapp.end)
        self.whatsapp.takes_enclosed_keys(PEER)
        self.whatsapp.asks_again(PEER)
        self.web = await StandIn.open(qr_every=300, alive_every=0.5)
        others = await evolution.StandIn.open()
        stack.push_async_callback(self.web.close)
        stack.push_async_callback(others.close)
        for id in self.ids:
            if id[0] == "e":
                others.add(id, "open")
        self.urls = {"b": self.whatsapp.socket, "w": self.web.url}
        for kind, url in self.urls.items():
            where = urlsplit(url)
            self.lines.append(line := await stack.enter_async_context(line_to(where.port or 0)))
            self.urls[kind] = where._replace(netloc=f"127.0.0.1:{line.port}").geturl()
        app = web.Application()
        app.router.add_post("/", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
        told = {"url": others.url, "key": evolution.KEY, "port": port, "pack": self.asked.pack}
        bot = {"bot": HERE / "bots" / "plain.mjs", "whatsapp": self.whatsapp.socket}
        self.agent.config.write_text(SETTINGS.format(**told, **bot))
        fetch_bundle(TOP / ".cache")
        shutil.copytree(TOP / ".cache", make_cache(self.root / "cache"), dirs_exist_ok=True)
        self.agent.state.mkdir(mode=0o700)
        (self.agent.state / "cache").symlink_to(self.root / "cache")
        stack.push_async_callback(self.agent.close)
        await self.agent.start()

    async def _take(self, request: web.Request) -> web.Response:
        event = await request.json()
        record = event.get("message", event)
        if record.get("kind") == "message":
            self.posted[f"{event['instance']} {record['text']}"].add(record["id"])
        if self.draw.random() < 0.05 and request.transport:
            request.transport.abort()
        return web.Response(status=204)

    async def play(self) -> None:
        for id in self.ids:
            await self._make(id)
        before = await self._all_back()
        begun, every = time.monotonic(), self.asked.every
        end = begun + 60 * self.asked.minutes
        tasks = [asyncio.create_task(work) for work in (self._talk(), self._weigh(begun))]
        while every and time.monotonic() < end:
            await asyncio.sleep(self.draw.expovariate(1 / every))
            await self._hit()
        await asyncio.sleep(end - time.monotonic())
        for task in tasks:
            task.cancel()
        for id, shown in (await self._all_back()).items():
            if (shown["account"], shown["paired"]) != (before[id]["account"], before[id]["paired"]):
                self.wrong.add(f"{id}: another account")
        await self._count()

    async def _make(self, id: str) -> None:
        if id[0] == "s":
            await self.agent.create(id)
        if id[0] in "es":
            return
        baileys = {"url": self.urls["b"], "client_starts": 100}
        page = {"url": f"{self.urls['w']}?name={id}"}
        settings = {"b": baileys, "w": page, "p": {"program": "bot"}}[id[0]]
        body = {"id": id, "engine": ENGINES[id[0]], "settings": settings}
        await self.agent.do("POST", "/api/instance", body)
        async with asyncio.timeout(BACK_WITHIN):
            path, code = f"/api/instance/{id}/qr", dict[str, str]()
            while "qr" not in code:
                await asyncio.sleep(0.1)
                _, code = await self.agent.ask("GET", path)
        if id[0] == "w":
            self.web.scan(self.numbers[id], id)
        else:
            await asyncio.to_thread(self.whatsapp.scan, code["qr"], self.numbers[id])

    async def _all_back(self) -> dict[str, dict[str, Any]]:
        begun, shown = time.monotonic(), dict[str, dict[str, Any]]()
        while waiting := [id for id in self.ids if id not in shown]:
            assert time.monotonic() < begun + BACK_WITHIN, f"not connected: {waiting}"
            await asyncio.sleep(0.5)
            for id in waiting:
                with suppress(AssertionError, aiohttp.ClientError, OSError):
                    if (found := await self.agent.show(id))["connection_status"] == "CONNECTED":
                        shown[id] = found
        print(f"all are connected after {time.monotonic() - begun:.1f} s", flush=True)
        return shown

    async def _talk(self) -> None:
        for n in count():
            await asyncio.sleep(self.draw.uniform(0.5, 1.5))
            with suppress(aiohttp.ClientError, OSError):
                await self._send(self.draw.choice(self.talkers), f"m{n}")
            with suppress(aiohttp.ClientError, OSError):
                await self._say(self.draw.choice(self.talkers), f"c{n}")

    async def _send(self, id: str, text: str) -> None:
        path, key = f"/api/instance/{id}/messages", {"Idempotency-Key": text}
        body = {"to": PEER, "type": "text", "text": text}
        if (await self.agent.ask("POST", path, body, key))[0] in (200, 202):
            self.sent.add(text)

    async def _say(self, id: str, text: str) -> None:
        to = [id]
        if id[0] == "s":
            body = {"contact": PEER, "text": text}
            if (await self.agent.ask("POST", f"/api/instance/{id}/sandbox/say", body))[0] != 200:
                return
        elif id[0] == "w":
            to = [it for it in self.ids if it[0] == "w"]
            self.web.deliver("message", **{"from": f"{PEER}@c.us", "id": f"IN{text}", "body": text})
        else:
            await asyncio.to_thread(self.whatsapp.say, PEER, self.numbers[id], text)
        self.said |= {f"{it} {text}" for it in to}

    def _workers(self) -> dict[str, int]:
        """By session, or by pack."""
        folders = self.agent.state.glob("run*")
        return {id: pid for folder in folders for id, pid in workers_in(folder).items()}

    async def _hit(self) -> None:
        kind = self.draw.choice(KINDS)
        self.done[kind] += 1
        workers = [*self._workers().values()]
        below = [pid for worker in workers for pid in descendants(worker)]
        pids = below if "below" in kind else workers
        pid = self.draw.choice(pids) if pids else 0
        if kind == "agent":
            await self.agent.kill()
            await asyncio.sleep(self.draw.choice([0, 1, 5]))
            await self.agent.start()
        elif kind == "cut":
            for line in self.lines:
                await line.cut()
            await asyncio.sleep(self.draw.uniform(0.5, 8))
            for line in self.lines:
                await line.mend()
        elif kind.startswith("frozen"):
            assert self.agent.process is not None
            pid = self.agent.process.pid if kind == "frozen agent" else pid
            _signal(pid, signal.SIGSTOP)
            await asyncio.sleep(self.draw.choice([1, 4, 25]))
            _signal(pid, signal.SIGCONT)
        else:
            _signal(pid, signal.SIGKILL)

    async def _weigh(self, begun: float) -> None:
        """MiB of the agent, of a worker, and of what is below it: the mean by engine."""
        while True:
            await asyncio.sleep(60)
            minute, found = (time.monotonic() - begun) / 60, defaultdict[str, list[float]](list)
            assert self.agent.process is not None
            found["agent"].append(uss(self.agent.process.pid))
            for id, pid in self._workers().items():
                found[ENGINES[id[0]]].append(uss(pid))
                found[f"below {ENGINES[id[0]]}"].append(sum(map(uss, descendants(pid))))
            for name, each in found.items():
                self.used[name].append((minute, fmean(each)))
            words = ", ".join(f"{name} {it[-1][1]:.2f}" for name, it in sorted(self.used.items()))
            print(f"minute {minute:.0f}: MiB {words}; load {os.getloadavg()[0]:.1f}", flush=True)

    def slopes(self) -> Iterator[str]:
        for name, points in sorted(self.used.items()):
            if len(late := [it for it in points if it[0] > WARM]) > 1:
                minutes, used = zip(*late, strict=True)
                slope = 60 * linear_regression(minutes, used).slope
                yield f"{name}: {used[0]:.2f} to {used[-1]:.2f} MiB, {slope:+.2f} an hour"

    async def _count(self) -> None:
        end = time.monotonic() + BACK_WITHIN
        while True:
            await asyncio.sleep(2)
            posted = Counter({text: len(ids) for text, ids in self.posted.items()})
            counts = (
                ("out", self.sent, await asyncio.to_thread(self._heard)),
                ("in", self.said, await self._kept()),
                ("to the webhook", self.said, posted),
            )
            if time.monotonic() > end or all(wanted <= it.keys() for _, wanted, it in counts):
                break
        for what, wanted, found in counts:
            bad = {f"{what}: {it} lost" for it in wanted - found.keys()}
            bad |= {f"{what}: {it} {times} times" for it, times in found.items() if times > 1}
            print(f"{what}: {len(wanted)} messages, {len(bad)} wrong")
            self.wrong |= bad

    def _heard(self) -> Counter[str]:
        heard = [(it["text"], it["id"]) for it in self.whatsapp.person(PEER).get("heard", ())]
        heard += [(str(it["body"]), id) for id, it in self.web.arrived.items()]
        for path in self.root.rglob("whatsapp/*.db"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
                rows = db.execute("select * from heard").fetchall()
                heard += [(json.loads(body).get("text"), id) for *_, id, body in rows]
        return Counter(text for text, _ in {*heard} if text in self.sent)

    async def _kept(self) -> Counter[str]:
        kept = Counter[str]()
        for id in self.talkers:
            path, after, more = f"/api/instance/{id}/messages?limit=500&after=", 0, True
            while more:
                page = await self.agent.do("GET", f"{path}{after}")
                after, more = page["next"], bool(page["records"])
                for record in page["records"]:
                    if record["kind"] == "message":
                        kept[f"{id} {record['text']}"] += 1
                    elif record["kind"] == "message_gap":
                        self.wrong.add(f"{id}: a gap for a reader")
        return kept


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)


async def run(asked: argparse.Namespace, root: Path) -> bool:
    trial = Trial(root, asked)
    try:
        async with AsyncExitStack() as stack:
            await trial.open(stack)
            await trial.play()
    except AssertionError as error:
        trial.wrong.add(str(error))
    print(", ".join(f"{kind} {times}" for kind, times in sorted(trial.done.items())))
    print(*trial.slopes(), *sorted(trial.wrong), sep="\n")
    return bool(trial.wrong)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("scripts/trial kills", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=2.0)
    numbers = {"sandbox": 22, "baileys": 20, "web": 3, "program": 2, "evolution": 4}
    for name, default in {**numbers, "pack": 1, "seed": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    root = Path(tempfile.mkdtemp(prefix="wa-kills-", dir="/var/tmp"))
    status = asyncio.run(run(parser.parse_args(argv), root))
    print(f"what was said: {root}") if status else shutil.rmtree(root)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
