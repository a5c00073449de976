"""`scripts/chaos programs`: bots of somebody's own under one agent, killed and spoiled at random.

Each is an unmodified Baileys program in front of the tests' stand-in for WhatsApp. A fault is over
when another process of the bot is connected; a code that is shown is a lost pairing.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.errors import HostError
from scripts.benches.machine import this_machine
from scripts.benches.processes import children
from tests.daemon.conftest import RunningAgent
from tests.standin.baileys.run import HERE, WhatsApp, why_not

PEER = "5511900000900"
SETTINGS = """\
[agent]
host = "process"

[start]
stagger = 0
login_every = 0
spread = 0
first_check = 0.2

[health]
interval = 5
timeout = 3

[worker]
watchdog = 30
burst = 400

[reconnect]
base = 0.2
jitter = 0
stable = 5
breaker_failures = 1000

[recovery]
first_delay = 0.5

[incident]
instances = 1000
share = 1.0

[memory]
total = 0

[[program]]
name = "shopbot"
command = ["{node}", "{bot}"]
environment = ["WHATSAPP={url}"]
starts = 100
"""
"""Limits on how often a session may end would be what is measured, not what heals it."""
SPOILT = ("session_damaged", "unpaired_suspect")
KINDS = ("kill the bot", "kill its worker", "freeze it", "hang its loop", "damage its credentials")
FULL = "fill the disk"
LONGEST = 3.0
"""Seconds between two faults of one bot, at most."""
HEALED = 300.0
DISK = 600
"""MiB of the disk that is filled; only root can have one of its own."""


class Bots:
    def __init__(self, agent: RunningAgent, whatsapp: WhatsApp, seed: int) -> None:
        self._agent, self._whatsapp = agent, whatsapp
        self._chance = random.Random(seed)
        self.healed: dict[str, list[float]] = defaultdict(list)
        self.lost: list[str] = []
        self.put_back: dict[str, int] = defaultdict(int)

    async def pair(self, id: str, account: str) -> None:
        body = {"id": id, "engine": "program", "settings": {"program": "shopbot"}}
        await self._agent.do("POST", "/api/instance", body)
        await self._until(id, "QR_REQUIRED")
        code = await self._agent.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self._whatsapp.scan, code["qr"], account)
        await self._until(id, "CONNECTED")
        await asyncio.to_thread(self._whatsapp.say, PEER, account, "hello")
        await self._agent.do("POST", f"/api/instance/{id}/snapshots")

    async def suffer(self, id: str, account: str, faults: list[str]) -> None:
        seen, _ = await self._codes_after(id, 0)
        while faults:
            kind = faults.pop()
            await asyncio.sleep(self._chance.uniform(0.0, LONGEST))
            before = await self._running_bot(id)
            begun = time.monotonic()
            await self._do(kind, id, account, before)
            try:
                await self._heals(id, before, kind)
            except HostError as error:
                self.lost.append(str(error))
                return
            self.healed[kind].append(time.monotonic() - begun)
            if (done := sum(map(len, self.healed.values()))) % 20 == 0:
                print(f"{done} faults healed ...", file=sys.stderr, flush=True)
            seen, codes = await self._codes_after(id, seen)
            if codes:
                self.lost.append(f"{id} after {kind}")
                return

    async def _do(self, kind: str, id: str, account: str, bot: int) -> None:
        if kind == "kill the bot":
            os.kill(bot, signal.SIGKILL)
        elif kind == "kill its worker":
            os.kill(await self._agent.running_pid(id), signal.SIGKILL)
        elif kind == "freeze it":
            os.kill(bot, signal.SIGSTOP)
        elif kind == "hang its loop":
            await asyncio.to_thread(self._whatsapp.say, PEER, account, "hang")
        elif kind == "damage its credentials":
            await self._damage(id, bot)
        else:
            await self._fill(bot)

    async def _damage(self, id: str, bot: int) -> None:
        """As a power cut or a full disk leaves them: zeros, a half, or nothing."""
        os.kill(bot, signal.SIGSTOP)
        creds = self._agent.state / "sessions" / id / "session" / "auth_info_baileys" / "creds.json"
        content = creds.read_bytes()
        spoilt = self._chance.choice([b"\0" * len(content), content[: len(content) // 2], b""])
        creds.write_bytes(spoilt)
        os.kill(bot, signal.SIGKILL)

    async def _fill(self, bot: int) -> None:
        """The disk is full while the bot writes and is killed; then there is room again."""
        ballast = self._agent.state / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        try:
            await asyncio.sleep(self._chance.uniform(0.5, 3.0))
            os.kill(bot, signal.SIGKILL)
            await asyncio.sleep(self._chance.uniform(0.5, 3.0))
        finally:
            ballast.unlink()

    async def _heals(self, id: str, before: int, kind: str) -> None:
        """Whose files are damaged waits for a person: an older copy of keys is never put back by
        the agent alone. Here the script types what `why` says."""
        deadline = time.monotonic() + HEALED
        while True:
            shown = await self._agent.show(id)
            if shown["connection_status"] == "CONNECTED" and await self._bot(id) not in (0, before):
                return
            health = shown["health"]
            if health["reason"] in SPOILT:
                await self._put_back(id)
                self.put_back[kind] += 1
            if time.monotonic() > deadline:
                words = f"{kind} of {id}: not healed within {HEALED:.0f} s: {health['sentence']}"
                raise HostError(words)
            await asyncio.sleep(0.2)

    async def _put_back(self, id: str) -> None:
        path = f"/api/instance/{id}"
        await self._agent.do("POST", f"{path}/stop")
        async with asyncio.timeout(HEALED):
            while await self._agent.pid(id):  # noqa: ASYNC110 - the host tells nothing
                await asyncio.sleep(0.2)
        copies = (await self._agent.do("GET", f"{path}/snapshots"))["snapshots"]
        name = max(copy["name"] for copy in copies if copy["good"])
        async with asyncio.timeout(HEALED):
            await self._insist(f"{path}/snapshots/{name}/restore", {"force": True})
            await self._insist(f"{path}/start")

    async def _insist(self, path: str, body: object = None) -> None:
        """The disk may be full at this moment."""
        while True:
            if (await self._agent.ask("POST", path, body))[0] < 400:
                return
            await asyncio.sleep(1)

    async def _bot(self, id: str) -> int:
        """The Node below its worker; 0 between two runs."""
        worker = await self._agent.pid(id)
        return next(iter(children([worker])), 0) if worker else 0

    async def _codes_after(self, id: str, seen: int) -> tuple[int, int]:
        """The newest event's number, and how many codes were shown after `seen`. An answer holds
        the history of some forty faults; one fault's is always whole."""
        found = await self._agent.do("GET", f"/api/instance/{id}/events?limit=500")
        events = found["events"]
        if seen and len(events) == 500 and min(its["cursor"] for its in events) > seen:
            raise HostError(f"the history of {id} is longer than an answer")
        shown = [its for its in events if its["cursor"] > seen and "→ QR_REQ" in its["sentence"]]
        return max((its["cursor"] for its in events), default=seen), len(shown)

    async def _running_bot(self, id: str) -> int:
        """A signal to process 0 would reach this script itself."""
        async with asyncio.timeout(HEALED):
            while not (found := await self._bot(id)):  # noqa: ASYNC110 - the host tells nothing
                await asyncio.sleep(0.05)
        return found

    async def _until(self, id: str, status: str) -> None:
        deadline = time.monotonic() + HEALED
        while await self._agent.status(id) != status:
            if time.monotonic() > deadline:
                raise HostError(f"{id} is not {status} within {HEALED:.0f} s")
            await asyncio.sleep(0.2)


