"""scripts/trial worlds [--days N] [--sessions N] [--seed S]

Draws faults of the network, WhatsApp, workers, the agent, its clocks, its disk, its operator and a
server of others over a whole agent that sends messages and is sent some. It looks each day whether
every session is back with its pairing, whether one that a person stopped stayed stopped, whether
logins keep to their budget and to bans, whether each message that was accepted has reached its
contact once and in order, or is said not to have, and whether a reader got each message of a
contact once and in order. At the end the memory must be flat, and the first day, played again, the
same. At the first day that is not well it leaves out what it can of the faults, prints the seed and
that story, and ends with 1.
"""

import argparse
import asyncio
import difflib
import functools
import gc
import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.messages.record import GAP
from tests import clocks
from tests.trial.machine import own_disks
from tests.world.logins import Logins, counted
from tests.world.others import ONE, WHOLE, Others
from tests.world.virtual import PatientLoop, virtual_time
from tests.world.world import WorldAgent

DAY = 86_400.0
EVERY = 900.0
"""Seconds from one fault or message to the next, on average."""
BACK_WITHIN = 7200.0
"""After all faults ended: the pauses of a circuit and of a ban's last try lie within it."""
STOP_WITHIN = 60.0
GROWTH = 100_000
"""Blocks of memory that the process may have more on its last day than on its second."""
REMOTE = 5
"""One of this number of sessions lives on a server of others."""
OF_ONE = ("drop", "zombie", "crash", "conflict", "stuck-loading", "temp-ban", "bad-mac", "slow")
KINDS = (
    *("message",) * 4,
    *("contact",) * 3,
    "caught",
    *("one",) * 3,
    *("server", "remote"),
    *("network", "worker", "kill", "restart", "operator", "clock", "sleep", "disk"),
)
STARTING = ("accepted", "sending")
REACHED = ("sent", "delivered", "read")
GIVEN_UP = "no success in "
"""So begins what the agent says of a session that a person must try again."""
TURNS = 60
"""Turns of the loop in which a contact's message is read, kept and answered, and a few more."""
REPLAYS = 40


class Wrong(Exception):
    """A promise was not kept."""


@dataclass(frozen=True)
class Event:
    after: float
    """Seconds after the one before."""
    kind: str
    id: str
    name: str
    share: float
    """How much of its kind, from 0 to 1."""

    @property
    def seconds(self) -> int:
        return round(5 + self.share * 1795)


def draw_day(draw: random.Random, ids: list[str], remote: list[str]) -> list[Event]:
    names = {"one": OF_ONE, "server": WHOLE, "remote": ONE}
    found, left = list[Event](), DAY
    while (after := draw.expovariate(1 / EVERY)) < left:
        left -= after
        kind = draw.choice(KINDS)
        of = {"remote": remote, "operator": ids + remote, "server": [""]}.get(kind, ids)
        name = draw.choice(names.get(kind, ("",)))
        found.append(Event(after, kind, draw.choice(of), name, draw.random()))
    return found


def is_left_to_a_person(shown: dict[str, Any]) -> bool:
    """After too many tries, or in a ban: it came a second time, or a clock that was set back has
    moved its end."""
    return shown["reason"] == "temporary_ban" or shown["sentence"].startswith(GIVEN_UP)


def fill(file: Path) -> None:
    """To the last block."""
    disk = os.statvfs(file.parent)
    with file.open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, disk.f_bavail * disk.f_frsize)


