"""Session folders as other programs keep them: whatsapp-web.js' LocalAuth, which is a browser's
profile like ours, and useMultiFileAuthState, which has a file for each key like our store."""

import os
import shutil
import stat
from pathlib import Path
from typing import NoReturn

from agent.core.model import InstanceId
from agent.engines.catalog import file_rules
from agent.engines.web.files import MADE_BY_BROWSER, has_pairing, profile_path
from agent.engines.web.profile.folder import LOCKS, Lock, holder, read_lock
from agent.errors import Refused, VaultError
from agent.files import open_plain, replace_folder
from agent.vault.archives.found import FoundSession

LOCAL_AUTH = "whatsapp-web.js"
SIZE_LIMIT = 4 * 1024**3
_LEFT_BEHIND = MADE_BY_BROWSER | {*LOCKS, "Safe Browsing"}


def local_auths(path: Path) -> list[Path]:
    """The profiles with a pairing: `path` itself, or those in it."""
    if has_pairing(path):
        return [path]
    return sorted(one for one in path.glob("session*") if has_pairing(one))


def look_at_local_auth(profile: Path) -> FoundSession:
    """WhatsApp Web's own database tells no more than when it was written."""
    found = FoundSession(LOCAL_AUTH, profile.name, written=profile.stat().st_mtime)
    try:
        refuse_open(profile, "import")
    except Refused as error:
        return FoundSession(LOCAL_AUTH, profile.name, problem=str(error), code=error.code)
    return found


def refuse_open(profile: Path, verb: str) -> None:
    """Two browsers with one session throw each other out."""
    if read_lock(profile) is Lock.LIVE:
        browser = f"process {pid}" if (pid := holder(profile)) else "of another machine or user"
        words = f"cannot {verb} {profile}: a browser ({browser}) has it open; stop it first"
        raise Refused(words, code="profile_in_use")


def copy_local_auth(profile: Path, session: Path) -> None:
    """Into an empty session folder of ours."""
    refuse_open(profile, "import")
    _copy(profile, profile_path(session))


def export_folder(session: Path, engine: str, id: InstanceId, place: Path, *, force: bool) -> Path:
    """The folder made below `place`; `force`: one of that name is moved aside, never deleted."""
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
        raise VaultError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # half of a session
    return folder


def _copy(source: Path, target: Path) -> None:
    """Links, sockets and devices are no part of a session."""
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
                if (size := size + seen.st_size) > SIZE_LIMIT:
                    raise VaultError(f"cannot copy {source}: more than {SIZE_LIMIT} bytes")
                with open_plain(path) as old, (here / name).open("xb") as new:
                    os.fchmod(new.fileno(), 0o600)
                    shutil.copyfileobj(old, new, 1 << 20)
    except OSError as error:
        raise VaultError(f"cannot copy {source}: {error}") from error


def _fail(error: OSError) -> NoReturn:
    raise error
