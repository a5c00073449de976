"""The little that the process host reads of the session folders; their owner is the vault."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from agent.core.model import InstanceId, parse_instance_id
from agent.errors import InvalidRequest


def engine_of(root: Path, instance: InstanceId) -> str:
    """What the worker will read too; "" when it cannot be read, which the worker will say."""
    try:
        text = (root / instance / "instance.json").read_text(encoding="utf-8")
        return str(json.loads(text)["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def instances_below(root: Path) -> Iterator[InstanceId]:
    try:
        entries = list(os.scandir(root))
    except OSError:  # not made yet
        return
    for entry in entries:
        with contextlib.suppress(InvalidRequest):
            yield parse_instance_id(entry.name)
