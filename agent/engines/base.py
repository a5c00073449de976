"""An engine translates between one WhatsApp session and its worker, and has rules of its settings
and of its session files. Deadlines belong to the worker, verdicts to the core. Standard library
only: each worker has it in memory; configuration and vault ask the rules.
"""

import json
import logging
import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from agent.core.setting import read_value, settings_of
from agent.core.words import Address, Claim, Happening, SessionFiles
from agent.errors import ConfigError, EngineError

try:
    # hashlib would bring OpenSSL into every worker: half a megabyte.
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:  # another Python names it otherwise
    from hashlib import sha256 as _sha256

T = TypeVar("T")
log = logging.getLogger(__name__)

IN_CHAT = ("typing", "recording", "paused")
PRESENCES = (*IN_CHAT, "available", "unavailable")
"""Presences that a session can show; those of IN_CHAT in one chat."""


@dataclass(frozen=True, slots=True)
class Qr:
    """A code to scan with the phone. Its text is a secret."""

    text: str = field(repr=False)
    expires_in: float
    """Seconds until WhatsApp replaces the code."""
    number: int
    """Number of the code in this login."""


class ProbeAnswer(NamedTuple):
    """Answer of an engine that has really asked its session."""

    claim: Claim
    detail: Mapping[str, Any]


class Keeper(Protocol):
    """Keeps what arrives in a session: messages, reactions, calls, states of messages sent."""

    @property
    def keeps(self) -> bool:
        """True if what arrives is kept; if not, no record need be made."""

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Return when all that arrived is on the disk, or was there before by its `id`. EngineError
        `not_kept` where it cannot be: WhatsApp may not hear then that it was taken."""


async def keep_usable(keeper: Keeper, records: Sequence[Mapping[str, Any]]) -> None:
    """Keep records, but leave out one that can never be kept: it would hold up all others."""
    try:
        await keeper.keep(records)
    except EngineError as error:
        if error.code != "bad_record":
            raise
        if len(records) == 1:
            # Not with what it says, which may name a contact.
            kind = records[0].get("kind")
            log.error("a record of what arrived is malformed, and left out (%.40s)", kind)
            return
        for each in records:
            await keep_usable(keeper, [each])


class KeepsNothing:
    """A Keeper of an agent that keeps no messages."""

    keeps = False

    async def keep(self, records: Sequence[Mapping[str, Any]]) -> None: ...


class Reporter(Keeper, Protocol):
    """An engine reports by these; each call returns at once, but for `keep`."""

    def claim(self, claim: Claim) -> None: ...

    def happened(self, happening: Happening) -> None: ...

    def progress(self) -> None:
        """Note that a save made a step: its time limit starts again."""

    def crashed(self, error: BaseException) -> None:
        """End the worker: background work of the engine ended with an unexpected error."""


class Engine(Protocol):
    """One session. `EngineError` says why something could not be done."""

    async def connect(self) -> None:
        """Begin to connect with what the folder holds; the claims tell how it goes."""

    async def disconnect(self) -> None: ...

    async def probe(self, *, deep: bool = False) -> ProbeAnswer:
        """Ask the session; `EngineError` means: the engine lives, its session does not answer."""

    async def qr(self) -> Qr | None:
        """Return the code to scan now; None if there is none or none is needed."""

    async def send(self, message: Mapping[str, Any]) -> Mapping[str, Any]: ...

    async def mark_read(self, asked: Mapping[str, Any]) -> None:
        """Let the author of messages know that they were read: `chat`, `message_ids`, and in a
        group `sender`, who wrote them. Returns when WhatsApp has it."""

    async def presence(self, asked: Mapping[str, Any]) -> None:
        """Show `state` (one of PRESENCES) to the `chat`, or to all without a chat, for this number
        of `seconds`; 0 = as long as phones show it by themselves."""

    async def logout(self) -> None:
        """End the pairing at WhatsApp's side; the session's files stay for the vault."""

    async def regenerate_keys(self, peers: list[str]) -> None: ...

    async def free_memory(self) -> None: ...

    async def prepare_stop(self) -> None:
        """Take on no new work; a stop is near."""

    async def save(self) -> None:
        """Return when all that must outlive this process is on the disk."""

    async def close(self) -> None: ...

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what only this engine can do (the sandbox's `scan` and `fault`)."""


