"""All entries of a session, each step down by an open folder and through no link."""

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agent.engines.catalog import file_rules
from agent.engines.files import FileRules
from agent.errors import VaultError
from agent.vault.errors import explain, planted
from agent.vault.folder import Folder

DEEPEST = 32
MOST_ENTRIES = 200_000
"""Baileys keeps several files for each contact."""
LARGEST_FILE = 256 << 20
"""Bytes: no engine writes a larger file. A stray one would fill the disk, copy by copy."""
_COARSE = 0.05
"""Seconds: a file changed twice within one tick of the kernel's clock looks unchanged."""
_LOCKS = frozenset({"lock", "lockfile", "LOCK", "parent.lock", ".parentlock"})

Signature = tuple[int, ...]


@dataclass(slots=True)
class Entry:
    """An entry while its folder is open."""

    path: str
    """Relative to where the walk began."""
    parent: Folder
    status: os.stat_result
    fault: VaultError | None = None
    """Why it cannot be copied; its content is not walked."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def is_left_out(name: str, rules: FileRules) -> bool:
    """Locks of this run, links that name this host, caches and files half written: in no copy."""
    return (
        name in _LOCKS
        or name in rules.left_out
        or name.startswith("Singleton")
        or name.endswith((".lock", "-shm"))
        or (name.startswith(".") and name.endswith(".tmp"))
    )


def walk(top: Folder, engine: str, verb: str = "copy") -> Iterator[Entry]:
    """Folders before their content, by name; VaultError at the first fault."""
    for number, entry in enumerate(entries(top, file_rules(engine), verb)):
        if entry.fault is not None:
            raise entry.fault
        if number >= MOST_ENTRIES:
            many = f"cannot {verb} {top.path}: it has more than {MOST_ENTRIES} files and folders"
            raise VaultError(many, code="too_large")
        yield entry


def entries(here: Folder, rules: FileRules, verb: str, before: str = "") -> Iterator[Entry]:
    """The same with the faults among them."""
    try:
        if before.count("/") >= DEEPEST:
            deep = f"cannot {verb} {here.path}: it is nested more than {DEEPEST} deep"
            raise VaultError(deep, code="too_deep")
        names = here.names()
    except (VaultError, OSError) as error:
        fault = error if isinstance(error, VaultError) else explain(verb, here.path, error)
        yield Entry(before.rstrip("/"), here, os.fstat(here.fd), fault)
        return
    for name in names:
        relative = before + name
        if is_left_out(name, rules):
            continue
        try:
            status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        except OSError as error:
            yield Entry(relative, here, os.fstat(here.fd), explain(verb, here.path / name, error))
            continue
        entry = Entry(relative, here, status, _fault(verb, here, name, status))
        if entry.fault is not None and rules.moves_aside(relative):
            continue
        yield entry
        if entry.is_folder:
            try:
                with here.inner(name) as inner:
                    yield from entries(inner, rules, verb, f"{relative}/")
            except VaultError as error:
                yield Entry(relative, here, status, error)


def _fault(verb: str, here: Folder, name: str, status: os.stat_result) -> VaultError | None:
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return planted(verb, here.path / name)
    if status.st_size <= LARGEST_FILE:
        return None
    cause = f"it has {status.st_size >> 20} MiB, {LARGEST_FILE >> 20} are allowed; move it away"
    return VaultError(f"cannot {verb} {here.path / name}: {cause}", code="too_large")


def signatures(top: Folder, engine: str) -> dict[str, Signature]:
    """A value per relative path that differs when the file changed."""
    by_path, newest = _signatures(top, engine)
    if abs(time.time() - newest) < _COARSE:
        # Written a moment ago: a second write in the same tick would not show. Let the tick pass.
        time.sleep(_COARSE)
        by_path, _ = _signatures(top, engine)
    return by_path


def _signatures(top: Folder, engine: str) -> tuple[dict[str, Signature], float]:
    signed: dict[str, Signature] = {}
    newest = 0.0
    for entry in walk(top, engine):
        status = entry.status
        signed[entry.path] = (status.st_ino,)
        if not entry.is_folder:
            newest = max(newest, status.st_mtime, status.st_ctime)
            signed[entry.path] += (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return signed, newest
