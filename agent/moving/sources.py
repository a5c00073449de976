"""Sessions of Baileys' programs: a folder of keys, or one JSON file. Nothing is written there. Each
is read as Baileys' keys, and judged whether it can be moved."""

import base64
import json
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

from msgspec import Meta, ValidationError, convert, defstruct

from agent.cli.client import open_source
from agent.core.model import InstanceId
from agent.engines.baileys import rules
from agent.engines.catalog import file_rules
from agent.engines.web.rules import MADE_BY_BROWSER, has_pairing, profile_path
from agent.engines.web.session import LOCKS, holder
from agent.errors import InvalidRequest, Refused, VaultError, cause_of
from agent.files import open_plain, replace_folder
from agent.vault.archives import FoundSession

Keys = Mapping[str, bytes]
"""Baileys' name of a key ("creds", "pre-key-7", "session-…") → JSON text."""

CREDS = "creds"
_Buffer = defstruct("_Buffer", [("data", Annotated[str, Meta(pattern="^[\\w+/]{43}[\\w+/=]$")])])
_Pair = defstruct("_Pair", [("private", _Buffer), ("public", _Buffer)])
_Number = Annotated[int, Meta(ge=0, lt=2**31)]
_CREDS: list[Any] = [
    *(("noiseKey", _Pair), ("signedIdentityKey", _Pair)),
    ("signedPreKey", defstruct("_SignedPreKey", [("keyPair", _Pair)])),
    *(("registrationId", _Number), ("advSecretKey", str), ("nextPreKeyId", _Number, 1)),
    ("account", dict[str, Any] | None, None),
]
"""Keys of 32 or 33 bytes; 0 is a registrationId: Baileys draws it from 256 values."""
_Creds = defstruct("_Creds", _CREDS)


def look_at(
    program: str, name: str, read: Callable[[], Keys], *, written: float | None, in_use: str = ""
) -> FoundSession:
    """Read a session and judge it. `in_use`: why its program may still run."""
    found = FoundSession(program, name, written=written, in_use=in_use)
    try:
        keys, left_out = _usable(read())
        if CREDS not in keys:
            raise Refused("it holds no credentials (creds)", code="no_session")
        creds: dict[str, Any] = json.loads(keys[CREDS])
    except Refused as error:
        return replace(found, problem=str(error), code=error.code or "no_session")
    except FileNotFoundError:
        problem = "it changes while it is read: stop its program"
        return replace(found, problem=problem, code="in_use")
    except Exception as error:
        cause = getattr(error, "strerror", "") or type(error).__name__  # the text may quote a key
        return replace(found, problem=f"it cannot be read: {cause}", code="unreadable")
    problem, code = _problem(creds, keys)
    linked = rules.linked_of(creds)
    pre_keys = sum(key.startswith(rules.PRE_KEY) for key in keys)
    found = replace(found, account=linked.account, device=linked.device, left_out=left_out)
    found = replace(found, pre_keys=pre_keys, records=len(keys), keys=keys)
    return replace(found, problem=problem, code=code)


def _usable(raw: Keys) -> tuple[dict[str, bytes], Counter[str]]:
    """The keys that can be carried over, and how many of each kind cannot. A contact chooses what
    its records are called and hold: they never keep the pairing from moving."""
    files = Counter(file_name(key) for key in raw if kind_of(key))
    keys: dict[str, bytes] = {}
    left_out: Counter[str] = Counter()
    for key, value in raw.items():
        if not (kind := kind_of(key)):
            continue
        try:
            if not file_name(key) or files[file_name(key)] > 1:
                raise Refused("no file can hold it alone")
            keys[key] = _normal(key, value)
        except Refused:
            if key == CREDS:
                raise
            left_out[kind] += 1
    return keys, left_out


def kind_of(key: str) -> str:
    """ "session", "pre-key", ...; "" for what is none of Baileys' keys."""
    known = re.match(rules.KEY_KINDS, key, re.DOTALL)
    return str(known[1] or (key == CREDS and CREDS) or "") if known else ""


def file_name(key: str) -> str:
    """Return the library's name of a key's file; "" = no file of the engine's is called so."""
    name = key.replace("/", "__").replace(":", "-") + ".json"
    return name if re.fullmatch(rules.FILE_NAME, name) else ""


