"""A server of others, with some of the sessions, and what goes wrong with it and on it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.standin.evolution import KEY, StandIn, Times

WHOLE = ("refuse", "slow", "html", "garbage", "failing", "killed")
ONE = ("drop", "silent", "closed", "contradiction", "logout")


@dataclass
class Others:
    standin: StandIn
    ids: list[str]
    logged_out: set[str] = field(default_factory=set)
    """By their phones: a person scans again."""
    _ends: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def open(cls, ids: list[str], version: str = "2.3.7") -> "Others":
        standin = await StandIn.open(version, times=Times())
        for id in ids:
            standin.add(id, "open")
        return cls(standin, ids)

    @property
    def table(self) -> str:
        place = f'engine = "evolution"\nurl = "{self.standin.url}"\nkey = "{KEY}"\n'
        return f'\n[[backend]]\nname = "evo"\n{place}adopt = ["*"]\n'

    async def happen(self, id: str, name: str, seconds: int) -> None:
        """Something is wrong for so long with one of its sessions, or ("") with the server."""
        if not id and name == "killed":
            await self.standin.restart_process(min(seconds, 300))
        elif not id:
            await self.standin.front.set(name, 2.0)
            self._later(seconds, lambda: self.standin.front.set(""))
        elif name == "drop":
            self.standin.instances[id].drop(408)
        elif name == "contradiction":
            self.standin.instances[id].row.set(connectionStatus="close")
        elif name == "logout" and id in self.logged_out:
            return  # a phone removes no device twice
        elif name == "logout":
            self.logged_out.add(id)
            self.standin.instances[id].end(401)
        else:
            self.standin.instances[id].dead = name
            self._later(seconds, lambda: self._alive(id))

    async def _alive(self, id: str) -> None:
        self.standin.instances[id].dead = ""

    def _later(self, seconds: int, end: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await end()

        self._ends.append(asyncio.create_task(wait(), name="the end of a fault"))

    async def end_faults(self) -> None:
        for task in self._ends:
            task.cancel()
        self._ends.clear()
        if self.standin.front.fault:
            await self.standin.front.set("")
        for instance in self.standin.instances.values():
            instance.dead = ""

    def scan(self) -> None:
        """A person scans what a phone logged out, once its code is shown."""
        for id in list(self.logged_out):
            if self.standin.instances[id].scan():
                self.logged_out.discard(id)

    def wrongs(self) -> list[str]:
        found = list[str]()
        for id in self.ids:
            if not self.standin.instances[id].creds and id not in self.logged_out:
                found.append(f"{id} on the server has lost its pairing")
            if self.standin.instances[id].storms:
                found.append(f"two connections of {id} replace each other")
        return found

    async def close(self) -> None:
        await self.end_faults()
        await self.standin.close()
