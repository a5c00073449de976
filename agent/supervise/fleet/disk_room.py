"""A machine whose disk is nearly full takes no further session of its fleet.

The rule is that of arriving files: where they would be refused, no session is sent."""

import asyncio
import errno
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import WaError
from agent.fleet.fleet import Fleet
from agent.vault.errors import explain
from agent.vault.free_space import look_for_room

log = logging.getLogger(__name__)

NO_SUCH_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""A file system that has no files without a name; a folder that is not made yet."""


@dataclass(slots=True, eq=False, repr=False)
class DiskRoom:
    fleet: Fleet
    root: Path
    """Of the sessions."""
    capacity: int
    """Sessions that the machine takes while its disk has room."""
    _full: bool = field(init=False, default=False)

    async def run(self) -> None:
        while True:
            await self.say()
            await asyncio.sleep(self.fleet.policy.ttl)

    async def say(self) -> None:
        """What the disk is like now."""
        problem = await asyncio.to_thread(_problem, self.root)
        if problem and not self._full:
            log.error("the fleet gives this machine no session: %s", problem)
        elif self._full and not problem:
            log.info("the disk has room again: this machine takes sessions of the fleet")
        self._full = bool(problem)
        try:
            await self._publish(0 if problem else self.capacity)
        except WaError as error:
            log.debug("cannot write the capacity of this machine: %s", error)

    async def _publish(self, capacity: int) -> None:
        """A machine that joins again has its whole capacity: its row is compared."""
        row = self.fleet.own_row()
        if row is None or row.capacity != capacity:
            await self.fleet.requests.set_capacity(self.fleet.keeper.member, capacity)


def _problem(root: Path) -> str:
    try:
        os.close(os.open(root, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        if error.errno not in NO_SUCH_FILES:
            return str(explain("write into", root, error))
    try:
        return look_for_room(root).problem()
    except OSError as error:
        return f"cannot look at the disk of {root}: {error.strerror or error}"
