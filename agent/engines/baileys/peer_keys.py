"""The keys of single peers in a session's folder: which files they are, and put aside."""

import json
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent import errors, files, redaction
from agent.engines.baileys.rules import KEY_KINDS, REMOVED, UNREADABLE, read_key_file

# Which of a session's keys belong to one peer, by the names that Baileys gives them. The same names
# are files (`/` as `__`, `:` as `-`, `.json` at the end) and Redis suffixes.

_ADDRESS = re.compile(r"(?P<user>\d{1,20})(?:_\d{1,3})?(?:\.\d{1,5})?")
_JID = re.compile(
    r"(?P<user>\d{5,20})(?:_\d{1,3})?(?::(?P<device>\d{1,5}))?@(?P<server>[a-z.]{2,20})"
)
_AGENTS = {"s.whatsapp.net": "", "c.us": "", "lid": "_1", "hosted": "_128", "hosted.lid": "_129"}
"""Server of a JID → the suffix that a Signal address has after the user."""

_USER = r"(?P<user>\d{1,20})(?:_\d{1,3})?"
_OWNED = (
    re.compile(rf"session-{_USER}\.\d{{1,5}}"),
    re.compile(rf"identity-key-{_USER}(?:\.\d{{1,5}})?"),
    re.compile(rf"sender-key-(?!memory-)[^/]{{1,200}}?(?:--|::){_USER}(?:--|::)\d{{1,5}}"),
)


def owns(users: set[str], name: str) -> bool:
    """True if that key is one of these users', of any device and form, and a new handshake replaces
    it. Never creds, pre-keys or app-state keys; nor `sender-key-memory`, the account's own."""
    for pattern in _OWNED:
        if owned := pattern.fullmatch(name):
            return owned["user"] in users
    return False


def user_of(peer: str) -> str:
    """Return the digits of `5511999999999`, `123456789012345_1`, `5511999999999.3`; "" = none."""
    address = _ADDRESS.fullmatch(peer.strip()) or _JID.fullmatch(peer.strip())
    return address["user"] if address else ""


def address_of_jid(jid: str) -> str:
    """Return the Signal address of a JID: `user.device`, of a LID `user_1.device`; "" = a group."""
    parts = _JID.fullmatch(jid)
    if parts is None or parts["server"] not in _AGENTS:
        return ""
    return f"{parts['user']}{_AGENTS[parts['server']]}.{parts['device'] or 0}"


def mappings_of(user: str) -> tuple[str, str]:
    """Return the keys that tell a user's other form: number → LID, and LID → number."""
    return f"lid-mapping-{user}", f"lid-mapping-{user}_reverse"


def with_mapped(users: set[str], mapped: Iterable[object]) -> set[str]:
    """Return the users and their other names by the mappings."""
    more = {user_of(name) for name in mapped if isinstance(name, str)}
    return users | (more - {""})


KEPT = 5
"""Sets of removed keys that stay."""
_SET = re.compile(r"\d{8}T\d{6}Z(?:\.(\d{3,}))?")
_PEERS_ADDRESS = re.compile(
    r"(?:session-|identity-key-|sender-key-(?!memory-).{1,200}?(?:--|::))"
    r"(?P<user>\d{1,20})(?P<domain>_\d{1,3})?(?:(?:\.|--|::)(?P<device>\d{1,5}))?$"
)
_PEERS_KEY = re.compile(r"(session|sender-key|identity-key)-.+\.json")


def unreadable_record(name: str) -> str:
    """Return a sentence about an unreadable record, without its contact's number."""
    key = _key_of(name)
    kind = re.match(KEY_KINDS, key)
    words = f"the key file {kind[1]}-*" if kind and kind[1] else "a key file"
    if peer := peer_of(key):
        words += f" of {redaction.mark_of(peer)}"
    goes_on = "the session goes on without it"
    if peer:
        goes_on = "the contact's next message is asked for again, with new keys"
    return f"{words} could not be read: moved to {UNREADABLE}; {goes_on}"


def peer_of(key: str) -> str:
    """Return the JID whose session or sender key it is; "" for other keys."""
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
            files.sync(changed)
    except OSError as error:
        why = f"cannot put keys aside in {folder / REMOVED}: {error.strerror}"
        raise errors.EngineError(why) from error
    _keep_newest(folder / REMOVED)
    return names


def keys_of(folder: Path, peers: list[str]) -> list[str]:
    """Return the files with keys of these peers: of all their devices, and groups' sender keys."""
    users = _users_of(folder, peers)
    theirs = (it for it in folder.glob("*.json") if owns(users, _key_of(it.name)))
    return sorted(path.name for path in theirs if path.is_file())


def is_stranger(folder: Path, addresses: Iterable[str], group: str) -> bool:
    """True if this session holds no keys of that one device, nor the device's of that group.
    `addresses` are the device's, `user.device` each. A folder may have very many files: it is not
    listed."""
    for address in addresses:
        user, _, device = address.rpartition(".")
        for digits in _users_of(folder, [user]):
            for form in (digits, f"{digits}_1"):
                names = [f"session-{form}.{device}.json"]
                names += [f"sender-key-{group}--{form}--{device}.json"] if group else []
                if any((folder / name).exists() for name in names):
                    return False
    return True


def _new_shelf(shelves: Path, named: str) -> Path:
    """Make a folder for a set: of two sets of one second the later sorts last."""
    taken = [match for path in shelves.glob(f"{named}*") if (match := _SET.fullmatch(path.name))]
    number = max((int(match[1] or 0) + 1 for match in taken), default=0)
    shelf = shelves / (f"{named}.{number:03}" if number else named)
    shelf.mkdir(mode=0o700)
    return shelf


def _users_of(folder: Path, peers: list[str]) -> set[str]:
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
    """Delete older sets. One with other files than peers' keys stays: it was not put aside here."""
    sets = sorted(path for path in shelves.iterdir() if _SET.fullmatch(path.name))
    for old in sets[:-KEPT]:
        with suppress(OSError):  # no failure: the next set tries again
            left = list(old.iterdir())
            if all(_PEERS_KEY.fullmatch(file.name) and not file.is_symlink() for file in left):
                for file in left:
                    file.unlink()
                old.rmdir()
