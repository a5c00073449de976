"""Carries out the commands that were stored for sessions while their machine was away.

The database gives each command to one process, once; an agent that is killed in between leaves a
command whose end is unknown, and never one that is carried out twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.clock import boot_now
from agent.core.model import Category, Instance, InstanceId
from agent.core.view import InstanceView
from agent.errors import Refused, TryLater, WaError
from agent.failpoint import failpoint
from agent.fleet.coordinator import Member, Renewal
from agent.fleet.postgres.coordinator import PostgresCoordinator
from agent.fleet.waiting import CommandRow
from agent.log import about, bound
from agent.logfiles import AUDIT
from agent.supervise.requests.orders import Orders

log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between two looks that nothing asked for."""
MOST = 20
SETTINGS = "settings"
VERBS = ("enable", "disable", "start", "stop", "restart", SETTINGS)
_ARRIVES = 60.0
"""Seconds that a command waits for the files of its session."""
_TRIES = 10


@dataclass(slots=True, eq=False)
class Commands:
    orders: Orders
    views: Callable[[], Mapping[InstanceId, InstanceView]]
    coordinator: PostgresCoordinator
    member: Callable[[], Member]
    settings_of: Callable[[Instance, Mapping[str, Any]], dict[str, Any]]
    """The new settings of an instance, checked."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    _known: set[str] = field(default_factory=set)
    """What the database gave this process, and has no end of."""

    def wake(self) -> None:
        """A command waits, as the database says."""
        self._wake.set()

    def hear(self, renewal: Renewal) -> None:
        if renewal.commands:
            self.wake()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                for row in await self._taken():
                    group.create_task(self.carry_out(row), name=f"command {row.id}")
                    self._wake.set()  # there may be more
                try:
                    async with asyncio.timeout(EVERY):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _taken(self) -> list[CommandRow]:
        try:
            taken = list(await self.coordinator.take_commands(self.member(), MOST, self._known))
            self._known.update(row.id for row in taken)
            return taken
        except WaError as error:
            log.debug("cannot read the stored commands: %s", error)
            return []

    async def carry_out(self, row: CommandRow) -> None:
        """One after another for each session, in the order of their arrival."""
        id = InstanceId(row.session)
        async with self._turns.setdefault(row.session, asyncio.Lock()):
            failpoint("command_taken")
            try:
                await self._arrived(id)
                await self._done(row, id)
                outcome, sentence = "done", "carried out"
            except WaError as error:
                outcome, sentence = "refused", str(error)
            except Exception:
                log.exception("the stored command %s failed", row.id, extra=about(id))
                outcome, sentence = "refused", "cannot carry it out: internal error"
            said = f"{row.asked_by}: {row.verb}, stored {row.age_seconds:.0f} s ago → {outcome}"
            bound(Category.API, id, AUDIT).info("%s (command %s)", said, row.id)
            failpoint("command_carried_out")
            await self._end(row, outcome, sentence)
            failpoint("command_ended")

    async def _arrived(self, id: InstanceId) -> None:
        """Taken over a moment ago, a session's files are still on their way."""
        deadline = boot_now() + _ARRIVES
        while boot_now() < deadline:
            if id in self.views():
                return
            await asyncio.sleep(0.2)
        raise TryLater(f"cannot find {id} on this machine: its files have not arrived")

    async def _done(self, row: CommandRow, id: InstanceId) -> None:
        if row.verb not in VERBS:
            raise Refused(f"cannot {row.verb}: this version knows {', '.join(VERBS)}")
        if row.verb == SETTINGS:
            instance = self.views()[id].instance
            settings = self.settings_of(instance, row.arguments.get("settings", {}))
            await self.orders.change_settings(id, settings)
            return
        write: Callable[[InstanceId], Awaitable[InstanceView]] = getattr(self.orders, row.verb)
        await write(id)

    async def _end(self, row: CommandRow, outcome: str, sentence: str) -> None:
        for _ in range(_TRIES):
            try:
                await self.coordinator.end_command(
                    self.member(), row.id, outcome, {"sentence": sentence}
                )
            except WaError as error:
                extra = about(InstanceId(row.session))
                log.warning("cannot write the end of command %s: %s", row.id, error, extra=extra)
                await asyncio.sleep(1.0)
            else:
                self._known.discard(row.id)
                return
