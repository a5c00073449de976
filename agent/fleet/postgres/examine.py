"""What an operator must know of the fleet's database before a machine uses it."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.fleet.postgres.address import warn_of_address
from agent.fleet.postgres.connection import Connection, call_within, connect, readable_errors
from agent.fleet.postgres.tables import read_schema

_WITHIN = 20.0
_POWERS = """
    SELECT word FROM pg_roles r, LATERAL (VALUES
        (r.rolsuper, 'is a superuser'), (r.rolcreaterole, 'may make roles'),
        (r.rolcreatedb, 'may make databases'), (r.rolreplication, 'may replicate'),
        (r.rolbypassrls, 'passes by row security'),
        (has_schema_privilege(r.rolname, 'wa_agent', 'CREATE'), 'may change the fleet''s tables'),
        (has_table_privilege(r.rolname, 'wa_agent.session', 'INSERT, UPDATE, DELETE, TRUNCATE'),
            'may write into the fleet''s tables')) AS power (has, word)
    WHERE r.rolname = current_user AND power.has"""

CALLED = (
    *("join_fleet", "leave_fleet", "renew", "tell_sessions", "set_drained", "set_capacity"),
    *("forget", "accept_loss", "take_over", "hand_over", "create_session", "register_sessions"),
    *("update_session", "delete_session", "store_copy", "store_baggage", "publish", "add_command"),
    *("copies_lack", "accept_copy", "store_change", "knows", "take_commands", "end_command"),
)
"""What an agent calls."""
_REFUSED = """
    SELECT DISTINCT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'wa_agent' AND p.proname = ANY (%s)
        AND NOT has_function_privilege(current_user, p.oid, 'EXECUTE') ORDER BY 1"""
_WEAK = """
    SELECT word FROM
        (SELECT 4 * count(*) AS held FROM wa_agent.machine WHERE NOT gone) AS fleet,
        LATERAL (SELECT current_setting('max_connections')::integer
            - current_setting('superuser_reserved_connections')::integer AS free) AS server,
        LATERAL (VALUES
            (current_setting('fsync') = 'off',
                'fsync is off: a crash of the server loses changes of owners that it confirmed'),
            (current_setting('synchronous_commit') = 'off',
                'synchronous_commit is off: a crash of the server loses the last changes'),
            (server.free < fleet.held, 'max_connections leaves ' || server.free
                || ' connections, and the machines of this fleet hold ' || fleet.held)
        ) AS weak (is_so, word)
    WHERE is_so"""
"""Each agent holds four connections."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    version: int
    """Of the fleet's tables."""
    role: str
    powers: Sequence[str]
    """What the login may do beyond what an agent needs."""
    refused: Sequence[str]
    """Functions that an agent calls and the login may not."""
    weak: Sequence[str]
    """Settings of the server with which it may lose what it confirmed, or refuse a machine."""
    warning: str
    """Why the connection is protected less than it could be; "" = it is."""
    fingerprint: str
    """Of the fleet's key; "" = no machine has joined yet."""
    ttl: float | None
    """The ttl of the fleet's machines; None: no machine has joined yet."""
    names: Sequence[str]
    """Of the machines."""
    taken: Sequence[str]
    """Of the ids that were asked about, those that the fleet has."""


async def examine(address: str, ids: Sequence[str] = ()) -> DatabaseFacts:
    """Refused: tables that this program may not use; TryLater: no answer."""
    connection = await connect(address)
    try:
        with readable_errors():
            return await call_within(
                _WITHIN, _read(connection, address, ids), connection.pgconn.finish
            )
    finally:
        await connection.close()


async def _read(connection: Connection, address: str, ids: Sequence[str]) -> DatabaseFacts:
    version, _ = await read_schema(connection)
    (role,) = await _column(connection, "SELECT current_user")
    (fingerprint,) = await _column(connection, "SELECT key_fingerprint FROM wa_agent.fleet")
    ttl = await _column(connection, "SELECT ttl FROM wa_agent.fleet WHERE ttl > 0")
    names = "SELECT name FROM wa_agent.machine WHERE NOT gone ORDER BY name"
    taken = "SELECT id FROM wa_agent.session WHERE id = ANY (%s) ORDER BY id"
    return DatabaseFacts(
        version,
        role,
        await _column(connection, _POWERS),
        await _column(connection, _REFUSED, list(CALLED)),
        await _column(connection, _WEAK),
        warn_of_address(address),
        fingerprint,
        float(ttl[0]) if ttl else None,
        await _column(connection, names),
        await _column(connection, taken, list(ids)),
    )


async def _column(connection: Connection, statement: str, *values: object) -> list[str]:
    cursor = await connection.execute(statement.encode(), values or None)
    return [str(row[0]) for row in await cursor.fetchall()]
