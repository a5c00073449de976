"""What befalls the sessions of one agent from without: a full disk, a flood of messages, and a
contact that sends the cases of tests/trial/hostile/contact.py, damaged records among them."""

import asyncio
import itertools
import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from scripts.messages.beds import CONTACTS, BaileysBed
from tests.daemon.conftest import RunningAgent
from tests.trial.hostile import contact
from tests.trial.hostile.contacting.acts import GROUP, HOSTILE
from tests.trial.hostile.contacting.doing import Target, do
from tests.trial.hostile.frame import case_of

WEIGHTS = {"disk filled": 1, "flood of messages": 1, "hostile contact": 4}
DISK = 768
"""MiB of the disk that is filled."""
LONGEST_FULL = 8.0


class Hardships:
    """`flood`: a contact writes many messages to that session at once."""

    def __init__(
        self,
        bed: BaileysBed,
        agent: RunningAgent,
        flood: Callable[[str], Awaitable[None]],
        seed: int,
    ) -> None:
        self._bed, self._agent, self._flood = bed, agent, flood
        self._seed, self._numbers = seed, itertools.count()
        self._chance = random.Random(seed)

    async def begin(self, ids: Sequence[str]) -> None:
        """The hostile contact is a person with keys, and in a group with all."""
        members = [*(self._bed.accounts[id] for id in ids), HOSTILE, *CONTACTS]
        await asyncio.to_thread(self._bed.whatsapp.make_group, GROUP, members)
        await asyncio.to_thread(self._bed.whatsapp.takes_enclosed_keys, HOSTILE)

    async def befall(self, id: str, name: str) -> None:
        if name == "disk filled":
            await self._fill()
        elif name == "flood of messages":
            await self._flood(id)
        else:
            await self._attack(id)

    async def _fill(self) -> None:
        file = self._agent.state.parent / "filled"
        try:
            await asyncio.to_thread(fill, file)
            await asyncio.sleep(self._chance.uniform(0.5, LONGEST_FULL))
        finally:
            file.unlink(missing_ok=True)

    async def _attack(self, id: str) -> None:
        async def send(message: Mapping[str, Any]) -> str:
            path = f"/api/instance/{id}/messages?wait=30"
            status, said = await self._agent.ask("POST", path, dict(message))
            return str(said["id"]) if status == 200 else ""

        folder = self._agent.state / "sessions" / id / "session"
        target = Target(self._bed.whatsapp, self._bed.accounts[id], folder, send)
        for step in case_of(contact, self._seed, next(self._numbers)):
            # The agent or the session's record may be away; the disk, full.
            with suppress(aiohttp.ClientError, OSError):
                await do(target, step)


def fill(file: Path) -> None:
    """Until nothing more goes in."""
    with file.open("wb") as out, suppress(OSError):
        step = 1 << 20
        while step >= 4096:
            try:
                os.posix_fallocate(out.fileno(), out.seek(0, os.SEEK_END), step)
            except OSError:
                step //= 2


@contextmanager
def own_disk(place: Path) -> Iterator[None]:
    """Of root; a full one must be nobody else's."""
    place.mkdir()
    options = ["-o", f"size={DISK}m,mode=0755"]
    subprocess.run(["mount", "-t", "tmpfs", *options, "wa-chaos", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
