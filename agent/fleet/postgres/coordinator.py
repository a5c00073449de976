"""The coordinator on PostgreSQL: what the fleet's functions are given, and what they answer."""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg.types.json import Jsonb

from agent.core.words import COPY_MISSING
from agent.errors import Refused
from agent.fleet.coordinator import (
    LOST,
    DirectoryChanges,
    Held,
    Machine,
    MachineRow,
    Member,
    NewSession,
    Owned,
    Renewal,
    SessionRow,
)
from agent.fleet.postgres import documents
from agent.fleet.postgres.connection import not_told
from agent.fleet.postgres.database import Database
from agent.fleet.postgres.documents import COMMAND, document, told_document
from agent.fleet.postgres.joining import Joining
from agent.fleet.postgres.listening import listen
from agent.fleet.postgres.stored_copies import StoredCopies
from agent.fleet.postgres.tables import CLOCKLESS, NUMBERED
from agent.fleet.waiting import CommandRow, Notice, ViewRow

_KEPT_DELETIONS = 10_000  # generations: see `remove_session`


class PostgresCoordinator(StoredCopies):
    """Each call is one transaction."""

    def __init__(self, address: str, ttl: float, timeout: float) -> None:
        self._address = address
        self._ttl = ttl
        super().__init__(Database(address, timeout))
        self._joining = Joining(self._database, ttl)
        self.lapsed: Callable[[], Mapping[int, int]] | None = None
        """Machines that are off, by their numbers: see `Takeovers.lapsed`. None: none watches."""

    async def join(self, machine: Machine) -> Member:
        """Refused while another agent may run with this machine's identity."""
        return await self._joining.join(machine)

    async def leave(self, member: Member, sessions: Collection[str]) -> bool:
        """Take the machine and its sessions out; False: it owns others, or has another epoch."""
        return bool(await self._do("leave_fleet", member.id, member.epoch, list(sessions)))

    async def renew(
        self, member: Member, rivals: frozenset[int], generation: int, asked: int = 0
    ) -> Renewal:
        """Not accepted either: one whose number is not above that of every earlier one."""
        rows = await self._database.rows_of(
            "renew",
            "*",
            member.id,
            member.epoch,
            member.renewals,
            sorted(rivals),
            generation,
            self._ttl,
            member.place,
            newer={NUMBERED: (member.losses, asked or None, member.folder)},
        )
        if not rows or rows[0][1] is None:
            raise Refused(
                "the fleet's database does not know this machine: it left, an operator forgot it,"
                " its login is another one, or the database lost records",
                code="not_a_member",
            )
        accepted, epoch, ids, numbers, alive, *rest = rows[0]
        renewals = dict(zip(ids, numbers, strict=True))
        return Renewal(accepted, epoch, renewals, frozenset(alive), *rest)

    async def machines(self) -> Sequence[MachineRow]:
        """By the database's clock alone, dead ones could be alive for long: it may be set back."""
        rows = await self._database.rows(documents.MACHINES)
        lapsed = self.lapsed() if self.lapsed is not None else {}
        machines = (MachineRow(*row) for row in rows)
        return [
            replace(row, alive=False) if lapsed.get(row.id) == row.renewals else row
            for row in machines
        ]

    async def set_drained(self, name: str, drained: bool) -> bool:
        """False: no machine has this name."""
        return bool(await self._do("set_drained", name, drained))

    async def set_capacity(self, member: Member, capacity: int) -> None:
        """How many sessions the machine takes until it says otherwise or joins again."""
        await self._do("set_capacity", member.id, member.epoch, capacity)

    async def owned(self, member: Member) -> Sequence[Owned]:
        def call(version: int) -> tuple[str, Sequence[Any]]:
            number = "coalesce(c.number, 0)" if version >= NUMBERED else "0"
            return documents.OWNED.format(number=number), (member.id,)

        return [Owned(*row) for row in await self._database.ask(call)]

    async def create(self, member: Member, session: NewSession, machine: int) -> bool:
        """False: the id is taken."""
        given = Jsonb(document(session))
        return bool(await self._do("create_session", member.id, member.epoch, machine, given))

    async def register(self, member: Member, sessions: Sequence[NewSession]) -> Sequence[str]:
        """Bring sessions into the fleet; the ids that others own: none was registered then."""
        given = Jsonb([document(session) for session in sessions])
        return list(await self._do("register_sessions", member.id, member.epoch, given))

    async def update(
        self,
        member: Member,
        session: str,
        epoch: int,
        *,
        wanted: str | None = None,
        settings: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        failover: str | None = None,
    ) -> bool:
        """None leaves a value as it is. False: the session has another owner or epoch."""
        kept = [None if it is None else Jsonb(dict(it)) for it in (settings, labels)]
        return bool(
            await self._do(
                "update_session", member.id, member.epoch, session, epoch, wanted, *kept, failover
            )
        )

    async def delete(self, member: Member, session: str, epoch: int) -> bool:
        """False: the session has another owner or epoch."""
        return bool(await self._do("delete_session", member.id, member.epoch, session, epoch))

    async def deleted_in(self, session: str) -> int | None:
        """The generation of its deletion; None: it is there, or was deleted long ago."""
        rows = await self._database.rows(
            "SELECT generation FROM wa_agent.deleted_session WHERE id = %s", session
        )
        return int(rows[0][0]) if rows else None

    async def tell(
        self, member: Member, held: Sequence[Held], deleted: Mapping[str, int]
    ) -> Collection[str]:
        """After a loss; `deleted` by generation. The ids of `held` that it owns as it told."""
        told = Jsonb([told_document(it) for it in held]), Jsonb(dict(deleted))
        return frozenset(await self._do("tell_sessions", member.id, member.epoch, *told))

    async def movable(self, peer: int) -> Sequence[NewSession]:
        """The sessions of a machine that may move without it: `newest`, and a copy is stored
        that does not lack changes for long."""
        rows = await self._database.ask(lambda version: documents.movable(version, peer))
        return [NewSession(*row) for row in rows]

    async def take_over(
        self, member: Member, peer: int, epoch: int, renewals: int, to: Mapping[str, int]
    ) -> bool:
        """Give `peer`'s sessions to machines, all in one; False: it did not happen."""
        lost = (peer, epoch, renewals, list(to), list(to.values()), LOST)
        return bool(await self._do("take_over", member.id, member.epoch, *lost))

    async def hand_over(self, member: Member, session: str, to: int, why: str) -> bool:
        """A planned move of a stopped session; False: it did not happen."""
        me = (member.id, member.epoch, member.renewals)
        return bool(await self._do("hand_over", *me, session, to, why))

    async def lock(self, what: str) -> bool:
        """For one machine at a time; False: another one has it. A lost connection ends it."""
        ((got,),) = await self._database.rows(
            "SELECT pg_try_advisory_lock(hashtext(%s))", f"wa_agent {what}"
        )
        return bool(got)

    async def unlock(self, what: str) -> None:
        await self._database.rows("SELECT pg_advisory_unlock(hashtext(%s))", f"wa_agent {what}")

    async def directory(self, since: int = -1) -> DirectoryChanges:
        """After the generation `since`; -1: everything. `session` tells newer ages of copies."""
        ((generation,),) = await self._database.rows("SELECT generation FROM wa_agent.fleet")
        whole = not max(0, generation - _KEPT_DELETIONS) <= since <= generation
        after = -1 if whole else since
        rows = await self._database.rows(documents.CHANGES, after, generation if whole else after)
        present = [SessionRow(*row[1:]) for row in rows if not row[0]]
        deleted = frozenset(row[1] for row in rows if row[0])
        return DirectoryChanges(generation, whole, present, deleted)

    async def session(self, id: str) -> SessionRow | None:
        rows = await self._database.rows(documents.ONE_SESSION, id)
        return SessionRow(*rows[0]) if rows else None

    async def publish(self, member: Member, views: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the newest view of each session that this machine owns."""
        given = Jsonb({id: dict(view) for id, view in views.items()})
        await self._do("publish", member.id, member.epoch, given)

    async def views(
        self, ids: Collection[str] | None = None, machine: int | None = None
    ) -> Sequence[ViewRow]:
        """Of these sessions, or of those that the machine owns; of all without both."""
        asked = (*(None if ids is None else list(ids),) * 2, *(machine,) * 2)
        return [ViewRow(*row) for row in await self._database.rows(documents.VIEWS, *asked)]

    async def unplaced(self) -> Sequence[tuple[str, str, int]]:
        """Sessions whose owner says that it cannot place their files: id, why, its number."""
        return [(*row,) for row in await self._database.rows(documents.UNPLACED, COPY_MISSING)]

    async def add_command(
        self,
        id: str,
        session: str,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        idempotency_key: str,
        asked_by: str,
    ) -> CommandRow:
        """The command as it is kept: an earlier one, if it was the same under the same key."""
        asked = (uuid.UUID(id), session, verb, Jsonb(dict(arguments)))
        (row,) = await self._database.rows_of(
            "add_command", COMMAND, *asked, idempotency_key or None, asked_by
        )
        return CommandRow(*row)

    async def take_commands(
        self, member: Member, limit: int, known: Collection[str] | None = None
    ) -> Sequence[CommandRow]:
        """The oldest for this machine: begun, so that no other gets them; and begun ones that
        `known` lacks, as their answer was lost."""
        begun = None if known is None else [uuid.UUID(id) for id in known]
        rows = await self._database.rows_of(
            "take_commands", COMMAND, member.id, member.epoch, limit, newer={NUMBERED: (begun,)}
        )
        return [CommandRow(*row) for row in rows]

    async def end_command(
        self, member: Member, id: str, outcome: str, answer: Mapping[str, Any]
    ) -> bool:
        """False: this machine did not take it, or it ended before."""
        ended = (uuid.UUID(id), outcome, Jsonb(dict(answer)))
        return bool(await self._do("end_command", member.id, *ended))

    async def command(self, id: str) -> CommandRow | None:
        """One whose machine is away counts as unknown: it may have been carried out."""
        try:
            rows = await self._database.rows(
                f"SELECT {COMMAND} FROM wa_agent.known_commands WHERE id = %s", uuid.UUID(id)
            )
        except ValueError:
            return None
        return CommandRow(*rows[0]) if rows else None

    async def listen(self, on_notify: Callable[[Notice], None]) -> None:
        """Until it is cancelled, on a connection of its own."""
        await listen(self._address, on_notify)

    async def forget(self, member: Member, machine: int, renewals: int) -> bool:
        """It is dead, an operator says: it may be taken over; without sessions it goes off the
        list. One that lives joins again. False: it renewed its lease after that number."""
        asked = (member.id, member.epoch, machine)
        return await self._do("forget", *asked, newer={CLOCKLESS: (renewals,)}) is not False

    async def accept(self) -> None:
        """An operator accepts lost records. TryLater: a living machine did not tell."""
        lapsed = self.lapsed() if self.lapsed is not None else {}
        watched = await self.machines() if self.lapsed is not None else []
        # In records from a while ago all look dead until they renew.
        if silent := [it.name for it in watched if not it.alive and it.id not in lapsed]:
            raise not_told(", ".join(silent))
        numbers = (list(lapsed), list(lapsed.values()))
        await self._do("accept_loss", newer={CLOCKLESS: numbers})

    async def schema(self) -> tuple[int, int]:
        """The version of the tables, and the oldest program that may use them."""
        (row,) = await self._database.rows("SELECT version, compatible_from FROM wa_agent.fleet")
        return row[0], row[1]

    async def key_fingerprint(self) -> str:
        ((known,),) = await self._database.rows("SELECT key_fingerprint FROM wa_agent.fleet")
        return str(known)

    async def close(self) -> None:
        await self._database.close()
