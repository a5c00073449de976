"""A repair as plain values in the session's record."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from agent.core.model import SessionRecord
from agent.core.recovery.proof import Consent
from agent.core.recovery.repair import Ending, Goal, RecoveryKind, Repair, Stage, Trouble


def with_repair(record: SessionRecord, repair: Repair | None) -> SessionRecord:
    return replace(record, repair="" if repair is None else json.dumps(stored(repair)))


def stored(repair: Repair) -> dict[str, Any]:
    return {name: getattr(value, "value", value) for name, value in asdict(repair).items()}


def read_repair(row: Mapping[str, Any]) -> Repair:
    """The reverse of `stored`; ValueError or TypeError when `row` is no repair. Unknown keys are
    ignored: a newer version wrote them."""
    words = {
        "trouble": Trouble,
        "goal": Goal,
        "consent": Consent,
        "step": RecoveryKind,
        "stage": Stage,
        "ending": Ending,
    }
    known = {known_field.name for known_field in fields(Repair)}
    values: dict[str, Any] = {name: value for name, value in row.items() if name in known}
    for name in words.keys() & values.keys():
        values[name] = words[name](values[name])
    return Repair(**values)
