"""What is wrong now, for the page and the command line."""

from typing import Any

from agent.api.http.call import Call, Json
from agent.core.event_json import wall_text
from agent.core.troubles.trouble import Of, Severity, Trouble


async def list_troubles(call: Call) -> Json:
    found = sorted(
        call.parts.troubles(),
        key=lambda one: (one.row.severity is not Severity.CRITICAL, one.row.name, one.who),
    )
    return {"troubles": [show_trouble(trouble) for trouble in found]}


def show_trouble(trouble: Trouble) -> dict[str, Any]:
    row = trouble.row
    return {
        "kind": row.name,
        "severity": row.severity.value,
        "instance": trouble.who if row.of is Of.SESSION else None,
        "backend": trouble.who if row.of is Of.BACKEND else None,
        "group": trouble.who if row.of is Of.GROUP else None,
        "sentence": trouble.sentence,
        "advice": row.advice.format(who=trouble.who),
        "since": wall_text(trouble.begun_wall),
    }
