"""Rounds of faults on a fleet of real agents: what must hold in each, and what is kept of it."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from scripts.nemeses.disks import special
from scripts.nemeses.faults import ALONE, FAULTS, OF_THE_SERVER
from scripts.nemeses.one_round import Round
from scripts.nemeses.replaced import replaced, watch
from tests.fleet.agent import FleetAgent
from tests.fleet.agents import DATABASE, FleetOfAgents, fleet_of_agents
from tests.lacking import not_lent
from tests.standin.baileys.run import WhatsApp
from tests.standin.clock import SteppedClock, stepped_clock

MACHINES = ("m1", "m2", "m3")
SESSIONS_EACH = 2
PEER, READ_WITHIN = "5511900000099", 5.0
WHATSAPP_PORT = 7000
"""On the loopback of each machine: there the engine takes an address without TLS."""
BACK_WITHIN = 90.0
"""Seconds after the end of a round's faults: a busy machine, and a ttl for each second loss."""
HEARD_WITHIN = 4.0
"""Seconds: a connection whose machine was cut off may be open here, and its worker gone."""
ROUND_WITHIN = 300.0
"""Seconds of a round: no wait of the script itself is longer."""
TRACEBACK = b"Traceback (most recent call last)"
DISK = "size=320m,mode=0700"
"""200 MiB must be free before a session comes or starts."""


class Chaos:
    """Rounds on one fleet; `back` has the seconds until all were connected, by fault."""

    def __init__(
        self,
        fleet: FleetOfAgents,
        seed: int,
        whatsapp: WhatsApp | None,
        clocks: Mapping[str, SteppedClock],
    ) -> None:
        """`whatsapp`: what sessions of the baileys engine log in to; None: only sandboxes."""
        self.fleet, self._whatsapp, self._clocks = fleet, whatsapp, clocks
        self._chance = random.Random(seed)
        self.ids = [f"s{n}" for n in range(SESSIONS_EACH * len(MACHINES))]
        self.accounts = {f"b{n}": f"551190000000{n}" for n in range(2)} if whatsapp else {}
        self.back: dict[str, list[float]] = defaultdict(list)
        self.logins_of_baileys = 0
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
        async with asyncio.timeout(BACK_WITHIN):
            await machine.do("POST", "/api/instance", body)
            while await machine.status(id) != "QR_REQUIRED":  # noqa: ASYNC110 - over its API
                await asyncio.sleep(0.2)
            code = await machine.do("GET", f"/api/instance/{id}/qr")
        await asyncio.to_thread(self._whatsapp.scan, code["qr"], self.accounts[id])

    def check(self) -> None:
        """No two workers could send for one session, at any moment so far."""
        self.fleet.check()
        if self._whatsapp is not None and self.fleet.wires is not None:
            address = self.fleet.wires.address
            frozen = [(address(it.name), t.begun, t.ended) for it in self.agents for t in it.frozen]
            found = self._whatsapp.overlaps(frozen, self.fleet.wires.cut_off)
            assert not found, self._named(" ".join(found))
        ended = {it.name: it.process and it.process.returncode for it in self.agents}
        alone = {name: code for name, code in ended.items() if code not in (None, -signal.SIGKILL)}
        assert not alone, f"agents ended without a fault of this round, with {alone}"

    async def play(self, names: Sequence[str]) -> None:
        """One round of the faults with these names, at once."""
        self._tell(f"begins: {' + '.join(names)}")
        owners = await self.fleet.owners()
        async with asyncio.timeout(ROUND_WITHIN):
            async with AsyncExitStack() as ended:
                round = Round(self.fleet, self._chance, ended, owners, self._clocks)
                lasting = [await FAULTS[name](round) for name in names]
                self._tell(f"done: {', '.join(round.done)}")
                end = time.monotonic() + max(lasting)
                while time.monotonic() < end:
                    self.check()
                    await asyncio.sleep(0.25)
            self._tell("ended")
            begun = time.monotonic()
            await self._until_well()
        self.check()
        broken = [it.name for it in self.agents if TRACEBACK in it.log.read_bytes()]
        assert not broken, f"agent.log has an error that the agent did not expect: {broken}"
        if self._whatsapp is not None:
            self.logins_of_baileys = len(self._whatsapp.logins())
        older = await asyncio.to_thread(replaced, self.fleet.database)
        assert not older, f"copies were replaced by older ones: {older}"
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
        both = {first, second}
        together = self._chance.random() < 0.25 and second != first
        fit = not ALONE & both and not both <= OF_THE_SERVER
        return [first, second] if together and fit else [first]

    async def _until_well(self) -> None:
        end = time.monotonic() + BACK_WITHIN
        while lacking := await self._lacking():
            late = f"not well {BACK_WITHIN:g} s after the faults, {load()}: {lacking}"
            assert time.monotonic() < end, late
            await asyncio.sleep(0.25)
        self._tell("well")

    async def _lacking(self) -> str:
        """What keeps the fleet from being as before; "" = nothing."""
        self.check()
        if ended := [it.name for it in self.agents if not it.runs]:
            return f"agents do not run: {ended}"
        heard = {
            it.session
            for it in self.fleet.witness.connections()
            if it.open and it.last > time.time() - HEARD_WITHIN
        }
        if missing := set(self.ids) - heard:
            return f"not connected: {sorted(missing)}; owners: {await self.fleet.owners()}"
        every = [*self.ids, *self.accounts]
        if not await self.fleet.copied(every):
            missing = [id for id in every if not await self.fleet.copied([id])]
            return f"without a copy that holds their pairing: {missing}"
        if not await self.fleet.know_each_other():
            return "a machine does not name all others as its rivals"
        unread = [
            id
            for id, account in self.accounts.items()
            if not await asyncio.to_thread(self._is_read, account)
        ]
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
                shutil.copytree(agent.state, folder / agent.name, symlinks=True, ignore=special)
        try:
            await asyncio.to_thread(self.fleet.database.dump, folder / "database.sql")
        except (OSError, subprocess.SubprocessError) as error:  # it does not run
            (folder / "database.txt").write_text(f"{error}\n")

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
        clocks = {it: stack.enter_context(stepped_clock()) for it in (*MACHINES, DATABASE)}
        fleet = await stack.enter_async_context(
            fleet_of_agents(MACHINES, place, env=env, cut=True, clocks=clocks)
        )
        whatsapp = None
        if cache and fleet.wires:
            whatsapp = WhatsApp(place / "whatsapp.log", host=fleet.wires.test)
            stack.callback(whatsapp.end)
            port = urlsplit(whatsapp.url).port or 0
            for name in MACHINES:
                stack.enter_context(fleet.wires.relay(name, WHATSAPP_PORT, port))
        watch(fleet.database)
        found = Chaos(fleet, seed, whatsapp, clocks)
        try:
            await found.begin()
            yield found
        except BaseException:
            await found.keep(place / "kept")
            raise


def load() -> str:
    """What tells a slow machine from a session that stays down."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


def now() -> str:
    """As the logs of the agents have it, with milliseconds."""
    return datetime.now().isoformat(" ", "milliseconds")
