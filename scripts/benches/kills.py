"""`scripts/chaos baileys`: kill -9 of a session's Node or of its worker at random moments.

One session of the baileys engine on the unmodified library, in front of the tests' stand-in for
WhatsApp, whose peers write all the time. After each kill it is started as the agent would start it.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from agent.core.model import ConnectionStatus
from agent.engines.baileys.fetch import fetch_packages
from agent.errors import EngineError, HostError, LinkError
from scripts.benches.attacked import attack
from scripts.benches.lone_worker import LoneWorker
from scripts.benches.machine import TOP, this_machine
from scripts.benches.processes import tree
from scripts.benches.together import kill_together
from scripts.messages import hours
from tests.standin.baileys.run import WhatsApp, why_not

ACCOUNT = "5511900000001"
PEERS = [f"55119000001{number:02d}" for number in range(8)]
LONGEST = 1.5
"""Seconds from a kill's session being started until the next kill, at most: some hit its start."""
LOST, READ = 60.0, 90.0
"""Seconds until it must be back after a kill, and until the last messages must have been read."""
QUIET = 10.0
"""Seconds without another receipt: what is not read by then stays unread."""


class Run:
    """One session, its kills, and what was written to it."""

    def __init__(self, whatsapp: WhatsApp, worker: LoneWorker, seed: int) -> None:
        self._whatsapp, self._worker = whatsapp, worker
        self._chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.said: list[str] = []
        self.back: list[float] = []

    async def pair(self) -> None:
        await self._worker.start()
        await self._worker.until_code()
        code: Any = await self._worker.link.call("qr")
        await asyncio.to_thread(self._whatsapp.scan, code["qr"]["text"], ACCOUNT)
        await self._worker.until(ConnectionStatus.DISCONNECTED)
        await self.come_back()

    async def kill(self) -> None:
        """At a random moment, somewhere between its start and its talking."""
        await asyncio.sleep(self._chance.uniform(0.0, LONGEST))
        worker, *children = tree(self._worker.pid)
        target = self._chance.choice(["worker", "Node"] if children else ["worker"])
        for pid in [worker] if target == "worker" else children:
            os.kill(pid, signal.SIGKILL)
        self.kills[target] += 1

    async def come_back(self) -> None:
        """As the agent does it: another worker where that ended, else another try of this one."""
        begun = time.monotonic()
        while not await self._is_back():
            if time.monotonic() - begun > LOST:
                raise HostError(f"not back within {LOST:.0f} s: {self._worker.said}")
            await asyncio.sleep(0.02)
        self.back.append(time.monotonic() - begun)

    async def _is_back(self) -> bool:
        try:
            if self._worker.ended:
                await self._worker.stop()
                await self._worker.start()
            elif self._worker.status is not ConnectionStatus.CONNECTED:
                await self._worker.link.call("connect", timeout=30.0)
            answer: Any = await self._worker.link.call("probe", {"deep": True}, timeout=10.0)
        except (EngineError, LinkError):
            return False
        if self._worker.status is ConnectionStatus.QR_REQUIRED:
            raise HostError("the pairing was lost: the session shows a code")
        return bool(answer["detail"].get("ping_seconds") is not None)

    async def talk(self) -> None:
        """Peers write at random, also while the session is down."""
        while True:
            peer = self._chance.choice(PEERS)
            text = f"message {len(self.said)}"
            self.said.append(await asyncio.to_thread(self._whatsapp.say, peer, ACCOUNT, text))
            await asyncio.sleep(self._chance.uniform(0.0, 0.6))

    async def read_in_the_end(self) -> int:
        """How many of them gave a receipt; one more of each peer must."""
        later = [
            await asyncio.to_thread(self._whatsapp.say, peer, ACCOUNT, "after all kills")
            for peer in PEERS
        ]
        read, deadline = self._read(), time.monotonic() + READ
        quiet = time.monotonic() + QUIET
        # What came while it was down may be read after what came last.
        while not {*later, *self.said} <= read:
            if set(later) <= read and time.monotonic() > quiet:
                break
            if not set(later) <= read and time.monotonic() > deadline:
                raise HostError(f"not every peer is read within {READ:.0f} s")
            await asyncio.sleep(0.2)
            before, read = read, self._read()
            if read != before:
                quiet = time.monotonic() + QUIET
        return len(read & set(self.said))

    async def kept(self) -> Counter[str]:
        """How often the worker has kept each message that was written."""
        found, after, more = Counter[str](), 0, True
        while more:
            asked = {"after": after, "limit": 1000}
            page: Any = await self._worker.link.call("messages", asked, timeout=30.0)
            found.update(each.get("message_id", "") for each in page["records"])
            after, more = page["next"], page["more"]
        return Counter({id: found[id] for id in self.said if id in found})

    def _read(self) -> set[str]:
        receipts = self._whatsapp.device(ACCOUNT)["receipts"]
        return {each["id"] for each in receipts if each["type"] != "retry"}