async def run(faults: int, count: int, seed: int, root: Path) -> None:
    """Prints the table; HostError where a pairing was lost or a fault was not healed."""
    node = shutil.which("node")
    whatsapp = WhatsApp(root / "whatsapp.log")
    config = root / "agent.toml"
    text = SETTINGS.format(node=node, bot=HERE / "bots" / "plain.mjs", url=whatsapp.socket)
    config.write_text(text)
    agent = RunningAgent(root / "disk" / "state", config)
    begun = time.monotonic()
    try:
        await agent.start()
        bots = Bots(agent, whatsapp, seed)
        accounts = {f"bot-{number}": f"55119000010{number:02d}" for number in range(count)}
        for id, account in accounts.items():
            await bots.pair(id, account)
        await asyncio.gather(
            *(
                bots.suffer(id, account, todo)
                for (id, account), todo in zip(
                    accounts.items(), _shares(faults, count, seed), strict=True
                )
            )
        )
        print(_table(bots, whatsapp, time.monotonic() - begun, count))
        devices, twice = len(whatsapp.devices()), whatsapp.overlaps()
        if bots.lost or devices != count or twice:
            raise HostError(f"lost: {bots.lost}; devices: {devices}; overlaps: {twice}")
    finally:
        await agent.close()
        whatsapp.end()


def _shares(faults: int, count: int, seed: int) -> list[list[str]]:
    """What happens to each bot. The disk is everybody's: one bot in one share fills it."""
    chance = random.Random(seed)
    kinds = [*KINDS, FULL] if os.geteuid() == 0 else list(KINDS)
    drawn = [kinds[number % len(kinds)] for number in range(faults)]
    chance.shuffle(drawn)
    alone = [kind for kind in drawn if kind == FULL]
    others = [kind for kind in drawn if kind != FULL]
    shares = [others[number::count] for number in range(count)]
    shares[0] += alone
    chance.shuffle(shares[0])
    return shares


def _table(bots: Bots, whatsapp: WhatsApp, seconds: float, count: int) -> str:
    lines = ["| fault | healed | of these put back by `restore` | median s | longest s |"]
    lines.append("|---|---:|---:|---:|---:|")
    total = 0
    for kind in (*KINDS, FULL):
        took = bots.healed.get(kind, [])
        total += len(took)
        if took:
            middle, longest = statistics.median(took), max(took)
            row = (kind, len(took), bots.put_back[kind], f"{middle:.1f}", f"{longest:.1f}")
            lines.append("| " + " | ".join(map(str, row)) + " |")
    lines.append(
        f"\n{total} faults of {count} bots in {seconds:.0f} s: {len(bots.lost)} pairings lost,"
        f" {len(whatsapp.overlaps())} logins beside another one; {this_machine()}"
    )
    return "\n".join(lines)


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    """One of our own where we may have one: a full one must be nobody else's."""
    place = root / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        print("not as root: no disk of its own, so none is filled", file=sys.stderr)
        yield
        return
    options = ["-o", f"size={DISK}m,mode=0755"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "bots", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def main(options: argparse.Namespace) -> int:
    if reason := why_not("baileys"):
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="bots-") as name, _disk(Path(name)):
        try:
            asyncio.run(run(options.kills, options.sessions, options.seed, Path(name)))
        except HostError as error:
            print(f"scripts/chaos programs: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/chaos programs", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="faults in all")
    parser.add_argument("--sessions", type=int, default=6, metavar="N", help="bots of one agent")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what happens when")
    sys.exit(main(parser.parse_args()))
