"""Faults on three real agents, one real PostgreSQL and real workers, each machine in a network of
its own. No two workers may ever send for one session, none may lose its pairing, and after each
round all sessions are connected again. As root.

  scripts/chaos fleet --rounds 300 --seed 1
  scripts/chaos fleet --away 600               the database frozen for so long: no session drops
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
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from agent.engines.baileys.fetch import fetch_packages
from scripts.benches.machine import TOP, this_machine
from scripts.nemeses.faults import ALONE, FAULTS, FILLED, Round
from tests.fleet.agents import TTL, FleetAgent, FleetOfAgents, fleet_of_agents
from tests.lacking import not_lent
from tests.standin.baileys.run import WhatsApp, why_not

MACHINES = ("m1", "m2", "m3")
SESSIONS_EACH = 2
PEER, READ_WITHIN = "5511900000099", 5.0
WHATSAPP_PORT = 7000
"""On the loopback of each machine: there the engine takes an address without TLS."""
BACK_WITHIN = 90.0
"""Seconds after the end of a round's faults: a busy machine, and a ttl for each second loss."""
DISK = "size=320m,mode=0700"
"""200 MiB must be free before a session comes or starts."""


class Chaos:
    """Rounds on one fleet; `back` has the seconds until all were connected, by fault."""

    def __init__(self, fleet: FleetOfAgents, seed: int, whatsapp: WhatsApp | None) -> None:
        """`whatsapp`: what sessions of the baileys engine log in to; None: only sandboxes."""
        self.fleet, self._whatsapp = fleet, whatsapp
        self._chance = random.Random(seed)
        self.ids = [f"s{n}" for n in range(SESSIONS_EACH * len(MACHINES))]
        self.accounts = {f"b{n}": f"551190000000{n}" for n in range(2)} if whatsapp else {}
        self.back: dict[str, list[float]] = defaultdict(list)
        self.story: list[str] = []
        """What was done when."""

    async def begin(self) -> None:
        for number, name in enumerate(MACHINES):
            share = self.ids[number * SESSIONS_EACH : (number + 1) * SESSIONS_EACH]
            await self.fleet.create(*share, on=name)
        for name, id in zip(MACHINES, self.accounts, strict=False):
            await self._pair(id, self.fleet[name])
        await self._until_well()

    async def _pair(self, id: str, machine: FleetAgent) -> None:
        assert self._whatsapp is not None
        url = f"ws://127.0.0.1:{WHATSAPP_PORT}/ws/chat"
        settings = {"url": url, "client_starts": 100}
        body = {"id": id, "engine": "baileys", "settings": settings, "on": machine.name}
        await machine.do("POST", "/api/instance", body)
        async with asyncio.timeout(BACK_WITHIN):
            while await machine.status(id) != "QR_REQUIRED":  # noqa: ASYNC110 - over its API
                await asyncio.sleep(0.2)
        code = await machine.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self._whatsapp.scan, code["qr"], self.accounts[id])

    def check(self) -> None:
        """No two workers could send for one session, at any moment so far."""
        self.fleet.check()
        if self._whatsapp is not None:
            frozen = [it for agent in self.agents for it in agent.frozen]
            overlaps = self._named(" ".join(self._whatsapp.overlaps(frozen)))
            assert not overlaps, overlaps
        ended = {it.name: it.process and it.process.returncode for it in self.agents}
        alone = {name: code for name, code in ended.items() if code not in (None, -signal.SIGKILL)}
        assert not alone, f"agents ended without a fault of this round, with {alone}"

    async def play(self, names: Sequence[str]) -> None:
        """One round of the faults with these names, at once."""
        round = Round(self.fleet, self._chance)
        self._tell(f"begins: {' + '.join(names)}")
        lasting = [await FAULTS[name](round) for name in names]
        self._tell(f"done: {', '.join(round.done)}")
        try:
            end = time.monotonic() + max(lasting)
            while time.monotonic() < end:
                self.check()
                await asyncio.sleep(0.25)
        finally:
            for ending in reversed(round.ended):
                await ending()
            self._tell("ended")
        begun = time.monotonic()
        await self._until_well()
        self.check()
        self.back[" + ".join(names)].append(time.monotonic() - begun)

    async def without_database(self, seconds: float) -> None:
        """While all agents are in touch: every session keeps the connection that it has."""
        before, database = self.fleet.witness.connected(), self.fleet.database
        database.signal(signal.SIGSTOP)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                self.check()
                assert self.fleet.witness.connected() == before, "a session dropped"
                await asyncio.sleep(0.25)
        finally:
            database.signal(signal.SIGCONT)
        await self._until_well()
        assert self.fleet.witness.connected() == before, "a session dropped afterwards"

    def choose(self) -> list[str]:
        """One fault, now and then two."""
        first = self._chance.choice(list(FAULTS))
        second = self._chance.choice(list(FAULTS))
        together = self._chance.random() < 0.25 and second != first
        return [first, second] if together and not ALONE & {first, second} else [first]

    async def _until_well(self) -> None:
        end = time.monotonic() + BACK_WITHIN
        while lacking := await self._lacking():
            assert time.monotonic() < end, f"not well {BACK_WITHIN:g} s after the faults: {lacking}"
            await asyncio.sleep(0.25)
        self._tell("well")

    async def _lacking(self) -> str:
        """What keeps the fleet from being as before; "" = nothing."""
        self.check()
        if missing := set(self.ids) - self.fleet.witness.connected().keys():
            return f"not connected: {sorted(missing)}; owners: {await self.fleet.owners()}"
        every = [*self.ids, *self.accounts]
        if not await self.fleet.copied(every):
            missing = [id for id in every if not await self.fleet.copied([id])]
            return f"without a copy that holds their pairing: {missing}"
        if not await self.fleet.know_each_other():
            return "a machine does not name all others as its rivals"
        unread = [id for id, account in self.accounts.items() if not self._is_read(account)]
        return f"what is sent to them is not read: {unread}" if unread else ""

    @property
    def agents(self) -> list[FleetAgent]:
        return list(self.fleet.agents.values())

    def _named(self, text: str) -> str:
        """With the machines' names in place of their addresses."""
        assert self.fleet.wires is not None
        for name in MACHINES:
            text = text.replace(f"'{self.fleet.wires.address(name)}'", name)
        return text

    def _tell(self, words: str) -> None:
        self.story.append(f"{now()} {words}")

    async def keep(self, folder: Path) -> None:
        """What tells why a round failed; the machines' disks and the database are gone later."""
        folder.mkdir()
        (folder / "faults.txt").write_text("\n".join(self.story) + "\n")
        every = [f"{it.session}: {it}" for it in self.fleet.witness.connections()]
        every += [f"{it.name} stood still: {it.frozen}" for it in self.agents]
        every += [
            self._named(str(it)) for it in (self._whatsapp.logins() if self._whatsapp else ())
        ]
        (folder / "logins.txt").write_text("\n".join(every) + "\n")
        for agent in self.agents:
            with suppress(shutil.Error):  # what changes or goes at this moment
                shutil.copytree(agent.state, folder / agent.name, symlinks=True, ignore=_special)
        await asyncio.to_thread(self.fleet.database.dump, folder / "database.sql")

    def _is_read(self, account: str) -> bool:
        """A contact writes to the session, which reads the message."""
        assert self._whatsapp is not None
        if not self._whatsapp.device(account).get("connected"):
            return False
        id = self._whatsapp.say(PEER, account, "hello")
        end = time.monotonic() + READ_WITHIN
        while time.monotonic() < end:
            if set(self._whatsapp.receipts(account, id)) - {"retry"}:
                return True
            time.sleep(0.05)
        return False


