"""Stores of whatsmeow (SQLite, PostgreSQL): credentials, one-time pre-keys and app-state keys.
Ratchets are not translated: each peer renews its own at one retry."""

import base64
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from agent.errors import Refused
from agent.vault.archives.found import FoundSession
from agent.wings.moving.program_tables import Row, Tables, raw, text
from agent.wings.moving.session import CREDS, Keys, buffer, look_at
from agent.wings.moving.users import used_by

DEVICE = "whatsmeow_device"
_KEY_SIZE = 32


def find_whatsmeow(tables: Tables) -> list[FoundSession]:
    pre_keys: dict[str, list[Row]] = defaultdict(list)
    for row in tables.rows("whatsmeow_pre_keys"):
        pre_keys[text(row, "jid")].append(row)
    state_keys: dict[str, list[Row]] = defaultdict(list)
    for row in tables.rows("whatsmeow_app_state_sync_keys"):
        state_keys[text(row, "jid")].append(row)
    sessions = []
    for device in tables.rows(DEVICE):
        jid = text(device, "jid")
        read = _reader(device, pre_keys[jid], state_keys[jid])
        name = jid.partition("@")[0].partition(":")[0] or "unnamed"
        sessions.append(
            look_at("whatsmeow", name, read, written=tables.written, in_use=used_by(tables.user))
        )
    return sessions


def _reader(device: Row, pre_keys: list[Row], state_keys: list[Row]) -> Callable[[], Keys]:
    def read() -> Keys:
        keys: dict[str, bytes] = {}
        for row in pre_keys:
            keys[f"pre-key-{_number(row, 'key_id')}"] = _json(_pair(_key(row, "key")))
        for row in state_keys:
            id = base64.b64encode(raw(row, "key_id")).decode()
            keys[f"app-state-sync-key-{id}"] = _json(_state_key(row))
        keys[CREDS] = _json(_creds(device, pre_keys, state_keys))
        return keys

    return read


def _creds(device: Row, pre_keys: list[Row], state_keys: list[Row]) -> dict[str, Any]:
    ids = [_number(row, "key_id") for row in pre_keys]
    waiting = [
        _number(row, "key_id")
        for row in pre_keys
        if text(row, "uploaded").lower() not in ("1", "t", "true")
    ]
    after = max(ids, default=0) + 1
    jid, lid = text(device, "jid"), text(device, "lid")
    account_key = raw(device, "adv_account_sig_key")
    newest = max(state_keys, key=lambda row: _number(row, "timestamp"), default=None)
    me = {"id": jid, "name": text(device, "push_name")} | ({"lid": lid} if lid else {})
    return {
        "noiseKey": _pair(_key(device, "noise_key")),
        # Used while pairing only, and this device is paired.
        "pairingEphemeralKeyPair": _pair(_key(device, "noise_key")),
        "signedIdentityKey": _pair(_key(device, "identity_key")),
        "signedPreKey": {
            "keyPair": _pair(_key(device, "signed_pre_key")),
            "signature": buffer(raw(device, "signed_pre_key_sig")),
            "keyId": _number(device, "signed_pre_key_id"),
        },
        "registrationId": _number(device, "registration_id"),
        "advSecretKey": _base64(raw(device, "adv_key")),
        "processedHistoryMessages": [],
        "nextPreKeyId": after,
        "firstUnuploadedPreKeyId": min(waiting, default=after),
        "accountSyncCounter": 0,
        "accountSettings": {"unarchiveChats": False},
        "registered": False,
        "account": {
            "details": _base64(raw(device, "adv_details")),
            "accountSignatureKey": _base64(account_key),
            "accountSignature": _base64(raw(device, "adv_account_sig")),
            "deviceSignature": _base64(raw(device, "adv_device_sig")),
        },
        "me": me,
        "signalIdentities": [
            {
                "identifier": {"name": lid or jid, "deviceId": 0},
                "identifierKey": buffer(b"\x05" + account_key),
            }
        ],
        "platform": text(device, "platform"),
        **({"myAppStateKeyId": _base64(raw(newest, "key_id"))} if newest else {}),
    }


def _state_key(row: Row) -> dict[str, Any]:
    return {
        "keyData": _base64(raw(row, "key_data")),
        "fingerprint": _fingerprint(raw(row, "fingerprint")),
        "timestamp": str(_number(row, "timestamp")),
    }


def _fingerprint(message: bytes) -> dict[str, Any]:
    """AppStateSyncKeyFingerprint: rawId = 1, currentIndex = 2, deviceIndexes = 3."""
    fingerprint: dict[str, Any] = {"deviceIndexes": []}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        value, place = _varint(message, place)
        match tag:
            case 0x08:
                fingerprint["rawId"] = value
            case 0x10:
                fingerprint["currentIndex"] = value
            case 0x18:
                fingerprint["deviceIndexes"].append(value)
            case 0x1A:
                end = place + value
                while place < end:
                    index, place = _varint(message, place)
                    fingerprint["deviceIndexes"].append(index)
            case _:
                raise Refused("its app-state key is damaged", code="damaged")
    return fingerprint


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            break
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise Refused("its app-state key is damaged", code="damaged")


def _pair(private: bytes) -> dict[str, Any]:
    return {"private": buffer(private), "public": buffer(public_key(private))}


def _key(row: Row, column: str) -> bytes:
    key = raw(row, column)
    if len(key) != _KEY_SIZE:
        raise Refused(f"its {column} is damaged: {len(key)} bytes, not {_KEY_SIZE}", code="damaged")
    return key


def _number(row: Row, column: str) -> int:
    try:
        return int(text(row, column))
    except ValueError as error:
        raise Refused(f"its {column} is damaged: no number", code="damaged") from error


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


_P = 2**255 - 19
_A24 = 121665


def public_key(private: bytes) -> bytes:
    """Of an X25519 private key (RFC 7748): whatsmeow stores private keys only."""
    scalar = bytearray(private)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return _times_base(int.from_bytes(scalar, "little")).to_bytes(32, "little")


def _times_base(scalar: int) -> int:
    """The Montgomery ladder from the base point 9."""
    x1, x2, z2, x3, z3 = 9, 1, 0, 9, 1
    swapped = 0
    for position in range(254, -1, -1):
        bit = scalar >> position & 1
        if swapped ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b = (x2 + z2) % _P, (x2 - z2) % _P
        aa, bb = a * a % _P, b * b % _P
        e = aa - bb
        da, cb = (x3 - z3) * a % _P, (x3 + z3) * b % _P
        x3, z3 = (da + cb) ** 2 % _P, x1 * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swapped:
        x2, z2 = x3, z3
    return x2 * pow(z2, _P - 2, _P) % _P
