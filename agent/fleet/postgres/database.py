"""Calls to the fleet's database: one connection, one call at a time, a deadline on each."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from psycopg.rows import TupleRow

from agent.errors import WaError
from agent.fleet.postgres.connection import Connection, call_within, connect, readable_errors
from agent.fleet.postgres.tables import read_schema

Statement = Callable[[int], tuple[str, Sequence[Any]]]
"""What is asked of tables of this version."""
Newer = Mapping[int, Sequence[Any]]
"""What functions take since this version of the tables."""
NOTHING: Newer = {}

_LIMIT = "SELECT set_config('statement_timeout', %s, false)"


class Database:
    """A lost connection is made again by the next call."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._connection: Connection | None = None
        self._version = 0
        """Of the tables."""
        self._turn = asyncio.Lock()

    async def do(self, function: str, *values: Any, newer: Newer = NOTHING) -> Any:
        """The first value that one of the fleet's functions answers."""
        return (await self.rows_of(function, "*", *values, newer=newer))[0][0]

    async def rows_of(
        self, function: str, columns: str, *values: Any, newer: Newer = NOTHING
    ) -> list[TupleRow]:
        """`newer`: values that the functions of older tables do not take."""

        def call(version: int) -> tuple[str, Sequence[Any]]:
            more = (newer[since] for since in sorted(newer) if version >= since)
            given = [*values, *chain.from_iterable(more)]
            marks = ", ".join(["%s"] * len(given))
            return f"SELECT {columns} FROM wa_agent.{function}({marks})", given

        return await self.ask(call)

    async def rows(self, statement: str, *values: Any) -> list[TupleRow]:
        return await self.ask(lambda _version: (statement, values))

    async def ask(self, call: Statement) -> list[TupleRow]:
        async with self._turn:
            try:
                with readable_errors():
                    return await call_within(self._timeout, self._ask(call), self._drop)
            except WaError as error:
                # Tables that changed under a connection are looked at again by the next one.
                if error.code in ("fleet_database", "fleet_schema"):
                    self._drop()
                raise

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, call: Statement) -> list[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = await connect(self._address)
            try:
                self._version, _ = await read_schema(connection)
                # A call that was given up here must not go on there, nor keep its connection.
                await connection.execute(_LIMIT, (f"{self._timeout:.3f}s",))
            except BaseException:
                connection.pgconn.finish()
                raise
            self._connection = connection
        statement, values = call(self._version)
        cursor = await self._connection.execute(statement.encode(), values)
        return await cursor.fetchall()

    def _drop(self) -> None:
        """Close without waiting: the server may be frozen, and its answer may come late."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None