def without_twins(sessions: Sequence[FoundSession]) -> list[FoundSession]:
    """Refuse all copies of one device: a person knows which one is the newest."""

    def judged(session: FoundSession) -> FoundSession:
        for other in sessions:
            same = session.device and other.device == session.device and other is not session
            if same and other.code in ("", "in_use", "same_name") and not session.problem:
                problem = f"{other.name} is the same linked device, and two programs with one end"
                problem += " each other's connections; import the newest of them alone, by --only"
                return replace(session, problem=problem, code="same_device")
        return session

    return [judged(session) for session in sessions]


def _problem(creds: Mapping[str, Any], keys: Keys) -> tuple[str, str]:
    if not rules.linked_of(creds).account:
        return "its credentials name no account: it was never paired", "not_paired"
    if creds.get("pairingCode") and not creds.get("account"):
        return "a pairing code was asked for, and no phone took it", "not_paired"
    try:
        convert(creds, _Creds)
    except ValidationError as error:
        return f"its credentials are not as Baileys writes them: {error}", "incomplete"
    lacking = rules.lacks_pre_keys(keys)
    return lacking, "no_pre_keys" if lacking else ""


def _normal(key: str, raw: bytes) -> bytes:
    try:
        value = json.loads(raw, object_hook=_with_buffer)
        if value is None:
            raise ValueError("null is no record")
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        words = f"its {key} is damaged: no JSON, or a link, and no link is followed"
        raise Refused(words, code="damaged") from error


def _with_buffer(value: dict[str, Any]) -> dict[str, Any]:
    """Return a Buffer as Baileys 7 reads it, in base64; some programs write numbers."""
    data = value.get("data", value.get("value"))
    if value.get("type") != "Buffer" and value.get("buffer") is not True:
        return value
    if isinstance(data, list) and all(type(number) is int for number in data):
        data = base64.b64encode(bytes(data)).decode()
    return {"type": "Buffer", "data": data}


def write_folder(session: FoundSession, folder: Path) -> None:
    """Write each key as a file into an empty folder."""
    for key, value in session.keys.items():
        with (folder / file_name(key)).open("xb") as file:
            file.write(value)


BAILEYS = "Baileys"
KINDS = (
    "an archive that `wa-agent export` wrote, a folder of whatsapp-web.js (LocalAuth), a folder of"
    " Baileys keys (creds.json) or folders of them, a JSON file with credentials and keys of one"
    " session, as Evolution API 2 and whaticket store them"
)
RECENT = 120.0
"""Seconds since a session's last write within which its program may still run somewhere."""
_DEPTH = 4
"""Levels below the named folder that are looked through."""
_OLD_KINDS = {
    "preKeys": "pre-key",
    "sessions": "session",
    "senderKeys": "sender-key",
    "senderKeyMemory": "sender-key-memory",
    "appStateSyncKeys": "app-state-sync-key",
    "appStateVersions": "app-state-sync-version",
}
"""Old whaticket forks' names of Baileys' kinds of keys in the column `session`."""
_JSON_IN_USE = (
    "its file does not tell whether the program that it was taken from still runs; stop that"
    " program, take the file again, then say so with --stopped"
)


def find_sessions(source: str, *, keys: str = "", stopped: bool = False) -> list[FoundSession]:
    """`keys`: a folder or JSON file with the keys that a JSON file lacks. `stopped`: a person says
    that the sessions' program is stopped."""
    if "://" in source:
        words = f"cannot import from {source.partition(':')[0]}://: write a JSON file first"
        raise InvalidRequest(f"{words}; known are {KINDS}", field="source", code="unknown")
    path = Path(source)
    if path.is_dir():
        sessions, named = [], dict[str, Path]()
        for folder in _folders(path):
            session = _in_folder(folder)
            if not session.problem and (other := named.setdefault(session.name, folder)) != folder:
                words = f"{folder} and {other} have one name; import each by its folder, with an ID"
                session = replace(session, problem=words, code="same_name")
            sessions.append(session)
        if not (sessions or os.access(path, os.R_OK | os.X_OK)):
            words = f"cannot read {path}: Permission denied"
            raise InvalidRequest(words, field="source", code="unreadable")
    else:
        sessions = [_in_json(path, keys)] if head_of(path).lstrip().startswith(b"{") else []
    if not stopped:
        sessions = [session.refused_while_used for session in sessions]
    return sorted(sessions, key=lambda session: session.name)


