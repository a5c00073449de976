"""Sessions in a database's tables: Evolution API 2, whaticket and its forks."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent.errors import Refused
from agent.vault.archives.found import FoundSession
from agent.wings.moving.program_tables import Tables, text
from agent.wings.moving.session import CREDS, Keys, look_at
from agent.wings.moving.users import used_by

ElsewhereKeys = Callable[[str], Keys]
"""The keys that a server keeps outside of its database, by the session's id."""

_KEY_KINDS = {
    "preKeys": "pre-key",
    "sessions": "session",
    "senderKeys": "sender-key",
    "senderKeyMemory": "sender-key-memory",
    "appStateSyncKeys": "app-state-sync-key",
    "appStateVersions": "app-state-sync-version",
}
"""How old whaticket forks name Baileys' kinds of keys in the column `session`."""


def find_evolution(tables: Tables, elsewhere: ElsewhereKeys | None) -> list[FoundSession]:
    """Evolution API 2: credentials in `Session`, keys in Redis or below instances/."""
    creds = {text(row, "sessionId"): text(row, "creds") for row in tables.rows("Session")}
    sessions = []
    for row in tables.rows("Instance"):
        id = text(row, "id")
        if id in creds:
            read = _evolution_keys(creds[id], id, elsewhere)
            name = text(row, "name") or id
            sessions.append(
                look_at(
                    "Evolution API 2",
                    name,
                    read,
                    written=tables.written,
                    in_use=used_by(tables.user),
                )
            )
    return sessions


def _evolution_keys(written: str, id: str, elsewhere: ElsewhereKeys | None) -> Callable[[], Keys]:
    def read() -> Keys:
        if elsewhere is None:
            raise Refused(
                "its keys lie outside of the database; name their place with --keys: the folder"
                " instances/ of the server, or its redis:// address",
                code="keys_elsewhere",
            )
        creds = _object(written, "creds")
        # The server writes the text of a JSON text.
        inner = creds if isinstance(creds, dict) else _object(str(creds), "creds")
        return {**elsewhere(id), CREDS: json.dumps(inner).encode()}

    return read


def find_whaticket(tables: Tables) -> list[FoundSession]:
    """The column `session`, and ticketz' table `BaileysKeys` beside it."""
    beside: dict[str, dict[str, bytes]] = {}
    for row in tables.rows("BaileysKeys"):
        key = f"{text(row, 'type')}-{text(row, 'key')}"
        beside.setdefault(text(row, "whatsappId"), {})[key] = text(row, "value").encode()
    sessions = []
    for row in tables.rows("Whatsapps"):
        written, id = text(row, "session"), text(row, "id")
        if written:
            read = _whaticket_keys(written, beside.get(id, {}))
            name = text(row, "name") or id
            sessions.append(
                look_at(
                    "whaticket", name, read, written=tables.written, in_use=used_by(tables.user)
                )
            )
    return sessions


def _whaticket_keys(written: str, beside: Keys) -> Callable[[], Keys]:
    def read() -> Keys:
        record = _object(written, "session")
        if not isinstance(record, dict) or not isinstance(record.get("creds"), dict):
            raise Refused("its column session holds no credentials", code="no_session")
        keys = dict(beside)
        for kind, entries in _items(record.get("keys")):
            for id, value in _items(entries):
                keys[f"{_KEY_KINDS.get(kind, kind)}-{id}"] = json.dumps(value).encode()
        keys[CREDS] = json.dumps(record["creds"]).encode()
        return keys

    return read


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, Mapping) else []


def _object(written: str, name: str) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Refused(f"its {name} is damaged: no JSON", code="damaged") from error
