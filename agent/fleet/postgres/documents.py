"""Sessions as the fleet's functions take them, in JSON, and the queries that read the tables."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from agent.fleet.coordinator import Held, NewSession
from agent.fleet.postgres.tables import BAGGAGE, FOLLOWED, LACKING, NUMBERED

MACHINES = (
    "SELECT id, name, epoch, renewals, rivals, alive_until > clock_timestamp(), address, capacity,"
    " (SELECT count(*) FROM wa_agent.session s WHERE s.machine = m.id), labels, engines, drained,"
    " version, extract(epoch FROM clock_timestamp() - renewed_at)::float8"
    " FROM wa_agent.machine m WHERE NOT gone ORDER BY name"
)
_SESSION = (
    "s.id, s.machine, s.epoch, s.engine, s.wanted, s.failover, s.labels, s.only_on, s.why,"
    " extract(epoch FROM s.moved_at)::float8, extract(epoch FROM c.written_at)::float8,"
    " length(c.packed) FROM wa_agent.session s LEFT JOIN wa_agent.copy c ON c.session = s.id"
)
ONE_SESSION = f"SELECT {_SESSION} WHERE s.id = %s"
CHANGES = (
    f"SELECT false AS deleted, {_SESSION} WHERE s.generation > %s"
    " UNION ALL SELECT true, id, 0, 0, '', '', '', '{}', '', '', 0, NULL, NULL"
    " FROM wa_agent.deleted_session WHERE generation > %s"
)
OWNED = (
    "SELECT s.id, s.epoch, engine, wanted, failover, labels, only_on, settings, generation,"
    " {number} FROM wa_agent.session s LEFT JOIN wa_agent.copy c ON c.session = s.id"
    " WHERE machine = %s ORDER BY s.id"
)
VIEWS = (
    "SELECT v.session, v.machine, v.view,"
    " extract(epoch FROM clock_timestamp() - v.published_at)::float8"
    " FROM wa_agent.view v JOIN wa_agent.session s ON s.id = v.session"
    " WHERE (%s::text[] IS NULL OR s.id = ANY (%s::text[]))"
    " AND (%s::int IS NULL OR s.machine = %s::int) ORDER BY s.id"
)
UNPLACED = (
    "SELECT s.id, v.view ->> 'hold_sentence', s.machine FROM wa_agent.view v"
    " JOIN wa_agent.session s ON s.id = v.session WHERE v.view ->> 'hold' = %s ORDER BY s.id"
)
PIECE = "SELECT packed FROM wa_agent.baggage WHERE session = %s AND name = %s"
COMMAND = (
    "id::text, session, verb, arguments, coalesce(idempotency_key, ''), asked_by, state, outcome,"
    " answer, extract(epoch FROM now() - asked_at)::float8, machine"
)


def document(session: NewSession) -> dict[str, Any]:
    given = {field.name: getattr(session, field.name) for field in fields(session)}
    return given | {"labels": dict(session.labels), "settings": dict(session.settings)}


def told_document(held: Held) -> dict[str, Any]:
    given = document(held.session) | {"epoch": held.epoch, "generation": held.generation}
    return given if held.as_ordered else given | {"labels": None, "failover": None}


def baggage_of(version: int, session: str) -> tuple[str, Sequence[Any]]:
    """One row of NULL: these tables have none."""
    if version < BAGGAGE:
        return "SELECT NULL", ()
    pieces = "SELECT name, epoch, number FROM wa_agent.baggage WHERE session = %s ORDER BY name"
    return pieces, (session,)


def copy_of(version: int, session: str) -> tuple[str, Sequence[Any]]:
    """A row for each change, in their order; one without a change where there is none."""
    number = "c.number" if version >= NUMBERED else "0::bigint"
    change, joined = "NULL, NULL, NULL", ""
    if version >= FOLLOWED:
        change = "f.number, f.after, f.packed"
        joined = " LEFT JOIN wa_agent.copy_change f ON f.session = c.session"
    return (
        f"SELECT c.epoch, c.packed, {number}, {change} FROM wa_agent.copy c{joined}"
        " WHERE c.session = %s ORDER BY 4",
        (session,),
    )


def movable(version: int, machine: int) -> tuple[str, Sequence[Any]]:
    follows = " AND c.lacking_since IS NULL" if version >= LACKING else ""
    return (
        "SELECT id, engine, wanted, failover, labels, only_on, settings"
        " FROM wa_agent.session s WHERE machine = %s AND failover = 'newest'"
        f" AND EXISTS (SELECT FROM wa_agent.copy c WHERE c.session = s.id{follows}) ORDER BY id",
        (machine,),
    )


def lacking(version: int) -> tuple[str, Sequence[Any]]:
    """Ids and seconds; none from tables that do not say."""
    since = "extract(epoch FROM clock_timestamp() - lacking_since)::float8"
    column = since if version >= LACKING else "0"
    where = "lacking_since IS NOT NULL" if version >= LACKING else "false"
    return f"SELECT session, {column} FROM wa_agent.copy WHERE {where}", ()


def copies_lack(version: int, *values: Any) -> tuple[str, Sequence[Any]]:
    if version < LACKING:
        return "SELECT NULL", ()
    return "SELECT wa_agent.copies_lack(%s, %s, %s, %s)", values


def change(version: int, *values: Any) -> tuple[str, Sequence[Any]]:
    """NULL: these tables have no place for it."""
    if version < FOLLOWED:
        return "SELECT NULL", ()
    return "SELECT wa_agent.store_change(%s, %s, %s, %s, %s, %s, %s)", values