def _special(folder: str, names: list[str]) -> list[str]:
    """Sockets, and what fills a disk."""
    return [it for it in names if it == FILLED or (Path(folder) / it).is_socket()]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", folder]
    if subprocess.run(mount, check=False).returncode:
        not_lent("this machine allows no mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@asynccontextmanager
async def chaos(place: Path, seed: int, cache: Path | None = None) -> AsyncIterator[Chaos]:
    """`cache`: has the packages of the baileys engine; None: the sessions are sandboxes."""
    async with AsyncExitStack() as stack:
        for name in MACHINES:
            stack.enter_context(small_disk(place / name / "state"))
        env = {"CACHE_PATH": str(cache)} if cache else {}
        fleet = await stack.enter_async_context(fleet_of_agents(MACHINES, place, env=env, cut=True))
        whatsapp = None
        if cache and fleet.wires:
            whatsapp = WhatsApp(place / "whatsapp.log", host=fleet.wires.test)
            stack.callback(whatsapp.end)
            port = urlsplit(whatsapp.url).port or 0
            for name in MACHINES:
                stack.enter_context(fleet.wires.relay(name, WHATSAPP_PORT, port))
        found = Chaos(fleet, seed, whatsapp)
        try:
            await found.begin()
            yield found
        except BaseException:
            await found.keep(place / "kept")
            raise


async def run(
    rounds: int, seed: int, place: Path, say: Callable[[str], None], away: float = 0.0
) -> Chaos:
    cache = Path(os.environ.get("WA_CACHE_PATH", TOP / ".cache"))
    if reason := why_not("baileys"):
        say(f"no sessions of the baileys engine: {reason}")
    else:
        fetch_packages(cache)
    async with chaos(place, seed, None if reason else cache) as found:
        if away:
            await found.without_database(away)
            say(f"{away:g} s without the database: no session dropped")
        for number in range(rounds):
            names = found.choose()
            say(f"{number + 1} of {rounds}: {' + '.join(names)}")
            await found.play(names)
        return found


def table(found: Chaos) -> str:
    head = ["fault", "rounds", "all connected again after it, median · longest (s)"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|"]
    for name, back in sorted(found.back.items()):
        cells = (name, str(len(back)), f"{statistics.median(back):.1f} · {max(back):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    logins = len(found.fleet.witness.connections())
    lines.append(f"\n{logins} logins, none overlapped another one of its session; no pairing lost.")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=100, metavar="N", help="number of rounds")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all choices")
    words = "freeze the database for so many seconds, in place of the rounds"
    parser.add_argument("--away", type=float, default=0.0, metavar="SECONDS", help=words)
    options = parser.parse_args(argv)
    rounds = 0 if options.away else options.rounds
    print(f"On {this_machine()}; ttl {TTL:g} s.\n")
    place = Path(tempfile.mkdtemp(prefix="wa-chaos-", dir="/var/tmp"))
    try:
        found = asyncio.run(run(rounds, options.seed, place, _say, options.away))
    except Exception:
        traceback.print_exc()
        words = "not held; each machine's agent.log, and its state, the logins and the database"
        print(f"{words} in kept/, are in {place}", file=sys.stderr)
        return 1
    print(table(found))
    shutil.rmtree(place)
    return 0


def now() -> str:
    """As the logs of the agents have it, with milliseconds."""
    return datetime.now().isoformat(" ", "milliseconds")


def _say(text: str) -> None:
    print(f"{now()} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