class LoadsMedia(Protocol):
    """An engine that can load the file of a message that came."""

    def load_media(self, record: Mapping[str, Any]) -> AsyncGenerator[bytes, None]:
        """The file of the record, which has its `_media`, in pieces of some hundred kilobytes; the
        caller compares its hash. EngineError `media_gone`: WhatsApp and the phone have it no more;
        `media_damaged`, `media_refused` (its address is not WhatsApp's), `media_unreachable`."""


DECLARED = "[declared]"
"""Among the settings that an engine is opened with: what agent.toml declares for it. The settings
of an instance, which its creator chose, cannot have this name."""

OpenEngine = Callable[[Path, Mapping[str, Any], Reporter], Engine]
"""Each local engine's module `engine` has an `open_engine` of this type: folder, settings,
reporter."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def read_table(kind: type[T], raw: Mapping[str, Any], words: str) -> T:
    """The settings dataclass `kind` out of a raw table; ConfigError names the wrong setting."""
    plain = kind()
    marks = {field.name: mark for field, mark in settings_of(plain)}
    values = {}
    for key, value in raw.items():
        if key not in marks:
            raise wrong(words, key, f"unknown, known are {', '.join(marks)}")
        default = getattr(plain, key)
        # A phone number on a command line is read as a whole number.
        given = str(value) if isinstance(default, str) and type(value) is int else value
        try:
            values[key] = read_value(given, default, marks[key])
        except ValueError as error:
            raise wrong(words, key, str(error)) from error
    return kind(**values)


def wrong(words: str, key: str, fault: str) -> ConfigError:
    return ConfigError(f"cannot use {words} {key!r:.60}: {fault}", field=key)


def server_fault(url: str, secure: str, plain: str) -> str:
    """Return why WhatsApp cannot be asked at this address: `plain` text leaves no machine."""
    if (parts := _split(url)) is not None and parts.hostname and "@" not in parts.netloc:
        safe = parts.scheme == secure or (parts.scheme == plain and parts.hostname in _LOOPBACK)
        if safe:
            return ""
    return f"it must be {secure}://HOST, or {plain}://HOST on loopback"


def proxy_fault(proxy: str) -> str:
    parts, schemes = _split(proxy), ("http", "https", "socks5")
    good = parts is not None and parts.scheme in schemes and parts.hostname and not parts.path
    fault = "it must be http://, https:// or socks5:// with host and port"
    return "" if good or not proxy else fault


def device_name_fault(name: str) -> str:
    return "it must have at most 50 characters" if len(name) > 50 else ""


def address_of(url: str, proxy: str) -> Address:
    """Return the address that a client which connects to `url` must reach first."""
    parts = urlsplit(url)
    scheme = "http" if parts.scheme in ("http", "ws") else "https"
    return Address(f"{scheme}://{parts.netloc}/", proxy)


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts


class Finding(NamedTuple):
    """A reason why an engine cannot work on this machine, and its cure."""

    code: str
    sentence: str
    cure: str
    serious: bool = True
    """False if the engine works, only less well."""


def cache_folder() -> Path:
    """Return the folder of what can be fetched again: the machine's, else beside the sessions."""
    if named := os.environ.get("WA_CACHE_PATH") or os.environ.get("CACHE_PATH"):
        return Path(named)
    return Path(os.environ.get("WA_SESSION_ROOT", ".state/sessions")).absolute().parent / "cache"


def probe_limit() -> float:
    """Return seconds for a shallow question, so that the watchdog hears an answer, good or bad."""
    try:
        watchdog = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        watchdog = 0.0
    return min(3.0, watchdog * 0.35) if watchdog else 3.0


def in_path(name: str, path: str | None = None) -> str | None:
    """Find a program as shutil.which(), whose module brings three compressors into a worker."""
    path = "" if "/" in name else path or os.environ.get("PATH", os.defpath)
    found = (Path(folder) / name for folder in path.split(":"))
    return next((str(it) for it in found if os.access(it, os.X_OK) and it.is_file()), None)


