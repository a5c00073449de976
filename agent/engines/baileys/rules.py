"""The baileys engine's settings of an instance, and its folder of keys: whether it can hold a
pairing, and one peer's keys put aside. Standard library only."""

import base64
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent import errors, files
from agent.core.setting import setting
from agent.core.words import Address, SessionFiles
from agent.engines import base

log = logging.getLogger(__name__)

WHATSAPP = "wss://web.whatsapp.com/ws/chat"
KNOWN_GOOD = "known_good"


def _version_fault(version: str) -> str:
    if version in ("", KNOWN_GOOD) or re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,6}\.[0-9]{1,12}", version):
        return ""
    return f"neither {KNOWN_GOOD} nor a version as 2.3000.1043857760"


@dataclass(frozen=True, slots=True)
class BaileysSettings:
    url: str = setting(
        WHATSAPP,
        "address of WhatsApp; for tests another wss address, or ws on loopback",
        check=lambda url: base.server_fault(url, "wss", "ws"),
    )
    media_url: str = setting(
        "",
        'address of a server that gives files in tests, https or http on loopback; "" = WhatsApp',
        check=lambda url: base.server_fault(url, "https", "http") if url else "",
    )
    version: str = setting(
        "",
        '"" = the version of the library; known_good = the last version that connected;'
        " or a version as 2.3000.1043857760",
        check=_version_fault,
    )
    proxy: str = setting(
        "", "http://, https:// or socks5://HOST:PORT for all traffic", check=base.proxy_fault
    )
    device_name: str = setting(
        "",
        "name in the phone's list of linked devices; \"\" = the library's",
        check=base.device_name_fault,
    )
    client_starts: int = setting(
        5, "starts of a client that ended, in ten minutes, before the worker ends", low=0, high=100
    )


def read_settings(raw: Mapping[str, Any]) -> BaileysSettings:
    return base.read_table(BaileysSettings, raw, "baileys setting")


def needed_address(settings: BaileysSettings, _folder: Path) -> Address:
    """Return WhatsApp's address, on the way that the client takes."""
    return base.address_of(settings.url, settings.proxy)


# The credentials of a session: whether they fit together, and what of them never changes once a
# device is linked.

CREDS = "creds.json"
_PRIME = 2**255 - 19
_FIXED, _HALVES = ("noiseKey", "signedIdentityKey"), ("private", "public")


def key_fault(creds: Mapping[str, Any]) -> str:
    """Return the key that does not fit its public half, which the others have; \"\" = none."""
    for name in ("noiseKey", "signedIdentityKey", "signedPreKey"):
        pair = base.inside(creds, name, "keyPair") or base.inside(creds, name)
        private, public = (_bytes(base.inside(pair, half)) for half in _HALVES)
        if len(private) == 32 and public and public_of(private) != public[-32:]:
            return f"the private and the public half of {name} do not fit"
    return ""


def fixed_mark(creds: Mapping[str, Any]) -> str:
    """Return a mark that these credentials always have, and no others. It tells no key."""
    return base.sha256(json.dumps([value for _, value in _fixed(creds)]).encode())


def fixed_marks(creds: Mapping[str, Any]) -> dict[str, str]:
    """Return a mark of each field, to name the one that changed. It tells no key."""
    return {name: base.sha256(json.dumps(value).encode())[:16] for name, value in _fixed(creds)}


