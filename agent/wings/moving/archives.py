"""Other programs' sessions as our archive, and our archive as other programs' folders.

Another program's session is copied into a folder in our engine's layout and packed, so that every
check of an import holds for it too.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from agent.core.model import InstanceId
from agent.errors import InvalidRequest, Refused, WaError
from agent.vault.archives.found import FoundSession
from agent.vault.archives.scratch import scratch


def look_at_local_auth(path: Path) -> FoundSession:
    """WhatsApp Web's own database says no more than when it was written."""
    from agent.wings.moving.local_auth import find_local_auth, refuse_open

    session = FoundSession("whatsapp-web.js", path.name)
    try:
        profile = find_local_auth(path)
        session = replace(session, name=profile.name, written=profile.stat().st_mtime)
        refuse_open(profile)
    except WaError as error:
        return replace(session, problem=str(error), code=error.code)
    return session


def pack_local_auth(path: Path, id: InstanceId | None, settings: Mapping[str, Any]) -> IO[bytes]:
    """A whatsapp-web.js LocalAuth folder."""
    from agent.wings.moving.local_auth import forget_note, import_local_auth

    def fill(session: Path) -> None:
        import_local_auth(path, session)
        forget_note(session)

    return packed(path, id, "web", fill, settings=settings)


def pack_found(session: FoundSession, id: InstanceId, settings: Mapping[str, Any]) -> IO[bytes]:
    """A session of another program, turned into Baileys' files."""
    from agent.wings.moving.session import write_folder

    def fill(folder: Path) -> None:
        write_folder(session, folder)

    return packed(session.name, id, "baileys", fill, settings=settings, account=session.account)


def packed(
    path: Path | str,
    id: InstanceId | None,
    engine: str,
    fill: Callable[[Path], None],
    *,
    settings: Mapping[str, Any],
    account: str = "",
) -> IO[bytes]:
    """A folder that names no instance, filled in an engine's layout, as our archive."""
    from agent.vault.archives.pack import pack_session

    if id is None:
        raise InvalidRequest(
            f"cannot import {path}: such a folder names no id, give one after it", field="id"
        )
    with scratch() as folder:
        session = folder / "session"
        session.mkdir(mode=0o700)
        fill(session)
        out = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            wall = time.time()
            pack_session(session, id, engine, out, wall=wall, account=account, settings=settings)
        except BaseException:
            out.close()
            raise
    out.seek(0)
    return out


def unpack_local_auth(archive: Path, target: Path, id: InstanceId, replace: bool) -> Path:
    """One of our archives as whatsapp-web.js wants it; the folder made below `target`."""
    from agent.wings.moving.local_auth import export_local_auth

    with _unpacked(archive, id, "web", "whatsapp-web.js") as session:
        return export_local_auth(session, target, id, replace=replace)


def unpack_auth_folder(archive: Path, target: Path, id: InstanceId, replace: bool) -> Path:
    """One of our archives as a plain Baileys bot wants it; the folder made below `target`."""
    from agent.wings.moving.auth_folder import export_auth_folder

    with _unpacked(archive, id, "baileys", "a plain Baileys bot") as session:
        return export_auth_folder(session, target, id, replace=replace)


@contextmanager
def _unpacked(archive: Path, id: InstanceId, engine: str, program: str) -> Iterator[Path]:
    from agent.vault.archives.unpack import unpack_apart
    from agent.vault.archives.untar import Limits

    with scratch() as folder, archive.open("rb") as source:
        session = folder / "session"
        session.mkdir(mode=0o700)
        arrived = unpack_apart(session, source, Limits())
        if arrived.manifest.engine != engine:
            raise Refused(
                f"cannot export {id} to {program}: its engine is"
                f" {arrived.manifest.engine}, not {engine}"
            )
        yield session


Target = Callable[[Path, Path, InstanceId, bool], Path]
"""Writes our archive into a folder in another program's layout; returns the folder."""

TARGETS: Mapping[str, Target] = {
    "wwebjs": unpack_local_auth,
    "baileys": unpack_auth_folder,
}
