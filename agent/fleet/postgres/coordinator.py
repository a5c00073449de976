"""The coordinator on PostgreSQL: one connection, a deadline on every call."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from agent.errors import ConfigError, Refused, TryLater
from agent.fleet.coordinator import (
    Machine,
    MachineRow,
    Member,
    NewSession,
    Owned,
    Renewal,
    Stored,
)

VERSION = 1
"""The schema that this program writes."""

_READABLE = (VERSION,)
_NAME_TAKEN = "WA001"
_MACHINE = tuple(field.name for field in fields(MachineRow))


async def prepare(address: str) -> None:
    """Make the tables; a second call changes nothing."""
    async with await psycopg.AsyncConnection.connect(address) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('wa_agent schema'))")
        found = await connection.execute("SELECT to_regclass('wa_agent.fleet')")
        if (await found.fetchone() or (None,))[0] is None:
            text = (files(__package__) / "schema.sql").read_bytes()
            await connection.execute(text)


class PostgresCoordinator:
    """Made by `open_coordinator`; a lost connection is made again by the next call."""

    def __init__(self, address: str, ttl: float, timeout: float) -> None:
        self._address = address
        self._ttl = ttl
        self._timeout = timeout
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._turn = asyncio.Lock()

    async def join(self, machine: Machine) -> Member:
        rows = await self._call(
            "SELECT * FROM wa_agent.join_fleet(%s, %s::uuid, %s, %s, %s::jsonb, %s, %s)",
            machine.name,
            machine.installation,
            machine.address,
            machine.capacity,
            json.dumps(dict(machine.labels)),
            sorted(machine.engines),
            machine.version,
        )
        return Member(*rows[0])

    async def renew(self, member: Member, rivals: frozenset[int], generation: int) -> Renewal:
        rows = await self._call(
            "SELECT * FROM wa_agent.renew(%s, %s, %s, %s, %s, %s)",
            member.id,
            member.epoch,
            member.renewals,
            sorted(rivals),
            generation,
            self._ttl,
        )
        accepted, epoch, ids, numbers, alive, now, changes, settled, halted = rows[0]
        if epoch is None:
            raise Refused(
                "the fleet's database does not know this machine: it is another database, or"
                " it lost records",
                code="not_a_member",
            )
        renewals = dict(zip(ids, numbers, strict=True))
        return Renewal(accepted, epoch, renewals, frozenset(alive), now, changes, settled, halted)

    async def machines(self) -> Sequence[MachineRow]:
        rows = await self._call(
            "SELECT m.id, name, m.epoch, renewals, rivals, alive_until > clock_timestamp(),"
            " address, capacity, count(s.id), m.labels, engines, drained, version"
            " FROM wa_agent.machine m LEFT JOIN wa_agent.session s ON s.machine = m.id"
            " GROUP BY m.id ORDER BY name"
        )
        return [
            MachineRow(**dict(zip(_MACHINE, (*row[:4], frozenset(row[4]), *row[5:]), strict=True)))
            for row in rows
        ]

    async def owned(self, member: Member) -> Sequence[Owned]:
        rows = await self._call(
            "SELECT id, epoch, engine, wanted, settings FROM wa_agent.session"
            " WHERE machine = %s ORDER BY id",
            member.id,
        )
        return [Owned(*row) for row in rows]

    async def create(self, member: Member, session: NewSession, machine: int) -> bool:
        return await self._done(
            "SELECT wa_agent.create_session(%s, %s, %s, %s, %s, %s::jsonb, %s, %s::jsonb)",
            session.id,
            machine,
            session.engine,
            session.wanted,
            session.failover,
            json.dumps(dict(session.labels)),
            session.only_on,
            json.dumps(dict(session.settings)),
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

    async def forget(self, member: Member, machine: int) -> None:
        await self._call("SELECT wa_agent.forget(%s, %s)", member.id, machine)

    async def accept(self) -> None:
        await self._call("SELECT wa_agent.accept_loss()")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _done(self, statement: str, *values: Any) -> bool:
        return bool((await self._call(statement, *values))[0][0])

    async def _call(self, statement: str, *values: Any) -> list[TupleRow]:
        async with self._turn:
            task = asyncio.create_task(self._ask(statement, values))
            try:
                await asyncio.wait({task}, timeout=self._timeout)
                if not task.done():
                    raise TimeoutError(f"no answer within {self._timeout:g} s")
                return task.result()
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
                self._drop()
                raise TryLater(
                    f"cannot reach the fleet's database: {_first_line(error)}",
                    code="fleet_database",
                ) from error
            except psycopg.Error as error:
                if error.sqlstate == _NAME_TAKEN:
                    raise ConfigError(
                        "another machine of the fleet has this name: choose another [fleet] name,"
                        " or forget that machine",
                        code="machine_name_taken",
                    ) from error
                raise Refused(
                    f"the fleet's database refused: {_first_line(error)}", code="fleet_database"
                ) from error
            finally:
                if not task.done():
                    # Closed first: a cancelled call would ask the frozen server to cancel it.
                    self._drop()
                    task.cancel()

    async def _ask(self, statement: str, values: Sequence[Any]) -> list[TupleRow]:
        connection = await self._open()
        found = await connection.execute(statement, values)
        return await found.fetchall()

    async def _open(self) -> psycopg.AsyncConnection[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = await psycopg.AsyncConnection.connect(self._address, autocommit=True)
            found = await connection.execute("SELECT version FROM wa_agent.fleet")
            version = (await found.fetchone() or (None,))[0]
            if version not in _READABLE:
                await connection.close()
                raise Refused(
                    f"the fleet's database has the schema {version}, this program knows {VERSION}:"
                    " upgrade this machine's agent",
                    code="fleet_schema",
                )
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        """Close without waiting: the server may be frozen, and its answer may come late."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None


def _first_line(error: BaseException) -> str:
    """Without the detail lines: they repeat values."""
    return (str(error) or type(error).__name__).splitlines()[0]


def open_coordinator(address: str, ttl: float, timeout: float = 2.0) -> PostgresCoordinator:
    return PostgresCoordinator(address, ttl, timeout)
