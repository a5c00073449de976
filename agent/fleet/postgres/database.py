"""Calls to the fleet's database: one connection, one call at a time, a deadline on each."""

import asyncio
from collections.abc import Sequence
from typing import Any

from psycopg.rows import TupleRow

from agent.errors import WaError
from agent.fleet.postgres.connection import Connection, call_within, connect, readable_errors
from agent.fleet.postgres.tables import read_schema


class Database:
    """A lost connection is made again by the next call."""

    def __init__(self, address: str, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def do(self, function: str, *values: Any) -> Any:
        """The first value that one of the fleet's functions answers."""
        return (await self.rows_of(function, "*", *values))[0][0]

    async def rows_of(self, function: str, columns: str, *values: Any) -> list[TupleRow]:
        marks = ", ".join(["%s"] * len(values))
        return await self.rows(f"SELECT {columns} FROM wa_agent.{function}({marks})", *values)

    async def rows(self, statement: str, *values: Any) -> list[TupleRow]:
        async with self._turn:
            try:
                with readable_errors():
                    return await call_within(
                        self._timeout, self._ask(statement, values), self._drop
                    )
            except WaError as error:
                # Tables that changed under a connection are looked at again by the next one.
                if error.code in ("fleet_database", "fleet_schema"):
                    self._drop()
                raise

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

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
        cursor = await self._connection.execute(statement.encode(), values)
        return await cursor.fetchall()

    def _drop(self) -> None:
        """Close without waiting: the server may be frozen, and its answer may come late."""
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None
