"""The coordinator on PostgreSQL: one connection, a deadline on every call."""

import asyncio
import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from psycopg.rows import TupleRow

from agent.errors import Refused, WaError
from agent.fleet.coordinator import (
    CommandRow,
    DirectoryChanges,
    Machine,
    MachineRow,
    Member,
    NewSession,
    Notice,
    Owned,
    Renewal,
    SessionRow,
    Stored,
    ViewRow,
)
from agent.fleet.postgres.connection import Connection, connect, said
from agent.fleet.postgres.listening import listen
from agent.fleet.postgres.schema import read_schema

_MACHINE = tuple(field.name for field in fields(MachineRow))
_SESSION = (
    "s.id, s.machine, s.epoch, s.engine, s.wanted, s.failover, s.labels, s.only_on, s.why,"
    " extract(epoch FROM s.moved_at)::float8, extract(epoch FROM c.written_at)::float8,"
    " length(c.packed)"
)
_COMMAND = (
    "id::text, session, verb, arguments, coalesce(idempotency_key, ''), asked_by, state, outcome,"
    " answer, extract(epoch FROM now() - asked_at)::float8, machine"
)
_KEPT_DELETIONS = 10_000
"""Generations for which the database knows what was deleted: see `remove_session`."""


class PostgresCoordinator:
    """Made by `open_coordinator`; a lost connection is made again by the next call."""

    def __init__(self, address: str, ttl: float, timeout: float) -> None:
        self._address = address
        self._ttl = ttl
        self._timeout = timeout
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def join(self, machine: Machine) -> Member:
        rows = await self._call(
            "SELECT * FROM wa_agent.join_fleet(%s, %s::uuid, %s, %s, %s::jsonb, %s, %s, %s, %s)",
            machine.name,
            machine.installation,
            machine.address,
            machine.capacity,
            json.dumps(dict(machine.labels)),
            sorted(machine.engines),
            machine.version,
            machine.key_fingerprint,
            machine.place,
        )
        id, epoch, renewals = rows[0]
        return Member(id, epoch, renewals, machine.place)

    async def leave(self, member: Member, sessions: Collection[str]) -> bool:
        return await self._done(
            "SELECT wa_agent.leave_fleet(%s, %s, %s)", member.id, member.epoch, list(sessions)
        )

    async def renew(self, member: Member, rivals: frozenset[int], generation: int) -> Renewal:
        rows = await self._call(
            "SELECT * FROM wa_agent.renew(%s, %s, %s, %s, %s, %s, %s)",
            member.id,
            member.epoch,
            member.renewals,
            sorted(rivals),
            generation,
            self._ttl,
            member.place,
        )
        if not rows or rows[0][1] is None:
            raise Refused(
                "the fleet's database does not know this machine: it left or was forgotten, its"
                " login is another one, or the database lost records",
                code="not_a_member",
            )
        accepted, epoch, ids, numbers, alive, *rest = rows[0]
        renewals = dict(zip(ids, numbers, strict=True))
        return Renewal(accepted, epoch, renewals, frozenset(alive), *rest)

    async def machines(self) -> Sequence[MachineRow]:
        rows = await self._call(
            "SELECT id, name, epoch, renewals, rivals, alive_until > clock_timestamp(),"
            " address, capacity, (SELECT count(*) FROM wa_agent.session s WHERE s.machine = m.id),"
            " labels, engines, drained, version,"
            " extract(epoch FROM clock_timestamp() - renewed_at)::float8"
            " FROM wa_agent.machine m WHERE NOT gone ORDER BY name"
        )
        return [
            MachineRow(**dict(zip(_MACHINE, (*row[:4], frozenset(row[4]), *row[5:]), strict=True)))
            for row in rows
        ]

    async def set_drained(self, name: str, drained: bool) -> bool:
        return await self._done("SELECT wa_agent.set_drained(%s, %s)", name, drained)

    async def owned(self, member: Member) -> Sequence[Owned]:
        rows = await self._call(
            "SELECT id, epoch, engine, wanted, failover, labels, only_on, settings"
            " FROM wa_agent.session WHERE machine = %s ORDER BY id",
            member.id,
        )
        return [Owned(*row) for row in rows]

    async def create(self, member: Member, session: NewSession, machine: int) -> bool:
        return await self._done(
            "SELECT wa_agent.create_session(%s, %s, %s, %s::jsonb)",
            member.id,
            member.epoch,
            machine,
            json.dumps(asdict(session)),
        )

    async def register(self, member: Member, sessions: Sequence[NewSession]) -> Sequence[str]:
        rows = await self._call(
            "SELECT wa_agent.register_sessions(%s, %s, %s::jsonb)",
            member.id,
            member.epoch,
            json.dumps([asdict(session) for session in sessions]),
        )
        return list(rows[0][0])

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
        return await self._done(
            "SELECT wa_agent.update_session(%s, %s, %s, %s, %s, %s::jsonb, %s::jsonb, %s)",
            member.id,
            member.epoch,
            session,
            epoch,
            wanted,
            None if settings is None else json.dumps(dict(settings)),
            None if labels is None else json.dumps(dict(labels)),
            failover,
        )

    async def delete(self, member: Member, session: str, epoch: int) -> bool:
        return await self._done(
            "SELECT wa_agent.delete_session(%s, %s, %s, %s)",
            member.id,
            member.epoch,
            session,
            epoch,
        )

    async def movable(self, peer: int) -> Sequence[NewSession]:
        rows = await self._call(
            "SELECT id, engine, wanted, failover, labels, only_on, settings"
            " FROM wa_agent.session s WHERE machine = %s AND failover = 'newest'"
            " AND EXISTS (SELECT FROM wa_agent.copy c WHERE c.session = s.id) ORDER BY id",
            peer,
        )
        return [NewSession(*row) for row in rows]

    async def take_over(
        self, member: Member, peer: int, epoch: int, renewals: int, to: Mapping[str, int]
    ) -> bool:
        return await self._done(
            "SELECT wa_agent.take_over(%s, %s, %s, %s, %s, %s, %s, %s)",
            member.id,
            member.epoch,
            peer,
            epoch,
            renewals,
            list(to),
            list(to.values()),
            "its machine was lost",
        )

    async def hand_over(self, member: Member, session: str, to: int, why: str) -> bool:
        return await self._done(
            "SELECT wa_agent.hand_over(%s, %s, %s, %s, %s, %s)",
            member.id,
            member.epoch,
            member.renewals,
            session,
            to,
            why,
        )

    async def store_copy(self, member: Member, session: str, epoch: int, packed: bytes) -> bool:
        return await self._done(
            "SELECT wa_agent.store_copy(%s, %s, %s, %s, %s)",
            member.id,
            member.epoch,
            session,
            epoch,
            packed,
        )

    async def stored(self, session: str) -> Stored | None:
        rows = await self._call(
            "SELECT epoch, packed FROM wa_agent.copy WHERE session = %s", session
        )
        return Stored(rows[0][0], bytes(rows[0][1])) if rows else None

    async def lock(self, what: str) -> bool:
        return await self._done("SELECT pg_try_advisory_lock(hashtext(%s))", f"wa_agent {what}")

    async def unlock(self, what: str) -> None:
        await self._call("SELECT pg_advisory_unlock(hashtext(%s))", f"wa_agent {what}")

    async def directory(self, since: int = -1) -> DirectoryChanges:
        rows = await self._call(
            "SELECT f.generation, f.whole, changed.* FROM (SELECT generation, %s < generation - %s"
            " OR %s > generation AS whole FROM wa_agent.fleet) f LEFT JOIN LATERAL ("
            f" SELECT false AS deleted, {_SESSION} FROM wa_agent.session s"
            " LEFT JOIN wa_agent.copy c ON c.session = s.id WHERE f.whole OR s.generation > %s"
            " UNION ALL SELECT true, id, 0, 0, '', '', '', '{}', '', '', 0, NULL, NULL"
            " FROM wa_agent.deleted_session WHERE NOT f.whole AND generation > %s"
            ") AS changed ON true",
            since,
            _KEPT_DELETIONS if since >= 0 else -1,
            since,
            since,
            since,
        )
        present = [SessionRow(*row[3:]) for row in rows if row[2] is False]
        deleted = frozenset(row[3] for row in rows if row[2])
        return DirectoryChanges(rows[0][0], rows[0][1], present, deleted)

    async def session(self, id: str) -> SessionRow | None:
        rows = await self._call(
            f"SELECT {_SESSION} FROM wa_agent.session s"
            " LEFT JOIN wa_agent.copy c ON c.session = s.id WHERE s.id = %s",
            id,
        )
        return SessionRow(*rows[0]) if rows else None

    async def publish(self, member: Member, views: Mapping[str, Mapping[str, Any]]) -> None:
        await self._call(
            "SELECT wa_agent.publish(%s, %s, %s::jsonb)",
            member.id,
            member.epoch,
            json.dumps({id: dict(view) for id, view in views.items()}),
        )

    async def views(
        self, ids: Collection[str] | None = None, machine: int | None = None
    ) -> Sequence[ViewRow]:
        rows = await self._call(
            "SELECT v.session, v.machine, v.view,"
            " extract(epoch FROM clock_timestamp() - v.published_at)::float8"
            " FROM wa_agent.view v JOIN wa_agent.session s ON s.id = v.session"
            " WHERE (%s::text[] IS NULL OR s.id = ANY (%s::text[]))"
            " AND (%s::int IS NULL OR s.machine = %s::int) ORDER BY s.id",
            *(None if ids is None else list(ids),) * 2,
            *(machine,) * 2,
        )
        return [ViewRow(*row) for row in rows]

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
        rows = await self._call(
            f"SELECT {_COMMAND} FROM wa_agent.add_command(%s::uuid, %s, %s, %s::jsonb, %s, %s)",
            id,
            session,
            verb,
            json.dumps(dict(arguments)),
            idempotency_key or None,
            asked_by,
        )
        return CommandRow(*rows[0])

    async def take_commands(self, member: Member, limit: int) -> Sequence[CommandRow]:
        rows = await self._call(
            f"SELECT {_COMMAND} FROM wa_agent.take_commands(%s, %s, %s) ORDER BY number",
            member.id,
            member.epoch,
            limit,
        )
        return [CommandRow(*row) for row in rows]

    async def end_command(
        self, member: Member, id: str, outcome: str, answer: Mapping[str, Any]
    ) -> bool:
        return await self._done(
            "SELECT wa_agent.end_command(%s, %s::uuid, %s, %s::jsonb)",
            member.id,
            id,
            outcome,
            json.dumps(dict(answer)),
        )

    async def command(self, id: str) -> CommandRow | None:
        """One whose machine is away counts as unknown: it may have been carried out."""
        try:
            rows = await self._call(
                f"SELECT {_COMMAND} FROM wa_agent.known_commands WHERE id = %s", uuid.UUID(id)
            )
        except ValueError:
            return None
        return CommandRow(*rows[0]) if rows else None

    async def listen(self, on_notify: Callable[[Notice], None]) -> None:
        await listen(self._address, on_notify)

    async def forget(self, member: Member, machine: int) -> None:
        await self._call("SELECT wa_agent.forget(%s, %s, %s)", member.id, member.epoch, machine)

    async def accept(self) -> None:
        await self._call("SELECT wa_agent.accept_loss()")

    async def schema(self) -> tuple[int, int]:
        ((version, compatible_from),) = await self._call(
            "SELECT version, compatible_from FROM wa_agent.fleet"
        )
        return version, compatible_from

    async def key_fingerprint(self) -> str:
        return str((await self._call("SELECT key_fingerprint FROM wa_agent.fleet"))[0][0])

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _done(self, statement: str, *values: Any) -> bool:
        return bool((await self._call(statement, *values))[0][0])

    async def _call(self, statement: str, *values: Any) -> list[TupleRow]:
        async with self._turn:
            task = asyncio.create_task(self._ask(statement, values))
            task.add_done_callback(_heard)
            try:
                with said():
                    await asyncio.wait({task}, timeout=self._timeout)
                    if not task.done():
                        raise TimeoutError(f"no answer within {self._timeout:g} s")
                    return task.result()
            except WaError as error:
                # Tables that changed under a connection are looked at again by the next one.
                if error.code in ("fleet_database", "fleet_schema"):
                    self._drop()
                raise
            finally:
                if not task.done():
                    # Closed first: a cancelled call would ask the frozen server to cancel it.
                    self._drop()
                    task.cancel()

    async def _ask(self, statement: str, values: Sequence[Any]) -> list[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = await connect(self._address)
            try:
                await read_schema(connection)
            except BaseException:
                connection.pgconn.finish()
                raise
            self._connection = connection
        found = await self._connection.execute(statement.encode(), values)
        return await found.fetchall()

    def _drop(self) -> None:
        """Close without waiting: the server may be frozen, and its answer may come late."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None


def _heard(task: asyncio.Task[list[TupleRow]]) -> None:
    """Asyncio would log the error of a call that was given up."""
    if not task.cancelled():
        task.exception()


def open_coordinator(address: str, ttl: float, timeout: float = 2.0) -> PostgresCoordinator:
    return PostgresCoordinator(address, ttl, timeout)
