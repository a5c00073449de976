"""Which tables this program may use: agents only compare versions."""

import psycopg
from psycopg.rows import TupleRow

from agent.errors import Refused

VERSION = 6
"""The tables that this program is written for."""
OLDEST = 1
"""The oldest tables that it can use: at least those of the version before, so that machines are
upgraded first, one after another, and the tables last."""

NUMBERED = 2
"""Since this version a machine tells which losses of records it heard of, and counts its copies."""
BAGGAGE = 3
"""Since this version what a session has beside its files goes with it."""
CLOCKLESS = 4
"""Since this version the machines' numbers say who lives, not the database's clock."""
FOLLOWED = 5
"""Since this version a copy is followed by what changed since."""
LACKING = 6
"""Since this version an owner says that a stored copy lacks changes for long."""

PREPARE = "wa-agent fleet database prepare"


async def read_schema(connection: psycopg.AsyncConnection[TupleRow]) -> tuple[int, int]:
    """Refuses tables that this program may not use."""
    try:
        cursor = await connection.execute("SELECT version, compatible_from FROM wa_agent.fleet")
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise _older("has no tables of a fleet") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            "the fleet's database has no tables that this login may read: make them, or allow"
            f" this login, with `{PREPARE}`",
            code="fleet_schema",
        ) from error
    version, compatible_from = await cursor.fetchone() or (0, 0)
    if compatible_from > VERSION:
        raise Refused(
            f"the fleet's database has tables of version {version}, for programs that know"
            f" {compatible_from} or newer; this one knows {VERSION}: upgrade this machine's agent",
            code="fleet_schema",
        )
    if version < OLDEST:
        raise _older(f"has tables of version {version}, this program needs {OLDEST} or newer")
    return version, compatible_from


def _older(what: str) -> Refused:
    return Refused(
        f"the fleet's database {what}: run `{PREPARE}` on one machine, as their owner",
        code="fleet_schema",
    )
