"""Sessions as the fleet's functions take them: documents in JSON."""

from dataclasses import fields
from typing import Any

from agent.fleet.coordinator import Held, NewSession


def document(session: NewSession) -> dict[str, Any]:
    given = {field.name: getattr(session, field.name) for field in fields(session)}
    return given | {"labels": dict(session.labels), "settings": dict(session.settings)}


def told_document(held: Held) -> dict[str, Any]:
    given = document(held.session) | {"epoch": held.epoch, "generation": held.generation}
    return given if held.as_ordered else given | {"labels": None, "failover": None}
