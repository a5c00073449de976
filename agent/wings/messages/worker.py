"""Keeps in a session's worker what arrives in it, where the settings let it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.words import Happening, InstanceId

if TYPE_CHECKING:
    from agent.messages.intake import Intake


def open_worker_part(
    folder: Path, id: InstanceId, settings: Mapping[str, Any], tell: Callable[[Happening], None]
) -> "Intake | None":
    if settings.get("keep") is False:
        return None
    from agent.messages.intake import Intake  # sqlite3: only where messages are kept

    return Intake(folder, id, settings, tell)