def _fixed(creds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "me.id", base.inside(creds, "me", "id")
    for name in ("registrationId", "advSecretKey"):
        yield name, creds.get(name)
    for key in _FIXED:
        for half in _HALVES:
            yield f"{key}.{half}", text_of(base.inside(creds, key, half))
    for name in ("details", "accountSignature", "accountSignatureKey", "deviceSignature"):
        yield f"account.{name}", text_of(base.inside(creds, "account", name))


def account_of(creds: Mapping[str, Any]) -> str:
    """Return the digits of the account's number; \"\" = none."""
    id = base.inside(creds, "me", "id")
    digits = re.match(r"\d{5,20}(?!\d)", id) if isinstance(id, str) else None
    return digits.group() if digits else ""


def text_of(value: Any) -> str:
    """Return bytes as base64, however this version of the library writes them."""
    return value if isinstance(value, str) else base64.b64encode(_bytes(value)).decode()


def _bytes(value: Any) -> bytes:
    """Return bytes that the library wrote, or an older version of it; b"" = neither."""
    data = value.get("data") if isinstance(value, dict) else None
    try:
        return base64.b64decode(data) if isinstance(data, str) else bytes(data or b"")
    except (ValueError, TypeError):
        return b""


def public_of(private: bytes) -> bytes:
    """X25519 of the base point (RFC 7748), by the Montgomery ladder. It is no secret from this
    machine how long that takes."""
    scalar = int.from_bytes(private, "little") & ~7
    scalar = scalar & (2**254 - 1) | 2**254
    x2, z2, x3, z3 = 1, 0, 9, 1
    swapped = 0
    for at in range(254, -1, -1):
        bit = scalar >> at & 1
        if bit != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        plus, minus = x2 + z2, x2 - z2
        square, other = plus * plus % _PRIME, minus * minus % _PRIME
        left, right = (x3 - z3) * plus % _PRIME, (x3 + z3) * minus % _PRIME
        x3, z3 = (left + right) ** 2 % _PRIME, 9 * (left - right) ** 2 % _PRIME
        difference = square - other
        x2, z2 = square * other % _PRIME, difference * (square + 121665 * difference) % _PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")


# The note of the last connection, a file beside the keys: the version of WhatsApp Web, the account,
# and a mark of the credentials that WhatsApp took.

NOTE = "baileys.json"


def read_version(folder: Path) -> str:
    """Return the noted version of WhatsApp Web; \"\" = none is noted."""
    return base.text(_read(folder / NOTE).get("version"))


def read_mark(folder: Path) -> tuple[str, str]:
    """The mark of the credentials that WhatsApp took last, and their account; \"\" = none is
    noted."""
    note = _read(folder / NOTE)
    return base.text(note.get("creds")), base.text(note.get("account"))


def changed_fields(folder: Path, creds: Mapping[str, Any]) -> str:
    """Return fields that differ from what WhatsApp took last; \"\" = the note does not tell."""
    noted = _read(folder / NOTE).get("fields")
    if not isinstance(noted, dict):
        return ""
    return ", ".join(name for name, mark in fixed_marks(creds).items() if noted.get(name) != mark)


def note_login(folder: Path, version: str) -> None:
    creds = _read(folder / CREDS)
    mark, fields = (fixed_mark(creds), fixed_marks(creds)) if creds else ("", {})
    account = account_of(creds)
    _note(folder, {"version": version, "creds": mark, "account": account, "fields": fields})


def forget_creds(folder: Path) -> None:
    """Forget the mark of the credentials: a new device was linked, whose login makes another."""
    _note(folder, {"version": read_version(folder)})


def _note(folder: Path, note: dict[str, Any]) -> None:
    """Write the note. An error is not worth a failure: the note only helps a later login."""
    note = {key: value for key, value in note.items() if value}
    if _read(folder / NOTE) == note:
        return
    try:
        files.write_whole(folder / NOTE, json.dumps(note).encode())
    except OSError as error:
        log.info("cannot note what connected: %s", error)


def _read(path: Path) -> dict[str, Any]:
    try:
        return base.object_of(read_key_file(path))
    except OSError:
        return {}


KEY_KINDS = (
    r"creds|(pre-key|session|sender-key-memory|sender-key|app-state-sync-key"
    r"|app-state-sync-version|lid-mapping|device-list|tctoken|identity-key)-.{1,200}"
)
"""The library's own kinds of keys, of versions 6 and 7, as a regular expression."""
FILE_NAME = r"[\x20-\x7e]{1,200}"
"""A regular expression of a key's file: the engine's store takes no other name."""
MOST_KEYS = 200_000
SIZE_LIMIT = 1024**3
"""Bytes of all keys together: no session is larger."""
REMOVED = "removed-keys"
FOREIGN = "session_foreign"
UNREADABLE = f"{REMOVED}/unreadable"


def lost_store(folder: Path) -> str:
    """Return why this folder cannot have a pairing; "" = it may, damaged or not."""
    path = folder / CREDS
    try:
        creds = read_json(read_key_file(path).decode("utf-8"))
    except FileNotFoundError:
        return f"{path} is not there"
    except (OSError, ValueError, RecursionError):
        return ""
    return "" if isinstance(creds, dict) and creds.get("me") else f"{path} holds no pairing"


def read_json(text: str) -> Any:
    """Read JSON as the engine does: NaN and its like are none."""
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def check(folder: base.SessionFolder, paired: bool) -> base.FilesReport:
    """creds.json is the pairing; a key file that broke costs one peer, never the pairing. A pairing
    that is known and not there may come back: a restore or a move is under way."""
    path, raw = folder.path / CREDS, folder.read(CREDS)
    sizes = {name: size for name, size in folder.sizes().items() if name.endswith(".json")}
    if raw is None:
        if any(name.startswith(("pre-key-", "session-", "app-state-sync-")) for name in sizes):
            report = base.damaged(path, "it is missing, and its keys are there")
            return report._replace(files=SessionFiles.ABSENT) if paired else report
        return base.FilesReport(SessionFiles.UNPAIRED)
    try:
        creds = read_json(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return base.damaged(path, base.how_broken(raw, error))
    if not isinstance(creds, dict):
        return base.damaged(path, "it is not an object")
    for key in _FIXED:
        if not all(base.inside(creds, key, half) for half in _HALVES):
            return base.damaged(path, f"{key} is missing or no pair of keys")
    if not base.text(base.inside(creds, "me", "id")):
        return base.FilesReport(SessionFiles.UNPAIRED)
    if creds.get("pairingCode") and not creds.get("account"):
        return base.FilesReport(SessionFiles.UNPAIRED)  # a code was asked for, and no device linked
    empty = [name for name, size in sizes.items() if name != CREDS and not size]
    return base.FilesReport(SessionFiles.WHOLE, _broken_keys(folder.path, empty))


def _broken_keys(path: Path, empty: list[str]) -> str:
    if not empty:
        return ""
    more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
    return (
        f"{path / empty[0]}{more}: empty or no file; the engine moves it to {UNREADABLE} when it"
        " reads it, and the contact's next message brings new keys"
    )


def linked(folder: base.SessionFolder) -> base.Linked:
    return linked_of(base.object_of(folder.read(CREDS)))


def linked_of(creds: Any) -> base.Linked:
    """Return the linked device, by the noise key, which is made once when a device is linked."""
    private = base.inside(creds, "noiseKey", "private")
    data = base.inside(private, "data")
    key = data if isinstance(data, str) else text_of(private)
    return base.Linked(account_of(creds), base.sha256(key.encode()) if key else "")


PRE_KEY = "pre-key-"


def lacks_pre_keys(names: Collection[str]) -> str:
    """Return what a store without pre-keys lacks: WhatsApp goes on to hand the lost ones out."""
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
    for place, fits in ((folder, Path.is_dir), (path, Path.is_file)):
        if place.is_symlink() or (place.exists() and not fits(place)):
            words = f"cannot log in: {place} is a symbolic link, or not what belongs there"
            raise errors.EngineError(words, code="session_unreadable")
    try:
        creds = read_json(read_key_file(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    found = linked_of(creds).account
    if not found or not creds.get("account"):
        return  # no device is linked yet
    base.refuse_other(path, found, account)
    mark, whose = read_mark(folder)
    if mark == fixed_mark(creds):
        return  # as WhatsApp took them last
    if mark and not (account and whose and whose != account):  # else the note is another session's
        which = changed_fields(folder, creds)
        raise errors.EngineError(
            f"cannot log in: {path} was changed or replaced since WhatsApp took it last"
            f"{f', in {which}' if which else ''} (if that was meant, remove {NOTE} beside it)",
            code=FOREIGN,
        )
    if fault := key_fault(creds):
        why = f"cannot log in: {path} is damaged: {fault}"
        raise errors.EngineError(why, code="session_damaged")


RULES = base.FileRules(
    check,
    lost_store,
    key_based=True,
    left_out=frozenset({REMOVED, NOTE}),
    moves_aside=lambda path: path != CREDS and bool(re.fullmatch(rf"({KEY_KINDS})\.json", path)),
    check_login=check_login,
    lacks=lacks_pre_keys,
    linked=linked,
)


def read_key_file(path: Path) -> bytes:
    """Read a key's file, never through a link: the folder may belong to another user."""
    with files.open_plain(path) as file:
        return file.read()