def head_of(path: Path) -> bytes:
    with open_source(path, "source") as file:
        return file.read(4096)


def _folders(path: Path) -> Iterator[Path]:
    for parent, below, files in os.walk(path):
        here = Path(parent)
        below.sort()
        if f"{CREDS}.json" in files:
            yield here
            below.clear()
        elif len(here.relative_to(path).parts) >= _DEPTH:
            below.clear()


def _in_folder(folder: Path) -> FoundSession:
    place = folder.resolve()
    # Many keep the keys of NAME in NAME/auth.
    name = place.parent.name if place.name == "auth" else place.name
    written, user, in_use = time.time(), "", ""
    with suppress(OSError):  # a key that goes meanwhile: it is written to now
        user = user_of_folder(folder)
        written = max((file.stat().st_mtime for file in _key_files(folder)), default=0.0)
    if user or abs(time.time() - written) < RECENT:
        who = f"{user} uses it" if user else f"a program wrote to it within {RECENT:.0f} s"
        in_use = f"{who}; stop that program, then confirm it with --stopped"
    return look_at(BAILEYS, name, lambda: read_folder(folder), written=written, in_use=in_use)


def read_folder(folder: Path) -> Keys:
    keys: dict[str, bytes] = {}
    size = 0
    for file in _key_files(folder):
        size += file.stat(follow_symlinks=False).st_size
        if size > rules.SIZE_LIMIT or len(keys) >= rules.MOST_KEYS:
            raise Refused("it is larger than any session", code="too_large")
        key, plain = file.name.removesuffix(".json"), file.is_file(follow_symlinks=False)
        keys[key] = rules.read_key_file(Path(file.path)) if plain else b""
    return keys


def _key_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the key files of a bot's folder: its other files are no part of a session."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and kind_of(entry.name.removesuffix(".json")):
                yield entry


def _in_json(path: Path, keys: str) -> FoundSession:
    more = (read_folder if Path(keys).is_dir() else read_json)(Path(keys)) if keys else {}
    written = path.stat().st_mtime
    return look_at(
        "JSON", path.stem, lambda: {**more, **read_json(path)}, written=written, in_use=_JSON_IN_USE
    )


def read_json(path: Path) -> Keys:
    """The keys by Baileys' names, from {"creds": …, "keys": {"preKeys": {…}}} or {"creds": …,
    "pre-key-1": …}. A name may begin as in Redis ("sessions:7:creds"), a value be JSON or a text
    of it."""
    with open_source(path, "source") as file:
        raw = file.read(rules.SIZE_LIMIT + 1)
    if len(raw) > rules.SIZE_LIMIT:
        raise Refused("it is larger than any session", code="too_large")
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused("it is no whole JSON", code="damaged") from error
    if not isinstance(record, dict):
        raise Refused("it is no JSON object", code="damaged")
    start = next((key[: -len(CREDS)] for key in record if key.endswith(f":{CREDS}")), "")
    found = {key.removeprefix(start): value for key, value in record.items()}
    if isinstance(kinds := found.pop("keys", None), Mapping):
        for kind, entries in kinds.items():
            for id, value in entries.items() if isinstance(entries, Mapping) else ():
                found[f"{_OLD_KINDS.get(kind, kind)}-{id}"] = value
    return {key: _text(value) for key, value in found.items()}


def _text(value: Any) -> bytes:
    """Return JSON text; some servers write the text of a JSON text."""
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return str(value).encode("utf-8", "surrogateescape")
    return json.dumps(value).encode()


def user_of_folder(folder: Path) -> str:
    """The process that uses it: one that has a file of it open, or a Node program that runs above
    it, names it or mounts it. A Baileys bot opens each key only while it reads or writes it.

    Files are compared by device and inode: a program in a container names them otherwise."""
    folder = folder.resolve()
    files = _identities(folder.iterdir())
    above = _identities([folder, *list(folder.parents)[:-1]])
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            is_server = (process / "exe").readlink().name.startswith(("node", "bun", "deno"))
            near = is_server and (_identities([process / "cwd"]) & above or _names(process, folder))
            if near or _identities((process / "fd").iterdir()) & files:
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # gone, or another user's
    return ""


