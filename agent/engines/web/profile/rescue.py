"""Save a pairing whose files were deleted under a running browser: a deleted file lives on while a
process has it open. What a deletion left, or has not come to yet, is taken from its place. The
browser is stopped first, so that its databases are copied as of one moment, and ended afterwards.
"""

import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.engines.web.files import profile_path
from agent.engines.web.profile.folder import make_durable

log = logging.getLogger(__name__)

_DELETED = " (deleted)"
_STORES = (("Default", "IndexedDB"), ("Default", "Local Storage"))


def rescue(session: Path, browser: int) -> bool:
    """Write the profile again from the browser's open files; True when there is a pairing's store.
    The browser's process group stays stopped: end it in any case."""
    profile = profile_path(session)
    fresh = session / f".{profile.name}.rescued"
    try:
        with suppress(ProcessLookupError):
            os.killpg(browser, signal.SIGSTOP)
        session.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        _copy_left_files(profile, fresh)
        copied = {path for pid in _tree(browser) for path in _copy_open_files(pid, profile, fresh)}
        whole = _complete(fresh)
        log.warning("%d files of the deleted profile were still open", len(copied))
        if not whole:
            shutil.rmtree(fresh, ignore_errors=True)
            return False
        if os.path.lexists(profile):
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            profile.rename(profile.with_name(f"{profile.name}.left-{stamp}"))
        fresh.rename(profile)
        make_durable(session, lambda: None)
    except OSError as error:
        log.error("cannot save the session from the browser: %s", error)
        return False
    return True


def _copy_left_files(profile: Path, target: Path) -> None:
    for store in _STORES:
        with suppress(OSError):  # some may go while they are copied
            shutil.copytree(profile.joinpath(*store), target.joinpath(*store), symlinks=True)


def _copy_open_files(pid: int, profile: Path, target: Path) -> Iterator[Path]:
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it ended, or its sandbox hides it; the databases are not its own then
        return
    for descriptor in descriptors:
        try:
            name = str(descriptor.readlink())
            if not name.endswith(_DELETED):
                continue
            path = Path(name.removesuffix(_DELETED)).relative_to(profile)
            if path.parts[:2] not in _STORES or path.name == "LOCK":
                continue
            (target / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with descriptor.open("rb") as old, (target / path).open("wb") as new:
                shutil.copyfileobj(old, new, 1 << 20)
        except (OSError, ValueError):
            continue
        yield path


def _complete(profile: Path) -> bool:
    """Write CURRENT, which no process keeps open, for each database; whether IndexedDB is there."""
    manifests = list(profile.glob("Default/IndexedDB/*/MANIFEST-*"))
    for manifest in sorted((*manifests, *profile.glob("Default/Local Storage/*/MANIFEST-*"))):
        (manifest.parent / "CURRENT").write_text(f"{manifest.name}\n")
    return bool(manifests)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                yield from _tree(int(child))
