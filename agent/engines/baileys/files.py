"""A session's folder of keys: whether it can hold a pairing, and one peer's keys put aside."""

import json
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
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
from agent.engines.whaticket.keys.peers import Peers, mappings_of, user_of, with_mapped
from agent.errors import EngineError
from agent.files import open_plain, sync
from agent.redaction import mark_of

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
KEPT = 5
"""So many sets of removed keys stay."""
_SET = re.compile(r"\d{8}T\d{6}Z(?:\.(\d{3,}))?")
_PEERS_ADDRESS = re.compile(
    r"(?:session-|identity-key-|sender-key-(?!memory-).{1,200}?(?:--|::))"
    r"(?P<user>\d{1,20})(?P<domain>_\d{1,3})?(?:(?:\.|--|::)(?P<device>\d{1,5}))?$"
)
_PEERS_KEY = re.compile(r"(session|sender-key|identity-key)-.+\.json")


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


def unreadable_record(name: str) -> str:
    """The sentence about a record that cannot be read; without its contact's number."""
    key = _key_of(name)
    kind = re.match(KEY_KINDS, key)
    words = f"the key file {kind[1]}-*" if kind and kind[1] else "a key file"
    if peer := peer_of(key):
        words += f" of {mark_of(peer)}"
    return f"{words} could not be read: moved to {UNREADABLE}; {_what_next(key)}"


def _what_next(key: str) -> str:
    if peer_of(key):
        return "the contact's next message is asked for again, with new keys"
    return "the session goes on without it"


def peer_of(key: str) -> str:
    """The JID whose session or sender key it is; "" for other keys."""
    if not (owned := _PEERS_ADDRESS.match(key)):
        return ""
    server = "lid" if owned["domain"] in ("_1", "_129") else "s.whatsapp.net"
    device = "" if owned["device"] in (None, "0") else f":{owned['device']}"
    return f"{owned['user']}{device}@{server}"


def set_aside(folder: Path, peers: list[str]) -> list[str]:
    """Move the keys of these peers (number and LID forms, groups' sender keys) into a folder; their
    names. The pairing and pre-keys stay."""
    if not (names := keys_of(folder, peers)):
        return []
    named = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        (folder / REMOVED).mkdir(mode=0o700, exist_ok=True)
        shelf = _new_shelf(folder / REMOVED, named)
        for name in names:
            (folder / name).rename(shelf / name)
        for changed in (shelf, folder):
            sync(changed)
    except OSError as error:
        raise EngineError(
            f"cannot put keys aside in {folder / REMOVED}: {error.strerror}"
        ) from error
    _keep_newest(folder / REMOVED)
    return names


def keys_of(folder: Path, peers: list[str]) -> list[str]:
    """The files with keys of these peers: of all their devices, and groups' sender keys."""
    owned = _owned(folder, peers)
    return sorted(
        path.name
        for path in folder.glob("*.json")
        if owned.owns(_key_of(path.name)) and path.is_file()
    )


def is_stranger(folder: Path, addresses: Iterable[str], group: str) -> bool:
    """Whether this session holds no keys of that one device, nor the device's of that group; by its
    addresses, `user.device` each. A folder may have very many files: it is not listed."""
    for address in addresses:
        user, _, device = address.rpartition(".")
        for digits in _owned(folder, [user]).users:
            for form in (digits, f"{digits}_1"):
                names = [f"session-{form}.{device}.json"]
                names += [f"sender-key-{group}--{form}--{device}.json"] if group else []
                if any((folder / name).exists() for name in names):
                    return False
    return True


def _new_shelf(shelves: Path, named: str) -> Path:
    """A folder of its own for each set: of two sets of one second the later sorts last."""
    taken = [match for path in shelves.glob(f"{named}*") if (match := _SET.fullmatch(path.name))]
    number = max((int(match[1] or 0) + 1 for match in taken), default=0)
    shelf = shelves / (f"{named}.{number:03}" if number else named)
    shelf.mkdir(mode=0o700)
    return shelf


def _owned(folder: Path, peers: list[str]) -> Peers:
    users = {user for peer in peers if (user := user_of(peer))}
    mapped = []
    for user in users:
        for key in mappings_of(user):
            try:
                mapped.append(json.loads(read_key_file(folder / f"{key}.json")))
            except (OSError, ValueError):
                continue
    return with_mapped(users, mapped)


def _key_of(name: str) -> str:
    return name.removesuffix(".json").replace("__", "/")


def _keep_newest(shelves: Path) -> None:
    """A set with other files than peers' keys stays: it was not put aside here."""
    sets = sorted(path for path in shelves.iterdir() if _SET.fullmatch(path.name))
    for old in sets[:-KEPT]:
        with suppress(OSError):  # no failure: the next set tries again
            files = list(old.iterdir())
            if all(_PEERS_KEY.fullmatch(file.name) and not file.is_symlink() for file in files):
                for file in files:
                    file.unlink()
                old.rmdir()


def check(folder: SessionFolder, _paired: bool) -> FilesReport:
    """creds.json is the pairing; a key file that broke costs one peer, never the pairing."""
    path, raw = folder.path / CREDS, folder.read(CREDS)
    sizes = {name: size for name, size in folder.sizes().items() if name.endswith(".json")}
    if raw is None:
        if any(name.startswith(("pre-key-", "session-", "app-state-sync-")) for name in sizes):
            return damaged(path, "it is missing, and its keys are there")
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