@dataclass
class World:
    agent: WorldAgent
    ids: list[str]
    others: Others
    logins: Logins
    story: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    """Another client had them: after two of those the agent leaves it to a person."""
    devices: dict[str, str] = field(default_factory=dict)
    said: dict[str, dict[int, str]] = field(default_factory=dict)
    """Session → its messages of this day that were accepted, by the number in their text."""
    told: dict[str, list[int]] = field(default_factory=dict)
    """Session → numbers of what its contact wrote and a reader has not got yet."""
    cursors: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    """The newest message of a contact that a reader got."""
    messages: int = 0

    @property
    def stopped(self) -> dict[str, float]:
        return self.logins.stopped

    def note(self, words: str) -> None:
        self.story.append(f"{asyncio.get_running_loop().time():.0f} {words}")

    def device(self, id: str) -> str:
        file = self.agent.state / "sessions" / id / "session" / "sandbox.json"
        return str(json.loads(file.read_text())["device"])

    async def begin(self) -> None:
        await self.agent.start()
        for id in self.ids:
            await self.agent.create(id)
        await self.must_be_well(BACK_WITHIN)
        self.devices = {id: self.device(id) for id in self.ids}
        self.said = {id: {} for id in self.ids}
        self.told = {id: [] for id in self.ids}
        self.cursors = dict.fromkeys(self.ids, 0)

    async def day(self, events: list[Event]) -> None:
        for event in events:
            await asyncio.sleep(event.after)
            await self.happen(event)
            self.must_be_stopped()
            self.must_keep_rules()
        self.note("the day is over: all faults end")
        await self.others.end_faults()
        for id in sorted(self.stopped):
            del self.stopped[id]
            await self.agent.do("POST", f"/api/instance/{id}/start")
        await self.end_faults()
        given_up = {one["id"] for one in await self.shown() if is_left_to_a_person(one)}
        for id in sorted(self.taken | given_up):
            self.note(f"a person tries {id} again")
            await self.agent.ask("POST", f"/force-reconnection/{id}")
        self.taken.clear()
        await self.must_be_well(BACK_WITHIN)
        self.logins.banned.clear()
        for id in self.ids:
            await self.must_have_arrived(id)
            await self.must_have_come(id)
        self.must_keep_rules()
        self.note(f"all is well, after {self.logins.count} logins")

    async def happen(self, event: Event) -> None:
        id, seconds = event.id, event.seconds
        match event.kind:
            case "message":
                await self.say(id)
            case "contact":
                await self.hear(id)
            case "caught":
                await self.be_caught(id, round(event.share * TURNS))
            case "server" | "remote":
                self.note(f"{event.name} of {id or 'the server of others'} for {seconds} s")
                await self.others.happen(id, event.name, seconds)
            case "one":
                self.note(f"{event.name} of {id} for {seconds} s")
                self.taken |= {id} if event.name == "conflict" else set()
                if event.name == "temp-ban":
                    # The agent hears of it now, or from the next login of what is down.
                    up = await self.agent.status(id) == "CONNECTED"
                    self.logins.banned[id] = asyncio.get_running_loop().time() if up else math.inf
                self.logins.by_itself |= {id} if event.name == "crash" else set()
                await self.fault(id, event.name, seconds)
            case "network":
                self.note(f"the network is away for {seconds} s")
                await asyncio.gather(*(self.fault(one, "drop", seconds) for one in self.ids))
            case "worker":
                self.note(f"the worker of {id} is killed")
                self.logins.by_itself.add(id)
                await self.agent.kill_worker(id)
            case "kill":
                self.note("the agent is killed, and back a minute later")
                await self.agent.kill()
                await asyncio.sleep(60)
                await self.begin_life()
            case "restart":
                self.note("the agent is stopped in order, and started")
                await self.agent.stop()
                await self.begin_life()
            case "clock":
                await self.set_clock(round((event.share - 0.5) * 20 * DAY))
            case "sleep":
                self.note(f"the machine sleeps for {seconds} s")
                clocks.stopped().wall += seconds
                clocks.stopped().boot += seconds
            case "disk":
                self.note(f"the disk is full for {seconds} s")
                filler = self.agent.state.parent / "filler"
                fill(filler)
                await asyncio.sleep(seconds)
                filler.unlink()
            case _:
                await self.turn(id)

    async def set_clock(self, moved: int) -> None:
        for id in self.ids:
            await self.read(id)
            if moved > 0:  # what is too old then goes
                self.told[id].clear()
        self.note(f"the clock is set by {moved} s")
        await self.end_faults()  # their ends are in wall time
        clocks.stopped().wall += moved
        self.logins.banned.clear()

    async def fault(self, id: str, name: str, seconds: int) -> None:
        """None while its worker does not run."""
        body = {"fault": name, "for": seconds}
        await self.agent.ask("POST", f"/api/instance/{id}/sandbox/fault", body)

    async def end_faults(self) -> None:
        """Those of the sandbox; a worker that does not run finds none at its start."""
        for id in self.ids:
            await self.agent.fault(id, "clear")

    async def begin_life(self) -> None:
        self.logins.new_life()
        await self.agent.start()

    async def hear(self, id: str) -> None:
        """A contact writes, after a reader has read."""
        await self.read(id)
        self.messages += 1
        body = {"contact": "5511777777777", "text": f"{id} {self.messages}"}
        status, _ = await self.agent.ask("POST", f"/api/instance/{id}/sandbox/say", body)
        self.note(f"message {self.messages} to {id}: {status}")
        if status == 200:
            self.told[id].append(self.messages)

    async def be_caught(self, id: str, turns: int) -> None:
        """Kill the session's worker while a contact writes: kept or not, as the contact hears."""
        self.note(f"the worker of {id} is killed {turns} turns into a message")
        writes = asyncio.create_task(self.hear(id), name="contact")
        for _ in range(turns):
            await asyncio.sleep(0)
        self.logins.by_itself.add(id)
        await self.agent.kill_worker(id)
        await writes

    async def read(self, id: str) -> None:
        """Read after the reader's cursor: no awaited message comes twice, none out of order."""
        more = True
        while more:
            path = f"/api/instance/{id}/messages?after={self.cursors[id]}"
            status, page = await self.agent.ask("GET", path)
            if status != 200:  # its worker does not run now
                return
            since, self.cursors[id], more = self.cursors[id], page["next"], page["more"]
            risen = [since, *(one["cursor"] for one in page["records"] if one["kind"] != GAP)]
            if risen != sorted(set(risen)) or page["next"] < risen[-1]:
                raise Wrong(f"the cursors of {id} do not rise: {risen}, then {page['next']}")
            for one in page["records"]:
                if one["kind"] != "message" or one.get("from_me"):
                    continue
                number = int(one["text"].split()[1])
                if number in self.told[id]:
                    before = self.told[id][: self.told[id].index(number)]
                    if before:
                        raise Wrong(f"a reader of {id} got message {number} before {before}")
                    self.told[id].remove(number)
                elif number <= self.last.get(id, 0):
                    raise Wrong(f"a reader of {id} got message {number} twice")
                self.last[id] = number

    async def must_have_come(self, id: str) -> None:
        end = asyncio.get_running_loop().time() + BACK_WITHIN
        while True:
            await self.read(id)
            if not self.told[id]:
                return
            if asyncio.get_running_loop().time() > end:
                raise Wrong(f"a reader of {id} has not got {self.told[id]}")
            await asyncio.sleep(30)

    async def say(self, id: str) -> None:
        self.messages += 1
        body = {"to": "5511777777777", "text": f"{id} {self.messages}"}
        status, answer = await self.agent.ask("POST", f"/api/instance/{id}/messages", body)
        self.note(f"message {self.messages} of {id}: {status}")
        if status < 300:
            self.said[id][self.messages] = answer["id"]

    async def turn(self, id: str) -> None:
        word = "start" if id in self.stopped else "stop"
        self.note(f"an operator's {word} of {id}")
        if self.stopped.pop(id, None) is None:
            self.stopped[id] = asyncio.get_running_loop().time()
        await self.agent.do("POST", f"/api/instance/{id}/{word}")

    def must_be_stopped(self) -> None:
        for id, member in self.agent.machine.known().items():
            since = self.stopped.get(id, math.inf)
            if member.status.runs and asyncio.get_running_loop().time() > since + STOP_WITHIN:
                raise Wrong(f"{id} runs, and an operator had stopped it")

    def must_keep_rules(self) -> None:
        if found := self.logins.wrongs + self.others.wrongs():
            raise Wrong("; ".join(found))

    async def must_be_well(self, within: float) -> None:
        end = asyncio.get_running_loop().time() + within
        while bad := await self.not_connected():
            for id in sorted(self.others.logged_out):  # a person opens its page to scan
                await self.agent.ask("GET", f"/api/instance/{id}/qr")
            self.others.scan()
            if asyncio.get_running_loop().time() > end:
                raise Wrong(f"after {within:.0f} s not connected: {bad}")
            await asyncio.sleep(30)
        for id, device in self.devices.items():
            if self.device(id) != device:
                raise Wrong(f"{id} has another device: its pairing was lost")

    async def not_connected(self) -> list[str]:
        shown = await self.shown()
        missing = {*self.ids, *self.others.ids} - {one["id"] for one in shown}
        return sorted(missing) + [
            f"{one['id']}: {one['connection_status']}, {one['sentence']}"
            for one in shown
            if one["connection_status"] != "CONNECTED"
        ]

    async def shown(self) -> list[dict[str, Any]]:
        return list((await self.agent.do("GET", "/api/instances?limit=500"))["instances"])

    async def must_have_arrived(self, id: str) -> None:
        end = asyncio.get_running_loop().time() + BACK_WITHIN
        said = self.said[id]
        while waiting := [n for n, name in said.items() if await self.state(id, name) in STARTING]:
            if asyncio.get_running_loop().time() > end:
                raise Wrong(f"messages of {id} still wait: {waiting}")
            await asyncio.sleep(30)
        path = f"/api/instance/{id}/sandbox/heard?limit=1000"
        heard = [one.get("text", "") for one in (await self.agent.do("GET", path))["messages"]]
        numbers = [int(text.split()[1]) for text in heard if text.startswith(f"{id} ")]
        if numbers != sorted(set(numbers)):
            raise Wrong(f"a contact of {id} got messages twice or out of order: {numbers}")
        for number, name in said.items():
            state = await self.state(id, name)
            if state in REACHED and number not in numbers:
                raise Wrong(f"message {number} of {id} is {state}, and its contact has not got it")
        said.clear()

    async def state(self, id: str, name: str) -> str:
        status, row = await self.agent.ask("GET", f"/api/instance/{id}/outbox/{name}")
        return str(row["state"]) if status == 200 else "forgotten"


