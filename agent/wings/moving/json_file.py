"""One session as JSON, as Evolution API and whaticket forks store it in a database or in Redis."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.copies.transfer import open_source
from agent.engines.baileys.files import SIZE_LIMIT
from agent.errors import Refused
from agent.vault.archives.found import FoundSession
from agent.wings.moving.session import CREDS, Keys, look_at

_SUFFIX = ":creds"
_KEY_KINDS = {
    "preKeys": "pre-key",
    "sessions": "session",
    "senderKeys": "sender-key",
    "senderKeyMemory": "sender-key-memory",
    "appStateSyncKeys": "app-state-sync-key",
    "appStateVersions": "app-state-sync-version",
}
"""How old whaticket forks name Baileys' kinds of keys in the column `session`."""
_IN_USE = (
    "its file does not tell whether the program that it was taken from still runs; stop that"
    " program, take the file again, then say so with --stopped"
)


def find_in_json(path: Path, more: Keys) -> FoundSession:
    """`more`: keys that lie elsewhere."""
    written = path.stat().st_mtime
    return look_at(
        "JSON", path.stem, lambda: {**more, **read_json(path)}, written=written, in_use=_IN_USE
    )


def read_json(path: Path) -> Keys:
    """The keys by Baileys' names, from {"creds": …, "keys": {"preKeys": {…}}} or {"creds": …,
    "pre-key-1": …}. A name may begin as in Redis ("sessions:7:creds"), a value be JSON or a text
    of it."""
    with open_source(path, "source") as file:
        raw = file.read(SIZE_LIMIT + 1)
    if len(raw) > SIZE_LIMIT:
        raise Refused("it is larger than any session", code="too_large")
    record = _value(raw)
    if not isinstance(record, dict):
        raise Refused("it is no JSON object", code="damaged")
    starts = [name.removesuffix(CREDS) for name in record if name.endswith(_SUFFIX)]
    start = starts[0] if starts and CREDS not in record else ""
    found = {name.removeprefix(start): value for name, value in record.items()}
    if isinstance(kinds := found.pop("keys", None), Mapping):
        for kind, entries in kinds.items():
            for id, value in entries.items() if isinstance(entries, Mapping) else ():
                found[f"{_KEY_KINDS.get(kind, kind)}-{id}"] = value
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> bytes:
    """Some servers write the text of a JSON text."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return str(value).encode("utf-8", "surrogateescape")
    return json.dumps(value).encode()


def _value(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused("it is no whole JSON", code="damaged") from error
