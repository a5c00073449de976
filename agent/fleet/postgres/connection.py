"""Connections to the fleet's database: how they are made, and what their errors mean.

No error repeats the address: it may hold a password.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from agent.errors import ConfigError, InvalidRequest, NotFound, Refused, TryLater, WaError
from agent.fleet.postgres.address import read_address, usable_address

Connection = psycopg.AsyncConnection[TupleRow]
T = TypeVar("T")

_ALIVE = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "connect_timeout": "10",
    "application_name": "wa-agent",
}
# A connection that Kerberos encrypts would pass by the certificate that was asked for.
_FORCED = {"gssencmode": "disable"}
_TLS = {
    "certificate verify failed": (
        "its certificate is not signed by the CA of sslrootcert, or it has expired"
    ),
    "does not match host name": "its certificate is for another host name",
    "does not support SSL": "it offers no TLS, and the address asks for it",
}


async def connect(address: str, *, autocommit: bool = True) -> Connection:
    given = usable_address(address, **{**_ALIVE, **read_address(address), **_FORCED})
    with readable_errors():
        return await psycopg.AsyncConnection.connect(given, autocommit=autocommit)


async def call_within(seconds: float, call: Coroutine[Any, Any, T], close: Callable[[], None]) -> T:
    """What the call returns. `close` its connection when it is late or cancelled."""
    task = asyncio.create_task(call)
    task.add_done_callback(_read_error)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()
    finally:
        if not task.done():
            # Closed first: a cancelled call would ask the frozen server to cancel it.
            close()
            task.cancel()


def _read_error(task: asyncio.Task[Any]) -> None:
    """Asyncio would log the error of a call that was given up."""
    if not task.cancelled():
        task.exception()


def _errors(said_first: str) -> dict[str, WaError]:
    return {
        "WA001": ConfigError(
            "another machine of the fleet has this name: choose another [fleet] name,"
            " or forget that machine",
            code="machine_name_taken",
        ),
        "WA002": ConfigError(
            "the fleet's machines have another key than [fleet] key_file: copy theirs here",
            code="fleet_key",
        ),
        "WA003": Refused(
            "the fleet's database refuses this machine: another one took it over, it left, or"
            " [fleet] database has the login of another machine",
            code="not_a_member",
        ),
        "WA004": NotFound("no machine of the fleet has this session", code="no_such_instance"),
        "WA005": Refused(
            "cannot use this Idempotency-Key again: it was sent with another request",
            field="Idempotency-Key",
            code="idempotency_key_reused",
        ),
        "WA006": TryLater(
            "100 commands wait for the machine of this session: wait until it is back",
            code="too_many_commands",
        ),
        "WA007": Refused(
            "another agent runs with the identity of this machine: it is a copy of it, or this"
            " machine before its boot a moment ago. A copied machine takes part as a new one when"
            " fleet.json and the sessions are moved out of its state folder",
            code="machine_twice",
        ),
        "WA008": ConfigError(
            f"cannot take part in the fleet: {said_first}. Set [fleet] ttl to the same everywhere:"
            " a machine that waits less long would take sessions that another one still runs",
            field="fleet.ttl",
            code="fleet_ttl",
        ),
        "WA009": not_told(said_first),
        "23514": InvalidRequest("the fleet's database refuses this value", code="fleet_value"),
    }


def not_told(machines: str) -> TryLater:
    return TryLater(
        f"cannot accept the loss yet: {machines} did not tell yet what it runs; it does so"
        " within seconds, or counts as away within a ttl",
        code="not_told",
    )


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turns the library's errors into ours."""
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.InternalError,  # it is read-only: a standby, or a service whose disk is full
        TimeoutError,
        OSError,
    ) as error:
        for word, sentence in _TLS.items():
            if word in str(error):
                raise TryLater(
                    f"cannot trust the fleet's database: {sentence}", code="fleet_database_tls"
                ) from error
        raise TryLater(
            f"cannot reach the fleet's database: {first_line(error)}", code="fleet_database"
        ) from error
    except psycopg.Error as error:
        raise _errors(first_line(error)).get(error.sqlstate or "") or Refused(
            f"the fleet's database refused: {first_line(error)}", code="fleet_database"
        ) from error


def first_line(error: BaseException) -> str:
    """Without the detail lines: they repeat values."""
    return (str(error) or type(error).__name__).splitlines()[0]
