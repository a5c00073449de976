"""A program's session folder: a library's own files, where it is known, else what it is. Standard
library only."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.words import SUSPECT, SessionFiles
from agent.engines.baileys.creds import CREDS
from agent.engines.baileys.files import RULES as BAILEYS
from agent.engines.baileys.files import read_json, read_key_file
from agent.engines.files import FileRules, FilesReport, Linked, SessionFolder
from agent.engines.program.note import NOTE, lies_elsewhere, session_place
from agent.engines.web.files import MADE_BY_BROWSER, check_profile, has_pairing
from agent.errors import EngineError

_LOCAL_AUTH = re.compile(r"session(-.*)?")
"""The folders that LocalAuth of whatsapp-web.js makes below its own."""


@dataclass(frozen=True, slots=True)
class _Inner:
    """A folder in the session's."""

    outer: SessionFolder
    name: str

    @property
    def path(self) -> Path:
        return self.outer.path / self.name

    def read(self, name: str) -> bytes | None:
        return self.outer.read(f"{self.name}/{name}")

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        return self.outer.sizes(f"{self.name}/{inner}" if inner else self.name)


def keys_in(folder: SessionFolder) -> SessionFolder | None:
    """Where Baileys' useMultiFileAuthState keeps its session: where its note says, in the folder
    itself, or one down."""
    names = folder.sizes()
    if CREDS in names:
        return folder
    down = [name for name in sorted(names) if not name.endswith(".json")]
    told = [place] if (place := session_place(folder.read(NOTE))) else []
    inner = (_Inner(folder, name) for name in (*told, *down))
    return next((its for its in inner if CREDS in its.sizes()), None)


def profile_in(folder: SessionFolder) -> str:
    """The browser's profile that LocalAuth of whatsapp-web.js keeps: where its note says, else a
    folder `session` or `session-ID` in the folder itself or one down; "" = there is none."""
    outer = ["", *(name for name in sorted(folder.sizes()) if not name.endswith(".json"))]
    found = [session_place(folder.read(NOTE))]
    for place in outer:
        found += [
            f"{place}/{name}".removeprefix("/")
            for name in sorted(folder.sizes(place))
            if _LOCAL_AUTH.fullmatch(name)
        ]
    return next((place for place in found if place and "Default" in folder.sizes(place)), "")


def check(folder: SessionFolder, paired: bool) -> FilesReport:
    if not set(folder.sizes()) - {NOTE}:
        elsewhere = lies_elsewhere(folder.read(NOTE))
        return FilesReport(SessionFiles.WHOLE if elsewhere else SessionFiles.UNPAIRED)
    if (keys := keys_in(folder)) is not None:
        return BAILEYS.check(keys, paired)
    if profile := profile_in(folder):
        return check_profile(folder, profile)
    return FilesReport(SessionFiles.WHOLE)


def lost_store(folder: Path) -> str:
    """Why this folder cannot hold a pairing; "" where it may."""
    try:
        names = {entry.name for entry in folder.iterdir()}
    except FileNotFoundError:
        return f"{folder} is not there"
    except OSError:
        return ""
    if names - {NOTE}:
        profile = _local_auth(folder)
        lost = profile is not None and not has_pairing(profile)
        return f"{profile} holds nothing of WhatsApp" if lost else ""
    try:
        raw = (folder / NOTE).read_bytes() if NOTE in names else None
    except OSError:
        return ""
    return "" if lies_elsewhere(raw) else f"{folder} is empty"


def _local_auth(folder: Path) -> Path | None:
    """As `profile_in`, without the note."""
    try:
        outer = [folder, *(entry for entry in sorted(folder.iterdir()) if entry.is_dir())]
        for place in outer:
            found = (its for its in sorted(place.iterdir()) if _LOCAL_AUTH.fullmatch(its.name))
            if profile := next((its for its in found if (its / "Default").is_dir()), None):
                return profile
    except OSError:
        pass
    return None


def lacks(names: Collection[str]) -> str:
    """Only of Baileys' files is known what they need."""
    own = [name.rpartition("/")[2] for name in names]
    return BAILEYS.lacks(own) if CREDS in own else ""


def linked(folder: SessionFolder) -> Linked:
    keys = keys_in(folder)
    return BAILEYS.linked(keys) if keys is not None else Linked()


def check_login(folder: Path, account: str) -> None:
    """A bot on Baileys takes credentials that it cannot read for none, and writes new ones in their
    place: it is not started on them."""
    try:
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        note = (folder / NOTE).read_bytes() if (folder / NOTE).is_file() else None
    except OSError:
        return
    told = [folder / place] if (place := session_place(note)) else []
    keys = next((place for place in (folder, *told, *inner) if (place / CREDS).exists()), None)
    if keys is None:
        return
    try:
        whole = isinstance(read_json(read_key_file(keys / CREDS).decode("utf-8")), dict)
    except OSError:
        return  # the claims of the next start say what the disk does
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise EngineError(
            f"cannot log in: {keys / CREDS} is damaged, and the program would begin anew over it",
            code="session_damaged",
        )
    BAILEYS.check_login(keys, account)


def refuse_unusable(folder: Path, account: str) -> None:
    """Before each start of a bot whose session is paired: over an empty or damaged store it would
    begin anew."""
    if cause := lost_store(folder):
        raise EngineError(f"the session is paired, and {cause}", code=SUSPECT)
    check_login(folder, account)


RULES = FileRules(
    check,
    lost_store,
    key_based=True,
    left_out=MADE_BY_BROWSER,
    lacks=lacks,
    linked=linked,
    check_login=check_login,
    mark=NOTE,
)