def play(
    days: list[list[Event]], ids: list[str], remote: list[str], seed: int
) -> tuple[int, list[str], list[str]]:
    """The day that goes wrong, its story, which is empty where all is well, and the first day's."""

    async def live(folder: Path) -> tuple[int, list[str], list[str]]:
        # An older server is asked less often.
        others, logins = await Others.open(remote, ("1.8.6", "2.3.7")[seed % 2]), Logins()
        config = folder / "agent.toml"
        config.write_text('[agent]\nhost = "process"\n' + others.table)
        world = World(WorldAgent(folder / "state", config), ids, others, logins)
        number, first, blocks = 0, list[str](), 0
        try:
            with counted(logins):
                await world.begin()
                for number in range(len(days)):
                    world.story.clear()
                    await world.day(days[number])
                    first = first or list(world.story)
                    blocks = blocks if number > 1 else measure()
                if measure() > blocks + GROWTH:
                    raise Wrong(f"{measure() - blocks} blocks of memory more than on the 2nd day")
        except (Wrong, AssertionError) as wrong:
            return number, [*world.story, f"seed {seed}, day {number}: {wrong}"], first
        finally:
            await world.agent.close()
            await others.close()
        return number, [], first

    with (
        tempfile.TemporaryDirectory() as above,
        own_disks("1g", folder := Path(above) / "disk"),
        virtual_time(seed),
        asyncio.Runner(loop_factory=PatientLoop) as runner,
    ):
        clock = clocks.stopped()
        clock.wall, clock.monotonic, clock.boot = clock.wall // DAY * DAY, 1e6, 1e6
        return runner.run(live(folder))


