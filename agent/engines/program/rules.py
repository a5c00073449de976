"""The setting of an instance with the program engine, and its session folder: the files of a known
library, else what it is. Standard library only."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.setting import setting
from agent.core.words import SUSPECT, SessionFiles, parse_instance_id
from agent.engines.baileys import rules
from agent.engines.base import FileRules, FilesReport, Linked, SessionFolder, object_of, read_table
from agent.engines.web.rules import MADE_BY_BROWSER, check_profile, has_pairing
from agent.errors import EngineError, InvalidRequest, VaultError
from agent.files import write_whole


def _name_fault(name: str) -> str:
    try:
        parse_instance_id(name)
    except InvalidRequest:
        return "it must be the name of a [[program]] in agent.toml"
    return ""


@dataclass(frozen=True, slots=True)
class ProgramSettings:
    program: str = setting("", "the [[program]] of agent.toml that runs as it", check=_name_fault)


def read_settings(raw: Mapping[str, Any]) -> ProgramSettings:
    return read_table(ProgramSettings, raw, "program setting")


def needed_address(_settings: ProgramSettings, _folder: Path) -> None:
    """The address that a user's own program connects to is not known."""


# The note beside a program's session: it is paired, and its files lie here or elsewhere.

NOTE = "program.json"


def write_note(folder: Path, account: str, session: str = "", device: str = "") -> None:
    """Note the pairing at the moment when the program reported it. `session`: folder of its files,
    as its library or agent.toml names it; "" = not known. `device`: as in `Linked`."""
    own, place = folder.resolve(), (folder / session).resolve()
    inside = place.is_relative_to(own)
    here = inside and any(entry.name != NOTE for entry in folder.iterdir())
    content: dict[str, Any] = {"version": 1, "account": account, "elsewhere": not here}
    content |= {"device": device} if device else {}
    if session and inside:
        content["session"] = str(place.relative_to(own))
    elif session:
        content["outside"] = str(place)
    with suppress(OSError):  # a full disk: the claims tell it, too
        write_whole(folder / NOTE, json.dumps(content).encode(), mode=folder.stat().st_mode & 0o660)


def lies_elsewhere(raw: bytes | None) -> bool:
    """True if the program is paired by files outside of this folder."""
    return object_of(raw).get("elsewhere") is True


def session_place(raw: bytes | None) -> str:
    """Return where in the folder the session's files are; "" = not told."""
    place = object_of(raw).get("session")
    plain = isinstance(place, str) and not place.startswith("/") and ".." not in place.split("/")
    return str(place) if plain and place != "." else ""


_WORSE = (SessionFiles.WHOLE, SessionFiles.UNPAIRED, SessionFiles.ABSENT, SessionFiles.DAMAGED)
_FIELDS = frozenset({"noiseKey", "signedIdentityKey", "signedPreKey", "registrationId", "me"})
_KEYS = ("pre-key-", "session-", "sender-key-", "app-state-sync-")
"""Beginnings of the names of Baileys' key files, which lie beside its credentials."""
_KEY_FILE = re.compile(rf"(?:{rules.KEY_KINDS})\.json")
_NO_STORE = re.compile(
    r"[^/]\.(?:log(?:\.[0-9]+)?|out|err|txt|csv|zip|gz|jpe?g|png|webp|mp[34]|m4a|ogg|opus|wav"
    r"|mov|mkv|pdf|sock|fifo|pipe)$",
    re.IGNORECASE,
)
_MADE_ANEW = "RemoteAuth"
"""Folder that is made again from its store at each start: damage in it means nothing."""
_LOCAL_AUTH = re.compile(r"session(-.*)?")
"""Folders that LocalAuth of whatsapp-web.js makes below its own."""


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


def _names(folder: SessionFolder, place: str) -> Mapping[str, int]:
    """Return the entries of the folder at this place; none where a file or a link of the program's
    own stands there."""
    try:
        return folder.sizes(place)
    except VaultError as error:
        if error.code not in ("planted", "symlink"):
            raise
        return {}


