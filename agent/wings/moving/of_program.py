"""What a program keeps beside its session: it goes along while another engine has the session, and
is where it was when the program gets it back."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath

from agent.engines.baileys.files import KEY_KINDS
from agent.engines.program.note import NOTE

KEPT = "of_program"
"""A folder beside the other engine's own files; the engine leaves it alone."""
_FILES, _PLACE = "files", "place"
_KEY_FILE = re.compile(rf"({KEY_KINDS})\.json")


def keep_keys(copy: Path, place: Path, session: Path) -> None:
    """`place`: the folder in the copy of the program's session with the keys of Baileys."""
    _keep(copy, place, session, lambda path: path.parent == place and is_key(path.name))


def keep_profile(copy: Path, profile: Path, session: Path) -> None:
    _keep(copy, profile, session, lambda path: path == profile)


def is_key(name: str) -> bool:
    return _KEY_FILE.fullmatch(name) is not None


def give_back(copy: Path, session: Path) -> str:
    """Where the program had its session, "." = in the folder itself, "" = not known; its other
    files are in `session` again."""
    kept = copy / KEPT
    if not (kept / _FILES).is_dir():
        return ""
    shutil.copytree(kept / _FILES, session, dirs_exist_ok=True)
    place = (kept / _PLACE).read_text() if (kept / _PLACE).is_file() else ""
    return place if place == "." or is_inner(place) else ""


def is_inner(place: str) -> bool:
    """A way down from the session's folder."""
    path = PurePath(place)
    return place not in ("", ".") and not path.is_absolute() and ".." not in path.parts


def _keep(copy: Path, place: Path, session: Path, is_session: Callable[[Path], bool]) -> None:
    def left_out(folder: str, names: list[str]) -> list[str]:
        here = Path(folder)
        own = [name for name in names if here == copy and name in (NOTE, KEPT)]
        return own + [name for name in names if is_session(here / name)]

    kept = session / KEPT
    shutil.copytree(copy, kept / _FILES, ignore=left_out)
    (kept / _PLACE).write_text(os.path.relpath(place, copy))
