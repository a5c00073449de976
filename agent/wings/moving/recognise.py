"""What a source is: a folder or a JSON file, recognised by what it holds."""

from dataclasses import dataclass
from pathlib import Path

from agent.cli.copies.transfer import open_source
from agent.errors import InvalidRequest
from agent.vault.archives.found import FoundSession
from agent.wings.moving.folders import find_in_folder, read_folder
from agent.wings.moving.json_file import find_in_json, read_json
from agent.wings.moving.session import Keys

KINDS = (
    "a folder of Baileys keys (creds.json), Evolution API 1.8's instances/ or WAHA's NOWEB folder,"
    " and a JSON file with the credentials and keys of one session, as Evolution API 2 and"
    " whaticket store them"
)


@dataclass(frozen=True, slots=True)
class Hints:
    """What a source cannot tell by itself."""

    keys: str = ""
    """Where the keys lie that a JSON file lacks: a folder or another JSON file."""
    stopped: bool = False
    """A person says that the sessions' program is stopped, whatever seems to use them."""


def find_sessions(source: str, hints: Hints) -> list[FoundSession]:
    """Every session of the source; InvalidRequest where nothing there is a session."""
    sessions = _look_in(source, hints)
    if not sessions:
        raise InvalidRequest(
            f"cannot import {shown(source)}: it holds no session; known are {KINDS}",
            field="source",
            code="no_session",
        )
    if not hints.stopped:
        sessions = [session.refused_while_used for session in sessions]
    return sorted(sessions, key=lambda session: (session.program, session.name))


def _look_in(source: str, hints: Hints) -> list[FoundSession]:
    if "://" in source:
        scheme = source.partition(":")[0]
        raise InvalidRequest(
            f"cannot import from {scheme}://: write the session into a JSON file first; known are"
            f" {KINDS}",
            field="source",
            code="unknown",
        )
    path = Path(source)
    if path.is_dir():
        return find_in_folder(path)
    if not head_of(path).lstrip().startswith(b"{"):
        return []
    return [find_in_json(path, _keys_at(hints.keys))]


def head_of(path: Path) -> bytes:
    with open_source(path, "source") as file:
        return file.read(4096)


def _keys_at(place: str) -> Keys:
    if not place:
        return {}
    path = Path(place)
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise InvalidRequest(
            f"cannot read {place}: no such file or folder", field="keys", code="unreadable"
        )
    return read_json(path)


def shown(source: str) -> str:
    """A source without its password."""
    scheme, separator, rest = source.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if separator else source