def inside(raw: Any, *keys: str) -> Any:
    """Return the value below these keys; None if one of them is missing."""
    for key in keys:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def object_of(raw: bytes | str | None) -> dict[str, Any]:
    """Return the JSON object in `raw`; {} for anything else."""
    try:
        found = json.loads(raw or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def text(raw: Any, most: int = 200) -> str:
    """Return the text; "" for any other value."""
    return raw[:most] if isinstance(raw, str) else ""


def whole(raw: Any) -> int | None:
    return raw if type(raw) is int else None


def moment(raw: Any) -> float:
    """Return the Unix time of an ISO time; 0.0 for any other value."""
    try:
        return datetime.fromisoformat(raw).timestamp() if isinstance(raw, str) else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0


class FilesReport(NamedTuple):
    files: SessionFiles
    problem: str = ""
    """Words for people: what is wrong, and where."""
    identity_fault: str = ""
    """Why the identity file must be written again: it is missing, damaged or of another engine; ""
    = it need not be, or the folder cannot be written."""


class SessionFolder(Protocol):
    """An open session folder. It follows no link and reads regular files of a bounded size."""

    @property
    def path(self) -> Path: ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a file in the folder; None: the file is missing."""

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        """The names in the folder at this path below it, with their sizes (0: a link or pipe); {} =
        a missing folder."""


class Linked(NamedTuple):
    """The linked device that a session's files are."""

    account: str = ""
    device: str = ""
    """A word that each copy of the session has, and no other one; "" = the files do not tell."""


class FileRules(NamedTuple):
    """The rules of one engine's session folder."""

    check: Callable[[SessionFolder, bool], FilesReport]
    """Takes the folder, and whether the record says that a phone is paired."""
    lost_store: Callable[[Path], str]
    """Why this folder cannot hold a pairing; "" = it may. Damaged or unreadable files are there,
    and the engine itself reports them. It changes nothing."""
    key_based: bool = False
    """True if keys move on with every message: an older copy cannot read the messages since."""
    left_out: frozenset[str] = frozenset()
    """Names of files and folders that no copy needs."""
    lacks: Callable[[Collection[str]], str] = lambda _paths: ""
    """Returns what a paired session with these paths lacks to go on elsewhere; "" = nothing."""
    check_login: Callable[[Path, str], None] = lambda _folder, _account: None
    """EngineError where the session of this account (of the record, "" = not known) must not log
    in with these files: they are another's, or changed."""
    moves_aside: Callable[[str], bool] = lambda _path: False
    """True if the engine itself moves a link, a pipe or a file of a senseless size at this path
    aside and goes on without it."""
    linked: Callable[[SessionFolder], Linked] = lambda _folder: Linked()
    """Returns the account and the device of these files, as far as they tell."""
    outside: Callable[[SessionFolder], str] = lambda _folder: ""
    """Where its program keeps the session, if not in this folder: a copy would have none of it;
    "" = it is here."""
    foreign: bool = False
    """True if the files are a program's own: what these rules cannot read or place is no damage."""
    not_of: Callable[[SessionFolder, str], Collection[str]] = lambda _folder, _account: ()
    """The names in the folder that are none of this account's pairing: they stay where it ended."""


def refuse_other(path: Path, found: object, account: str) -> None:
    """EngineError `session_foreign` where the session of this account (of the record, "" = not
    known) must not log in, as the file names another one."""
    if account and isinstance(found, str) and found not in ("", account):
        words = f"cannot log in: {path} is of the account …{found[-4:]}, and this session"
        raise EngineError(f"{words} was linked to …{account[-4:]}", code="session_foreign")


new_sha256: Any = _sha256
"""Makes a hash that takes more by `update`."""


def sha256(content: bytes) -> str:
    return str(_sha256(content).hexdigest())


def damaged(path: Path, cause: str) -> FilesReport:
    return FilesReport(SessionFiles.DAMAGED, f"cannot use {path}: {cause}")


def how_broken(raw: bytes, error: Exception) -> str:
    if not raw:
        return "it is empty: its writing was cut short"
    if not raw.strip(b"\0"):
        return "it holds zeros only: its writing was cut short"
    return f"it is no session file ({error})"


NO_RULES = FileRules(lambda _folder, _paired: FilesReport(SessionFiles.WHOLE), lambda _folder: "")
"""Rules of an engine that is not in the catalog: whatever lies there is kept as it is."""
