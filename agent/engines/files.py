"""The rules of an engine's session files: what a whole session is, and what a copy needs. Standard
library only: the vault asks these rules, and the worker before it starts an engine."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.core.words import SessionFiles

try:
    # hashlib would bring OpenSSL into every worker: half a megabyte.
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:  # another Python names it otherwise
    from hashlib import sha256 as _sha256


@dataclass(frozen=True, slots=True)
class FilesReport:
    files: SessionFiles
    problem: str = ""
    """What is wrong and where, for people."""
    identity_fault: str = ""
    """Why the identity file must be written again: it is missing, damaged or of another engine; ""
    = it need not be, or the folder cannot be written."""


class SessionFolder(Protocol):
    """An open session folder. It follows no link and reads regular files of a bounded size."""

    @property
    def path(self) -> Path: ...

    def read(self, name: str) -> bytes | None:
        """The content of a file in it; None: the file is missing."""

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        """The names in the folder at this path below it, with their sizes (0: a link or pipe); {} =
        a missing folder."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The linked device that a session's files are."""

    account: str = ""
    device: str = ""
    """The same in each copy of the session and in no other one; "" = the files do not tell."""


@dataclass(frozen=True, slots=True)
class FileRules:
    """The rules of one engine's session folder."""

    check: Callable[[SessionFolder, bool], FilesReport]
    """Takes the folder, and whether the record says that a phone is paired."""
    lost_store: Callable[[Path], str]
    """Why this folder cannot hold a pairing; "" = it may. Damaged or unreadable files are there,
    and the engine itself reports them. It changes nothing."""
    key_based: bool = False
    """The keys move on with every message: an older copy cannot read the messages since."""
    left_out: frozenset[str] = frozenset()
    """Names of files and folders that no copy needs."""
    lacks: Callable[[Collection[str]], str] = lambda _paths: ""
    """What a paired session with these files lacks to go on elsewhere; "" = nothing."""
    check_login: Callable[[Path, str], None] = lambda _folder, _account: None
    """EngineError where the session of this account (of the record, "" = not known) must not log
    in with these files: they are another's, or changed."""
    moves_aside: Callable[[str], bool] = lambda _path: False
    """Whether the engine itself moves a link, a pipe or a file of a senseless size at this path
    aside and goes on without it."""
    linked: Callable[[SessionFolder], Linked] = lambda _folder: Linked()
    """The account and the device of these files, as far as they tell."""
    outside: Callable[[SessionFolder], str] = lambda _folder: ""
    """Where its program keeps the session, if not in this folder: a copy would have none of it;
    "" = it is here."""
    foreign: bool = False
    """The files are a program's own: what these rules cannot read or place is no damage."""
    not_of: Callable[[SessionFolder, str], Collection[str]] = lambda _folder, _account: ()
    """The names in the folder that are none of this account's pairing: they stay where it ended."""


def sha256(content: bytes) -> str:
    return str(new_sha256(content).hexdigest())


def new_sha256(content: bytes = b"") -> Any:
    """One that takes more by `update`."""
    return _sha256(content)


def damaged(path: Path, cause: str) -> FilesReport:
    return FilesReport(SessionFiles.DAMAGED, f"cannot use {path}: {cause}")


def how_broken(raw: bytes, error: Exception) -> str:
    if not raw:
        return "it is empty: its writing was cut short"
    if not raw.strip(b"\0"):
        return "it holds zeros only: its writing was cut short"
    return f"it is no session file ({error})"


NO_RULES = FileRules(lambda _folder, _paired: FilesReport(SessionFiles.WHOLE), lambda _folder: "")
"""For an engine that is not in the catalog: whatever lies there is kept as it is."""
