"""Sessions as the fleet's functions take them, in JSON, and the columns that are read of them."""

from dataclasses import fields
from typing import Any

from agent.fleet.coordinator import Held, NewSession

SESSION = (
    "s.id, s.machine, s.epoch, s.engine, s.wanted, s.failover, s.labels, s.only_on, s.why,"
    " extract(epoch FROM s.moved_at)::float8, extract(epoch FROM c.written_at)::float8,"
    " length(c.packed)"
)
OWNED = (
    "SELECT s.id, s.epoch, engine, wanted, failover, labels, only_on, settings, generation,"
    " {number} FROM wa_agent.session s LEFT JOIN wa_agent.copy c ON c.session = s.id"
    " WHERE machine = %s ORDER BY s.id"
)
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