def measure() -> int:
    """Without what an ended life of the agent froze, and what caches of a bounded size hold."""
    gc.unfreeze()
    for one in gc.get_objects():
        if isinstance(one, functools._lru_cache_wrapper):
            one.cache_clear()
    gc.collect()
    return sys.getallocatedblocks()


def shorten(
    day: list[Event], ids: list[str], remote: list[str], seed: int, story: list[str]
) -> list[str]:
    """Leave out piece after piece of a day, as long as it goes wrong without those before it."""
    piece, replays = max(1, len(day) // 2), 0
    while replays < REPLAYS:
        for at in range(0, len(day), piece):
            fewer = day[:at] + day[at + piece :]
            replays += 1
            if found := play([fewer], ids, remote, seed)[1]:
                day, story = fewer, found
                break
        else:
            if piece == 1:
                break
            piece //= 2
    return story


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/trial worlds", description=__doc__)
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(50_000, 20, 100)  # a day makes millions of objects, and few cycles
    begun = time.perf_counter()
    names = [f"s{number}" for number in range(options.sessions)]
    ids, remote = names[len(names) // REMOTE :], names[: len(names) // REMOTE]
    draw = random.Random(options.seed)
    days = [draw_day(draw, ids, remote) for _ in range(options.days)]
    number, story, first = play(days, ids, remote, options.seed)
    if story:
        print("\n".join([*story, "", "with fewer faults:"]), flush=True)
        print("\n".join(shorten(days[number], ids, remote, options.seed, story)))
        return 1
    print(f"{options.days} days of {options.sessions} sessions, seed {options.seed}: well", end="")
    print(f" ({options.days * 3600 / (time.perf_counter() - begun):.0f} days an hour)")
    again = play(days[:1], ids, remote, options.seed)[2]
    if again != first:
        print(f"seed {options.seed} has another story the second time:")
        print("\n".join(difflib.unified_diff(first, again, lineterm="")))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
