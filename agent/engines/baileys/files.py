"""A session's folder of keys: whether it can hold a pairing, and one peer's keys put aside."""

import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from agent.core.words import SessionFiles
from agent.engines.baileys.creds import CREDS, account_of, fixed_mark, key_fault, text_of
from agent.engines.baileys.login_note import NOTE, changed_fields, read_mark
from agent.engines.files import (
    FileRules,
    FilesReport,
    Linked,
    SessionFolder,
    damaged,
    how_broken,
    sha256,
)
from agent.errors import EngineError
from agent.files import open_plain

KEY_KINDS = (
    r"creds|(pre-key|session|sender-key-memory|sender-key|app-state-sync-key"
    r"|app-state-sync-version|lid-mapping|device-list|tctoken|identity-key)-.{1,200}"
)
"""The library's own kinds of keys, of versions 6 and 7, as a regular expression."""
FILE_NAME = r"[\x20-\x7e]{1,200}"
"""A key's file, as a regular expression: the engine's store takes no other name."""
MOST_KEYS = 200_000
SIZE_LIMIT = 1024**3
"""Bytes of all keys together: no session is larger."""
REMOVED = "removed-keys"
FOREIGN = "session_foreign"
UNREADABLE = f"{REMOVED}/unreadable"


def lost_store(folder: Path) -> str:
    """Why this folder cannot have a pairing; "" where it may, damaged or not."""
    path = folder / CREDS
    try:
        text = read_key_file(path).decode("utf-8")
    except FileNotFoundError:
        return f"{path} is not there"
    except (OSError, UnicodeDecodeError):
        return ""
    try:
        creds = read_json(text)
    except (ValueError, RecursionError):
        return ""
    return "" if isinstance(creds, dict) and creds.get("me") else f"{path} holds no pairing"


def read_json(text: str) -> Any:
    """As the engine reads it: NaN and its like are no JSON."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def check(folder: SessionFolder, paired: bool) -> FilesReport:
    """creds.json is the pairing; a key file that broke costs one peer, never the pairing. A pairing
    that is known and not there may come back: a restore or a move is under way."""
    path, raw = folder.path / CREDS, folder.read(CREDS)
    sizes = {name: size for name, size in folder.sizes().items() if name.endswith(".json")}
    if raw is None:
        if any(name.startswith(("pre-key-", "session-", "app-state-sync-")) for name in sizes):
            report = damaged(path, "it is missing, and its keys are there")
            return replace(report, files=SessionFiles.ABSENT) if paired else report
        return FilesReport(SessionFiles.UNPAIRED)
    try:
        creds = read_json(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return damaged(path, how_broken(raw, error))
    if not isinstance(creds, dict):
        return damaged(path, "it is not an object")
    for key in ("noiseKey", "signedIdentityKey"):
        if not _is_key_pair(creds.get(key)):
            return damaged(path, f"{key} is missing or no pair of keys")
    me = creds.get("me")
    if not isinstance(me, dict) or not isinstance(me.get("id"), str) or not me["id"]:
        return FilesReport(SessionFiles.UNPAIRED)
    if creds.get("pairingCode") and not creds.get("account"):
        return FilesReport(SessionFiles.UNPAIRED)  # a code was asked for, and no device linked
    empty = [name for name, size in sizes.items() if name != CREDS and not size]
    return FilesReport(SessionFiles.WHOLE, _broken_keys(folder.path, empty))


def _is_key_pair(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("private")) and bool(value.get("public"))


def _broken_keys(path: Path, empty: list[str]) -> str:
    if not empty:
        return ""
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    return (
        f"{path / empty[0]}{more}: empty or no file; the engine moves it to {UNREADABLE} when it"
        " reads it, and the contact's next message brings new keys"
    )


def _moves_aside(path: str) -> bool:
    return path != CREDS and re.fullmatch(rf"({KEY_KINDS})\.json", path) is not None


def linked(folder: SessionFolder) -> Linked:
    raw = folder.read(CREDS)
    try:
        return linked_of(json.loads(raw or b""))
    except (ValueError, RecursionError):
        return Linked()


def linked_of(creds: Any) -> Linked:
    """The noise key is made when a device is linked, and never again."""
    if not isinstance(creds, dict):
        return Linked()
    noise = creds.get("noiseKey")
    private = noise.get("private") if isinstance(noise, dict) else None
    data = private.get("data") if isinstance(private, dict) else None
    key = data if isinstance(data, str) else text_of(private)
    return Linked(account_of(creds), sha256(key.encode()) if key else "")


PRE_KEY = "pre-key-"


def lacks_pre_keys(names: Collection[str]) -> str:
    """Peers use the keys that WhatsApp has: it hands out the lost ones as long as it has them."""
    if any(name.startswith(PRE_KEY) for name in names):
        return ""
    return (
        f"it holds credentials without one-time pre-keys ({PRE_KEY}*), so it could log in and"
        " read no first message; bring the whole store"
    )


def check_login(folder: Path, account: str) -> None:
    """Before each login: are these the credentials of this session? A login with others would log
    in as another account, or end in WhatsApp's logout. Those that are missing or no JSON are the
    store's to report."""
    path = folder / CREDS
    for place in (folder, path):
        if place.is_symlink():
            raise EngineError(
                f"cannot log in: {place} is a symbolic link (to {str(place.readlink())!r}), and"
                " links are never followed",
                code="session_unreadable",
            )
    try:
        creds = read_json(read_key_file(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    found = linked_of(creds).account
    if not found or not creds.get("account"):
        return  # no device is linked yet
    if account and found != account:
        raise EngineError(
            f"cannot log in: {path} is of the account …{found[-4:]}, and this session was linked"
            f" to …{account[-4:]}",
            code=FOREIGN,
        )
    mark, whose = read_mark(folder)
    if mark == fixed_mark(creds):
        return  # as WhatsApp took them last
    if mark and not (account and whose and whose != account):  # else the note is another session's
        which = changed_fields(folder, creds)
        raise EngineError(
            f"cannot log in: {path} was changed or replaced since WhatsApp took it last"
            f"{f', in {which}' if which else ''} (if that was meant, remove {NOTE} beside it)",
            code=FOREIGN,
        )
    if fault := key_fault(creds):
        raise EngineError(f"cannot log in: {path} is damaged: {fault}", code="session_damaged")


RULES = FileRules(
    check,
    lost_store,
    key_based=True,
    left_out=frozenset({REMOVED, NOTE}),
    moves_aside=_moves_aside,
    check_login=check_login,
    lacks=lacks_pre_keys,
    linked=linked,
)


def read_key_file(path: Path) -> bytes:
    """Never through a link: the folder may belong to another user."""
    with open_plain(path) as file:
        return file.read()
