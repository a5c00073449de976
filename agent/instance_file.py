"""instance.json: what the agent writes of an instance beside its session.

The agent and its tools read it whole, a worker what concerns it, a host the engine. This module
knows the keys; how the file is opened belongs to who opens it. Standard library only: msgspec would
be a tenth of a worker.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.core.words import InstanceId, parse_instance_id

NAME = "instance.json"
VERSION = 1
LARGEST = 1 << 20
"""Bytes of the file: no instance needs more, and no worker reads more."""


class OtherInstance(ValueError):
    """The file of another session: the folder beside it is that session's, too."""


@dataclass(frozen=True, slots=True)
class InstanceFile:
    id: InstanceId
    engine: str
    enabled: bool
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    created_wall: float = 0.0
    paired: bool = False
    account: str = ""
    lineage: str = ""
    ended: str = ""
    ended_until: float = 0.0
    override: str = ""
    override_boot: str = ""
    generation: int = 0
    needs_passkey: bool = False
    leased: bool = False
    """True if the session connects only with a lease of its machine: `agent/worker/fence.py`."""
    of_rooms: Mapping[str, Any] = field(default_factory=dict)
    """Room → the settings of its part in the worker, if they are not the usual ones."""


def parse_instance_file(raw: bytes, folder_name: str) -> InstanceFile:
    """Parse the file; ValueError says what is wrong. Keys of another version are no fault."""
    content = parse_object(raw)
    version = content.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"its version is {version!r:.40}, this program knows {VERSION}")
    if content.get("id") != folder_name:
        found = f"it names {content.get('id')!r:.80}, whose session this is, and its folder is"
        cure = "put each folder back under its own name (or, if that was meant, remove this file)"
        raise OtherInstance(f"{found} {folder_name!r}: {cure}")
    parse_instance_id(folder_name)
    known = asdict(InstanceFile(InstanceId(""), "", enabled=False))
    for name, usual in known.items():
        known[name] = value = content.get(name, usual)
        if type(value) is not type(usual) and (name, type(value)) != ("created_wall", int):
            raise ValueError(f"its {name} has another type than it must have")
    if not known["engine"] or "enabled" not in content:
        raise ValueError("engine or enabled is missing")
    return InstanceFile(**known)


def parse_object(raw: bytes) -> dict[str, Any]:
    if len(raw) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST} bytes")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON, so it was damaged or cut off") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one kind for all faults
    return content


def render_instance_file(file: InstanceFile, others: Mapping[str, Any]) -> bytes:
    """Render the file. `others`: keys of another version. ValueError: no worker would read it."""
    raw = json.dumps({**others, "version": VERSION, **asdict(file)}, indent=1).encode() + b"\n"
    if len(raw) > LARGEST:
        raise ValueError(f"{len(raw)} bytes are more than a worker reads")
    return raw