def _names(process: Path, folder: Path) -> bool:
    """True if its command line names the folder or what lies beside it, or if a mount of its own
    shows the folder to it."""
    near = folder.parent if len(folder.parts) > 2 else folder
    if os.fsencode(near) in (process / "cmdline").read_bytes():
        return True
    if (process / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
        return False
    lines = os.fsdecode((process / "mountinfo").read_bytes()).splitlines()
    roots = {line.split(" ", 4)[3] for line in lines} - {"/"}
    places = [str(place).replace(" ", "\\040") for place in (folder, *folder.parents)]
    # The root of a mount is a path within its file system: the end of the whole path.
    return any(place.endswith(root) for root in roots for place in places)


def _identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    found = set()
    for path in paths:
        with suppress(OSError, ValueError):  # gone, or another user's
            seen = path.stat()
            found.add((seen.st_dev, seen.st_ino))
    return found


# Session folders as other programs keep them: whatsapp-web.js' LocalAuth, which is a browser's
# profile like ours, and useMultiFileAuthState, which has a file for each key like our store.


LOCAL_AUTH = "whatsapp-web.js"
FOLDER_LIMIT = 4 * 1024**3
_LEFT_BEHIND = MADE_BY_BROWSER | {*LOCKS, "Safe Browsing"}


def local_auths(path: Path) -> list[Path]:
    """Return the profiles with a pairing: `path` itself, or those in it."""
    if has_pairing(path):
        return [path]
    return sorted(one for one in path.glob("session*") if has_pairing(one))


def look_at_local_auth(profile: Path) -> FoundSession:
    """Look at a profile, of which WhatsApp Web's database tells only when it was written."""
    found = FoundSession(LOCAL_AUTH, profile.name, written=profile.stat().st_mtime)
    try:
        refuse_open(profile, "import")
    except Refused as error:
        return FoundSession(LOCAL_AUTH, profile.name, problem=str(error), code=error.code)
    return found


def refuse_open(profile: Path, verb: str) -> None:
    """Refuse a profile that is open: two browsers with one session throw each other out."""
    if (pid := holder(profile)) is not None:
        browser = f"process {pid}" if pid else "of another machine or user"
        words = f"cannot {verb} {profile}: a browser ({browser}) has it open; stop it first"
        raise Refused(words, code="profile_in_use")


def copy_local_auth(profile: Path, session: Path) -> None:
    """Copy a profile into an empty session folder of ours."""
    refuse_open(profile, "import")
    _copy(profile, profile_path(session))


def export_folder(session: Path, engine: str, id: InstanceId, place: Path, *, force: bool) -> Path:
    """Export into a folder below `place`. `force`: an old one is moved aside, never deleted."""
    if problem := file_rules(engine).lost_store(session):
        raise Refused(f"cannot export {id}: {problem}", code="no_session")
    is_web = engine == "web"
    folder = place / (f"session-{id}" if is_web else id)
    if os.path.lexists(folder):
        if not force:
            words = f"cannot export to {folder}: it exists; --force moves it aside"
            raise Refused(words, code="exists")
        if is_web:
            refuse_open(folder, "replace")
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        place.mkdir(parents=True, exist_ok=True)
        _copy(profile_path(session) if is_web else session, fresh)
        os.sync()  # once for a thousand small files
        replace_folder(fresh, folder)
    except OSError as error:
        raise VaultError(f"cannot write {folder}: {cause_of(error)}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # half of a session
    return folder


def _copy(source: Path, target: Path) -> None:
    """Copy a folder without links, sockets and devices: they are no part of a session."""
    size = 0
    try:
        for parent, below, files in os.walk(source, onerror=_fail):
            here = target / Path(parent).relative_to(source)
            here.mkdir(mode=0o700)
            below[:] = set(below) - _LEFT_BEHIND  # it follows no link
            for name in set(files) - _LEFT_BEHIND:
                path = Path(parent, name)
                if not stat.S_ISREG((seen := path.lstat()).st_mode):
                    continue
                if (size := size + seen.st_size) > FOLDER_LIMIT:
                    raise VaultError(f"cannot copy {source}: more than {rules.SIZE_LIMIT} bytes")
                with open_plain(path) as old, (here / name).open("xb") as new:
                    os.fchmod(new.fileno(), 0o600)
                    shutil.copyfileobj(old, new, 1 << 20)
    except OSError as error:
        raise VaultError(f"cannot copy {error.filename or source}: {cause_of(error)}") from error


def _fail(error: OSError) -> NoReturn:
    raise error
