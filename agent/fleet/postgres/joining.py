"""How a machine takes its place in the fleet's database, also after a boot."""

import uuid

from psycopg.types.json import Jsonb

from agent.clock import boot_now
from agent.errors import Refused
from agent.fleet.coordinator import Machine, Member
from agent.fleet.postgres.database import Database
from agent.fleet.postgres.tables import CLOCKLESS, FOLLOWED, NUMBERED


class Joining:
    """Watches the number of what ran as this machine in another boot or folder: one that stands
    still for a ttl is off, whatever the database's clock says."""

    def __init__(self, database: Database, ttl: float) -> None:
        self._database = database
        self._ttl = ttl
        self._number = -1
        """The one that was read last, while the place was refused."""
        self._since = 0.0
        """When it was read first."""
        self._read_at = 0.0

    async def join(self, machine: Machine) -> Member:
        if boot_now() >= self._read_at + self._ttl / 2:
            self._number = -1  # the database was away, from the other one as well
        watched = self._number if boot_now() >= self._since + self._ttl else None
        ((id, epoch, renewals),) = await self._database.rows_of(
            "join_fleet",
            "*",
            machine.name,
            uuid.UUID(machine.installation),
            machine.address,
            machine.capacity,
            Jsonb(dict(machine.labels)),
            sorted(machine.engines),
            machine.version,
            machine.key_fingerprint,
            machine.place,
            self._ttl,
            newer={NUMBERED: (machine.folder,), CLOCKLESS: (machine.renewals, watched)},
        )
        self._read_at = boot_now()
        if id is None:
            if renewals != self._number:
                self._number, self._since = renewals, boot_now()
            raise Refused(
                "another agent may run with the identity of this machine: a copy of it, or this"
                f" machine before its boot a moment ago; it takes part when that one's lease was"
                f" not renewed for {self._ttl:g} s. A copied machine takes part as a new one when"
                " fleet.json and the sessions are moved out of its state folder",
                code="machine_twice",
            )
        await self._database.ask(
            lambda version: (
                ("SELECT wa_agent.knows(%s, %s, %s)", (id, epoch, version))
                if version >= FOLLOWED
                else ("SELECT NULL", ())
            )
        )
        return Member(id, epoch, renewals, machine.place, machine.folder)
