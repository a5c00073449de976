"""Makes the fleet's tables and brings them to a newer version, as their owner."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from agent.errors import Refused
from agent.fleet.postgres.connection import connect, readable_errors


@dataclass(frozen=True, slots=True)
class Step:
    version: int
    compatible_from: int
    """The oldest program that may use the tables after this step."""
    scripts: Sequence[str]


def _own(*names: str) -> tuple[str, ...]:
    return tuple((files(__package__) / f"{name}.sql").read_text() for name in names)


STEPS = (
    Step(
        1,
        1,
        _own("step1_tables", "step1_machines", "step1_owners", "step1_commands", "step1_rights"),
    ),
    Step(2, 1, _own("step2_losses", "step2_copies", "step2_commands", "step2_twins")),
    Step(3, 1, _own("step3_baggage")),
    Step(4, 1, _own("step4_clocks")),
    Step(5, 1, _own("step5_changes")),
    Step(6, 1, _own("step6_lacking")),
)
"""A released step never changes: what comes later is a step of its own."""


async def prepare(address: str, steps: Sequence[Step] = STEPS) -> tuple[int, int]:
    """Bring the tables to the newest of `steps`, all in one transaction; the versions before
    and after. A second call changes nothing, and newer tables stay as they are."""
    async with await connect(address, autocommit=False) as connection:
        with readable_errors():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('wa_agent schema'))")
            before = version = await _present(connection)
            for step in steps:
                if step.version > version:
                    for script in step.scripts:
                        await connection.execute(script.encode())
                    version = step.version
                    await connection.execute(
                        "UPDATE wa_agent.fleet SET version = %s, compatible_from = %s",
                        (version, step.compatible_from),
                    )
    return before, version


async def allow(address: str, role: str) -> None:
    """Let a login of the database speak for machines."""
    async with await connect(address, autocommit=False) as connection:
        with readable_errors():
            await connection.execute(
                sql.SQL("GRANT wa_agent_machine TO {}").format(sql.Identifier(role))
            )


async def set_ttl(address: str, ttl: float) -> None:
    """Another [fleet] ttl for all machines: none of them may run meanwhile."""
    async with await connect(address, autocommit=False) as connection:
        with readable_errors():
            changed = await connection.execute(
                "UPDATE wa_agent.fleet SET ttl = %s WHERE NOT EXISTS (SELECT FROM wa_agent.machine"
                " WHERE NOT gone AND alive_until > clock_timestamp())",
                (ttl,),
            )
    if changed.rowcount == 0:
        raise Refused(
            "cannot change the fleet's ttl: machines are running. Stop the agents of all machines,"
            " wait until their leases have ended, and set the same ttl in their settings",
            code="machines_run",
        )


async def _present(connection: psycopg.AsyncConnection[TupleRow]) -> int:
    cursor = await connection.execute("SELECT to_regclass('wa_agent.fleet')")
    if (await cursor.fetchone() or (None,))[0] is None:
        return 0
    cursor = await connection.execute("SELECT version FROM wa_agent.fleet")
    return int((await cursor.fetchone() or (0,))[0])