async def run(kills: int, seed: int, root: Path) -> None:
    """Prints the table; HostError where something was lost."""
    cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
    fetch_packages(cache)
    whatsapp = WhatsApp(root / "whatsapp.log")
    settings = {"url": whatsapp.socket, "client_starts": 100}
    worker = LoneWorker(root / "sales", "baileys", settings, cache)
    found = Run(whatsapp, worker, seed)
    try:
        await found.pair()
        talking = asyncio.create_task(found.talk(), name="talking")
        for number in range(kills):
            await found.kill()
            await found.come_back()
            if number % 20 == 19:
                print(f"{number + 1} of {kills} kills ...", file=sys.stderr)
        talking.cancel()
        await asyncio.wait({talking})
        read = await found.read_in_the_end()
        kept = await found.kept()
        logins = whatsapp.device(ACCOUNT)["logins"]
    finally:
        await worker.stop()
        whatsapp.end()
    print(table(found, read, kept, logins))
    if lost := len(found.said) - len(kept):
        raise HostError(f"{lost} messages were not kept")
    if twice := sum(count > 1 for count in kept.values()):
        raise HostError(f"{twice} messages were kept twice")


def table(found: Run, read: int, kept: Counter[str], logins: int) -> str:
    said, back = len(found.said), sorted(found.back)
    rows = {
        "kills": " and ".join(f"{count} of the {name}" for name, count in found.kills.items()),
        "pairings lost": "0",
        "logins": str(logins),
        "kill → a ping answered, median · longest (s)": (
            f"{statistics.median(back):.1f} · {back[-1]:.1f}"
        ),
        "messages written meanwhile, read in the end": f"{said}, {read} ({read / said:.2%})",
        "of them kept, and kept twice": f"{len(kept)}, {sum(n > 1 for n in kept.values())}",
        "one more of each peer, read": f"{len(PEERS)} of {len(PEERS)}",
    }
    lines = ["| measure | figure |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())])


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos baileys", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="number of kills")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the random moments")
    parser.add_argument("--hostile", action="store_true", help="see scripts/benches/attacked.py")
    parser.add_argument(
        "--nodes", action="store_true", help="kill the Nodes of all sessions at once"
    )
    parser.add_argument("--sessions", type=int, default=8, metavar="N", help="of both")
    words = (
        "all faults on a pack of N sessions, then on as many alone; see scripts/messages/hours.py"
    )
    parser.add_argument("--pack", type=int, metavar="N", help=words)
    parser.add_argument("--hours", type=float, default=1.0, metavar="H", help="of each, of --pack")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="of --hostile")
    options = parser.parse_args(argv)
    if reason := why_not("baileys"):
        print(f"scripts/chaos: {reason}", file=sys.stderr)
        return 1
    print(f"On {this_machine()}.\n", flush=True)
    if options.hostile or options.nodes or options.pack:
        root = Path(tempfile.mkdtemp(prefix="wa-chaos-", dir="/var/tmp"))
        if options.pack:
            return hours.play(root, options.pack, options.hours, options.seed)
        if options.nodes:
            return kill_together(root, options.sessions, 5)
        return attack(root, options.sessions, options.minutes * 60.0, options.seed)
    with tempfile.TemporaryDirectory(prefix="wa-chaos-", dir="/var/tmp") as root:
        try:
            asyncio.run(run(options.kills, options.seed, Path(root)))
        except HostError as error:
            print(f"not held: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
