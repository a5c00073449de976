"""Credentials that are not those of the session never log in: another's, changed, damaged."""

import asyncio
import base64
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.core.reasons import reason_of
from agent.engines.baileys.rules import (
    CREDS,
    NOTE,
    check_login,
    fixed_mark,
    key_fault,
    lost_store,
    note_login,
    public_of,
    read_version,
)
from agent.errors import EngineError
from tests.engines.baileys.conftest import ACCOUNT, OTHER, Bench


def pair() -> dict[str, Any]:
    private = os.urandom(32)
    public = public_of(private)
    return {name: buffer(key) for name, key in (("private", private), ("public", public))}


def buffer(raw: bytes) -> dict[str, str]:
    return {"type": "Buffer", "data": base64.b64encode(raw).decode()}


def linked(account: str = ACCOUNT) -> dict[str, Any]:
    return {
        "noiseKey": pair(),
        "signedIdentityKey": pair(),
        "signedPreKey": {"keyPair": pair(), "signature": buffer(os.urandom(64)), "keyId": 1},
        "registrationId": 77,
        "advSecretKey": base64.b64encode(os.urandom(32)).decode(),
        "me": {"id": f"{account}:12@s.whatsapp.net", "name": "Sales"},
        "account": {"details": buffer(os.urandom(20)), "deviceSignature": buffer(os.urandom(64))},
        "nextPreKeyId": 31,
    }


def write(folder: Path, creds: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CREDS).write_text(json.dumps(creds))
    return folder


def refused(folder: Path, account: str = ACCOUNT) -> str:
    """The code of the refusal; "" = it may log in."""
    try:
        check_login(folder, account)
    except EngineError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("09" + "00" * 31, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        ("ff" * 32, "847c0d2c375234f365e660955187a3735a0f7613d1609d3a6a4d8c53aeaa5a22"),
    ],
)
def test_the_public_half_is_computed_as_libsodium_does(private: str, public: str) -> None:
    """The first one is of RFC 7748, 5.2."""
    assert public_of(bytes.fromhex(private)).hex() == public


def test_whole_credentials_may_log_in(tmp_path: Path) -> None:
    folder = write(tmp_path, linked())
    assert refused(folder) == refused(folder, "") == ""
    note_login(folder, "2.3000.1")
    assert (refused(folder), read_version(folder)) == ("", "2.3000.1")


def test_credentials_of_another_account_may_not(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is of the account …0003, and this session") as refusal:
        check_login(write(tmp_path, linked(OTHER)), ACCOUNT)
    assert refusal.value.code == "session_foreign"
    assert OTHER not in str(refusal.value)
    advice = reason_of("session_foreign").advice
    assert "wa-agent restore" in advice and "wa-agent import" in advice


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            lambda creds: creds["me"].update(id=f"{ACCOUNT}:13@s.whatsapp.net"), id="me.id"
        ),
        pytest.param(
            lambda creds: creds.update(noiseKey=pair()), id="noiseKey.private, noiseKey.public"
        ),
    ],
)
def test_credentials_that_changed_since_whatsapp_took_them_may_not(
    tmp_path: Path, change: Change, request: pytest.FixtureRequest
) -> None:
    creds = linked()
    note_login(write(tmp_path, creds), "")
    change(creds)
    write(tmp_path, creds)
    with pytest.raises(EngineError, match="was changed or replaced since") as refusal:
        check_login(tmp_path, ACCOUNT)
    assert refusal.value.code == "session_foreign"
    assert f"last, in {request.node.callspec.id} (if" in str(refusal.value)
    (tmp_path / NOTE).unlink()
    assert refused(tmp_path) == "", "as the refusal says, where the change was meant"


def test_what_the_library_changes_by_itself_is_no_change(tmp_path: Path) -> None:
    creds = linked()
    note_login(write(tmp_path, creds), "")
    creds["me"] |= {"name": "Sales 2", "lid": "123@lid"}
    creds |= {"nextPreKeyId": 812, "signedPreKey": {"keyPair": pair(), "keyId": 2}}
    # Another version of the library writes the same bytes otherwise.
    creds["account"]["details"] = creds["account"]["details"]["data"]
    key = creds["signedIdentityKey"]["private"]
    creds["signedIdentityKey"]["private"] = buffer(base64.b64decode(key["data"])) | {"data": list(
        base64.b64decode(key["data"])
    )}  # fmt: skip
    assert refused(write(tmp_path, creds)) == ""


@pytest.mark.parametrize("name", ["noiseKey", "signedPreKey"])
def test_a_changed_bit_of_a_key_is_found_without_a_note(tmp_path: Path, name: str) -> None:
    creds = linked()
    key = creds[name].get("keyPair", creds[name])
    raw = bytearray(base64.b64decode(key["private"]["data"]))
    at = random.Random(name).randrange(3, 253)  # the others mean nothing in such a key
    raw[at // 8] ^= 1 << at % 8
    key["private"] = buffer(bytes(raw))
    assert name in key_fault(creds)
    assert refused(write(tmp_path, creds)) == "session_damaged"


def test_credentials_that_are_not_linked_yet_are_not_looked_at(tmp_path: Path) -> None:
    note_login(write(tmp_path, linked()), "")
    assert refused(write(tmp_path, {**linked(OTHER), "account": None})) == ""
    assert refused(tmp_path / "none") == ""
    (tmp_path / CREDS).write_text("{")
    assert refused(tmp_path) == "", "the store itself reports it"
    assert fixed_mark({}) and key_fault({"noiseKey": 5, "signedPreKey": {"keyPair": []}}) == ""


@pytest.mark.timeout(30)
def test_a_pipe_in_the_place_of_credentials_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """No process writes into the pipe: to open it for reading would wait for ever."""
    os.mkfifo(tmp_path / CREDS)
    os.mkfifo(tmp_path / NOTE)
    with pytest.raises(EngineError, match="not what belongs there"):
        check_login(tmp_path, ACCOUNT)
    note_login(tmp_path, "2.3000.1")
    assert lost_store(tmp_path) == "", "it may have a pairing, damaged or not"
    assert read_version(tmp_path) == "2.3000.1"


def test_credentials_behind_a_link_are_not_used_and_not_called_damaged(tmp_path: Path) -> None:
    folder = write(tmp_path / "session", linked())
    moved = folder / CREDS
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="is a symbolic link") as refusal:
        check_login(folder, ACCOUNT)
    assert refusal.value.code == "session_unreadable"


@pytest.mark.slow
async def test_a_session_that_is_paired_shows_no_code_whatever_it_is_sent(bench: Bench) -> None:
    await bench.come_paired()
    begun = len(bench.heard.claims)
    ref = {"tag": "ref", "attrs": {}, "content": {"base64": "cmVm"}}
    inner = {"tag": "pair-device", "attrs": {}, "content": [ref]}
    attrs = {"from": "s.whatsapp.net", "id": "1", "t": "1", "type": "set", "xmlns": "md"}
    stanza = {"tag": "iq", "attrs": attrs, "content": [inner]}
    for _ in range(3):
        await asyncio.to_thread(bench.whatsapp.tell, "/put", {"user": ACCOUNT, "stanza": stanza})
    await bench.talk("still here")
    assert {claim.status for claim in bench.heard.claims[begun:]} <= {"CONNECTED"}
