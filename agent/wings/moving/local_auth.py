"""Import a whatsapp-web.js LocalAuth folder, and export one: files only, nothing runs.

LocalAuth keeps `session` or `session-<clientId>`, a browser's profile like this engine's, so a move
(and back) needs no scan.
"""

import os
import re
import shutil
import stat
from pathlib import Path

from agent.engines.web.files import MADE_BY_BROWSER, NOTE, has_pairing, profile_path
from agent.engines.web.profile.folder import LOCKS, Lock, holder, read_lock
from agent.errors import InvalidRequest, Refused, VaultError
from agent.files import put_in_place, replace_folder, sync

_CLIENT = re.compile(r"[-_A-Za-z0-9]{1,64}")
_LEFT_BEHIND = MADE_BY_BROWSER | {*LOCKS, "Safe Browsing"}

SIZE_LIMIT = 4 * 1024**3


def find_local_auth(path: Path) -> Path:
    """The one profile at `path`: itself, or in it; Refused when it has to be named."""
    if has_pairing(path):
        return path
    try:
        entries = [entry for entry in path.iterdir() if entry.name.startswith("session")]
        profiles = sorted(filter(has_pairing, entries))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror}", field="path") from error
    if not profiles:
        raise InvalidRequest(
            f"cannot import {path}: neither it nor a session folder in it holds a pairing"
            " (Default/IndexedDB)",
            field="path",
            code="no_session",
        )
    if len(profiles) > 1:
        names = ", ".join(profile.name for profile in profiles[:20])
        raise Refused(f"cannot import {path}: name one of {names}", code="several_sessions")
    return profiles[0]


def import_local_auth(source: Path, session: Path) -> int:
    """Copy it into an instance's session folder; the bytes copied. The source stays as it is."""
    profile = find_local_auth(source)
    refuse_open(profile)
    target = profile_path(session)
    if os.path.lexists(target):
        raise Refused(f"cannot import into {session}: there is a profile already", code="exists")
    return _copy_whole(profile, target)


def export_local_auth(
    session: Path, target: Path, client_id: str = "", *, replace: bool = False
) -> Path:
    """Write `target`/session[-client_id] in LocalAuth's form; the folder made. `replace`: a folder
    of that name is moved aside, never deleted."""
    if client_id and not _CLIENT.fullmatch(client_id):
        raise InvalidRequest(
            f"cannot use client id {client_id!r:.80}: letters, digits, - and _ only", field="client"
        )
    source = profile_path(session)
    if not has_pairing(source):
        raise Refused(f"cannot export {session}: it holds no pairing", code="no_session")
    if read_lock(source) is Lock.LIVE:
        raise Refused(f"cannot export {session}: stop the instance first", code="profile_in_use")
    folder = target / (f"session-{client_id}" if client_id else "session")
    if os.path.lexists(folder):
        if not replace:
            raise Refused(
                f"cannot export to {folder}: it exists; --force moves it aside", code="exists"
            )
        refuse_open(folder, "replace")
    target.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    _copy_whole(source, fresh)
    try:
        replace_folder(fresh, folder)
    except OSError as error:
        raise VaultError(f"cannot write {folder}: {error}") from error
    return folder


def refuse_open(profile: Path, verb: str = "import") -> None:
    """Two browsers with one session throw each other out."""
    if read_lock(profile) is not Lock.LIVE:
        return
    pid = holder(profile)
    browser = f"process {pid}" if pid else "of another machine or user"
    raise Refused(
        f"cannot {verb} {profile}: a browser ({browser}) has it open; stop it first",
        code="profile_in_use",
    )


def forget_note(session: Path) -> None:
    """A note about another profile is none about this one."""
    (session / NOTE).unlink(missing_ok=True)


def _copy_whole(source: Path, target: Path) -> int:
    """All of it under its final name, or nothing."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        size = _copy(source, part, 0)
        put_in_place(part, target)
    except OSError as error:
        raise VaultError(f"cannot copy {source}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return size


def _copy(source: Path, target: Path, size: int) -> int:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.name in _LEFT_BEHIND:
                continue
            kind = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(kind.st_mode):
                size = _copy(Path(entry.path), target / entry.name, size)
            elif stat.S_ISREG(kind.st_mode):
                size += kind.st_size
                if size > SIZE_LIMIT:
                    raise VaultError(f"cannot copy {source}: more than {SIZE_LIMIT} bytes")
                _copy_file(Path(entry.path), target / entry.name)
            # Links, sockets and devices are no part of a session.
    sync(target)
    return size


def _copy_file(source: Path, target: Path) -> None:
    read = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(read, "rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())
    target.chmod(0o600)
