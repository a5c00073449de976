"""Keeps in a session's worker what arrives in it, where the settings let it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.core.words import Happening, InstanceId
from agent.messages.intake import Intake


def open_worker_part(
    folder: Path, id: InstanceId, settings: Mapping[str, Any], tell: Callable[[Happening], None]
) -> Intake | None:
    return None if settings.get("keep") is False else Intake(folder, id, settings, tell)
