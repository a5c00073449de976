"""Sources of other programs: real stores, written as those programs write them."""

import base64
import json
import os
import time
from collections.abc import Mapping
from functools import cache as remembered
from pathlib import Path
from typing import Any

from agent.engines.baileys.rules import public_of
from tests.api.conftest import house, open_house
from tests.cli.conftest import cli, elsewhere
from tests.engines.baileys.conftest import bench, cache, whatsapp

__all__ = ["bench", "cache", "cli", "elsewhere", "house", "open_house", "whatsapp"]

Keys = Mapping[str, bytes]

JID = "5511900000001:3@s.whatsapp.net"


_public_of = remembered(public_of)


def pair_of(seed: int) -> dict[str, Any]:
    private = bytes([seed]) * 32
    return {"private": buffer(private), "public": buffer(_public_of(private))}


def buffer(content: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(content).decode()}


def creds(**more: Any) -> dict[str, Any]:
    """Credentials of the right shape, of an account that no server knows."""
    b64 = buffer(b"x" * 32)["data"]
    return {
        "noiseKey": pair_of(1),
        "signedIdentityKey": pair_of(2),
        "signedPreKey": {"keyPair": pair_of(3), "signature": buffer(b"s" * 64), "keyId": 1},
        "registrationId": 7,
        "advSecretKey": b64,
        "nextPreKeyId": 3,
        "firstUnuploadedPreKeyId": 3,
        "account": {
            "details": b64,
            "accountSignatureKey": b64,
            "accountSignature": base64.b64encode(b"a" * 64).decode(),
            "deviceSignature": base64.b64encode(b"d" * 64).decode(),
        },
        "me": {"id": JID, "name": "Sales", "lid": "99:3@lid"},
        "platform": "android",
        **more,
    }


def keys_of(credentials: Mapping[str, Any] | None = None, pre_keys: int = 2) -> dict[str, bytes]:
    made = {f"pre-key-{id}": json.dumps(pair_of(id)).encode() for id in range(1, pre_keys + 1)}
    made["creds"] = json.dumps(creds() if credentials is None else credentials).encode()
    return made


def write_folder(folder: Path, keys: Keys, ago: float = 3600.0) -> Path:
    """Write a folder as a bot left it that ended `ago` seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in keys.items():
        (folder / f"{key}.json").write_bytes(value)
    return age(folder, ago)


def age(folder: Path, ago: float = 3600.0) -> Path:
    for path in folder.iterdir():
        os.utime(path, (time.time() - ago,) * 2)
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.json")}


def as_numbers(value: Any) -> Any:
    """A Buffer as JSON.stringify writes it where no replacer is given."""
    if isinstance(value, dict):
        if value.get("type") == "Buffer":
            return {"type": "Buffer", "data": list(base64.b64decode(value["data"]))}
        return {key: as_numbers(each) for key, each in value.items()}
    return value


def write_json(path: Path, record: Any) -> Path:
    path.write_text(json.dumps(record))
    return path


def as_whaticket(keys: Keys) -> dict[str, Any]:
    """The column `session` of a fork."""
    names = {"pre-key": "preKeys", "session": "sessions", "sender-key": "senderKeys"}
    inside: dict[str, dict[str, Any]] = {}
    for key, raw in keys.items():
        if kind := next((kind for kind in names if key.startswith(kind + "-")), ""):
            record = as_numbers(json.loads(raw))
            inside.setdefault(names[kind], {})[key.removeprefix(kind + "-")] = record
    return {"creds": json.loads(keys["creds"]), "keys": inside}