def _is_baileys(names: Collection[str], raw: bytes | None) -> bool:
    """True if a folder with these files is a store of Baileys, damaged or not. Other programs have
    a `creds.json`, too: a whole one with none of Baileys' fields, and none of its keys beside."""
    if rules.CREDS not in names:
        return False
    try:
        creds = rules.read_json((raw or b"").decode("utf-8"))
    except (ValueError, RecursionError):
        return True
    others = isinstance(creds, dict) and creds and _FIELDS.isdisjoint(creds)
    return not others or any(name.startswith(_KEYS) and name.endswith(".json") for name in names)


def _is_store(folder: SessionFolder, place: str) -> bool:
    names = _names(folder, place)
    return rules.CREDS in names and _is_baileys(names, folder.read(f"{place}/{rules.CREDS}"))


def stores_in(folder: SessionFolder) -> list[SessionFolder]:
    """Where Baileys' useMultiFileAuthState keeps its session: in the folder itself, or where its
    note says; else each folder down that has its file."""
    names = folder.sizes()
    if rules.CREDS in names and _is_baileys(names, folder.read(rules.CREDS)):
        return [folder]
    if (told := session_place(folder.read(NOTE))) and _is_store(folder, told):
        return [_Inner(folder, told)]
    return [_Inner(folder, name) for name in sorted(names) if _is_store(folder, name)]


def profile_in(folder: SessionFolder) -> str:
    """The browser's profile that LocalAuth of whatsapp-web.js keeps: where its note says, else a
    folder `session` or `session-ID` in the folder itself or one down; "" = there is none."""
    told = session_place(folder.read(NOTE))
    found = [] if told.rpartition("/")[2].startswith(_MADE_ANEW) else [told]
    for place in ("", *sorted(folder.sizes())):
        names = sorted(filter(_LOCAL_AUTH.fullmatch, _names(folder, place)))
        found += [f"{place}/{name}".removeprefix("/") for name in names]
    return next((place for place in found if place and "Default" in _names(folder, place)), "")


def check(folder: SessionFolder, paired: bool) -> FilesReport:
    if not set(folder.sizes()) - {NOTE}:
        elsewhere = lies_elsewhere(folder.read(NOTE))
        return FilesReport(SessionFiles.WHOLE if elsewhere else SessionFiles.UNPAIRED)
    if stores := stores_in(folder):
        # Which of several the program uses it alone knows: damage in one is no damage of another.
        reports = [rules.RULES.check(store, paired) for store in stores]
        return min(reports, key=lambda report: _WORSE.index(report.files))
    if profile := profile_in(folder):
        return check_profile(folder, profile)
    return FilesReport(SessionFiles.WHOLE)


def outside(folder: SessionFolder) -> str:
    """Return the place outside of this folder where the session lies: the note's own word, or a
    sentence where the folder has nothing but a note of a pairing elsewhere; "" = it lies here."""
    note = folder.read(NOTE)
    place = object_of(note).get("outside")
    if isinstance(place, str) and place.startswith("/"):
        return place[:300]
    alone = lies_elsewhere(note) and not set(folder.sizes()) - {NOTE}
    return "a place outside of its folder" if alone else ""


def lost_store(folder: Path) -> str:
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
        raw = (folder / NOTE).read_bytes() if (folder / NOTE).is_file() else None
    except OSError:
        return ""
    return "" if lies_elsewhere(raw) else f"{folder} is empty"


def _local_auth(folder: Path) -> Path | None:
    """Find the profile as `profile_in` does, without the note."""
    with suppress(OSError):
        for pattern in ("session*/Default", "*/session*/Default"):
            for default in sorted(folder.glob(pattern)):
                if _LOCAL_AUTH.fullmatch(default.parent.name) and default.is_dir():
                    return default.parent
    return None


def lacks(names: Collection[str]) -> str:
    """Only of Baileys' stores is known what they need. A `creds.json` without any other of its keys
    is one where nothing else in the folder, and no other session, may be what the program uses."""
    found = defaultdict(list)
    for path in names:
        place, _, name = path.rpartition("/")
        found[place].append(name)
    stores = {}
    for place, files in found.items():
        keys = [name for name in files if _KEY_FILE.fullmatch(name)]
        if rules.CREDS in keys and (len(keys) > 1 or len(files) == 1):
            stores[place] = rules.RULES.lacks(keys)
    used = "" in stores.values() or any("Default" in path.split("/") for path in names)
    return "" if used else next(iter(stores.values()), "")


def moves_aside(path: str) -> bool:
    """True for names of logs and media: a link, a pipe or an odd file by such a name is no
    pairing."""
    return _NO_STORE.search(path) is not None and "Default" not in path.split("/")


def linked(folder: SessionFolder) -> Linked:
    stores = stores_in(folder)
    if len(stores) == 1:
        return rules.RULES.linked(stores[0])
    # As its library reported the last connection.
    note = object_of(folder.read(NOTE))
    account, device = note.get("account"), note.get("device")
    known = isinstance(account, str) and isinstance(device, str)
    return Linked(str(account), str(device)) if known else Linked()


def not_of(folder: SessionFolder, account: str) -> list[str]:
    """Return the names that are no part of this account's pairing. With several stores only this
    account's is part of it; where no store is known, any file may be."""
    names = set(folder.sizes()) - {NOTE}
    stores = stores_in(folder)
    if rules.CREDS in names and stores[:1] == [folder]:
        return sorted(name for name in names if not _KEY_FILE.fullmatch(name))
    places = [store.name for store in stores if isinstance(store, _Inner)]
    accounts = {place: rules.RULES.linked(_Inner(folder, place)).account for place in places}
    if len(places) > 1:
        places = [place for place in places if accounts[place] == account]
    elif profile := profile_in(folder) if not places else "":
        places = [profile]
    elif not places:
        return []
    return sorted(names - {place.partition("/")[0] for place in places})


def check_login(folder: Path, account: str) -> None:
    """A bot on Baileys takes credentials that it cannot read for none, and writes new ones in their
    place: it is not started on them."""
    try:
        inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        note = (folder / NOTE).read_bytes() if (folder / NOTE).is_file() else None
    except OSError:
        return
    told = folder / session_place(note)
    sure = next((place for place in (folder, told) if (place / rules.CREDS).exists()), None)
    places = [sure] if sure else [place for place in inner if (place / rules.CREDS).exists()]
    refused = None
    for place in places:
        try:
            _check_store(place, account)
        except EngineError as error:
            refused = refused or error
        else:
            return  # which of several the program uses it alone knows
    if refused is not None:
        raise refused


def _check_store(keys: Path, account: str) -> None:
    try:
        raw = rules.read_key_file(keys / rules.CREDS)
        if not _is_baileys({entry.name for entry in keys.iterdir()}, raw):
            return
        whole = isinstance(rules.read_json(raw.decode("utf-8")), dict)
    except OSError:
        return  # the claims of the next start say what the disk does
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise EngineError(
            f"cannot log in: {keys / rules.CREDS} is damaged, and the program would begin again"
            " over it",
            code="session_damaged",
        )
    rules.RULES.check_login(keys, account)


def refuse_unusable(folder: Path, account: str) -> None:
    """Before each start of a bot whose session is paired: over an empty or damaged store it would
    begin again."""
    if cause := lost_store(folder):
        raise EngineError(f"the session is paired, and {cause}", code=SUSPECT)
    check_login(folder, account)


RULES = FileRules(
    check,
    lost_store,
    key_based=True,
    outside=outside,
    foreign=True,
    left_out=MADE_BY_BROWSER,
    lacks=lacks,
    linked=linked,
    not_of=not_of,
    moves_aside=moves_aside,
    check_login=check_login,
)
