"""The files of a session, following no link: each entry, whether there is a session and whether it
is whole, and copies that are made and read back."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from agent.core.model import SessionFiles, parse_instance_id
from agent.engines.base import FileRules, FilesReport
from agent.engines.catalog import file_rules
from agent.errors import EngineError, InvalidRequest, VaultError, WaError
from agent.files import DEEPEST, MOST_ENTRIES, opened
from agent.vault.folder import SESSION, Folder, Modes, doing, explain, open_root, owner_of, planted
from agent.vault.identity import OTHERS, names_other_account, names_other_engine, read_identity

# All entries of a session, each step down by an open folder and through no link.

LARGEST_FILE = 256 << 20
"""Bytes: no engine writes a larger file. A stray one would fill the disk, copy by copy."""
_COARSE = 0.05
"""Seconds: a file changed twice within one tick of the kernel's clock looks unchanged."""
_LOCKS = frozenset({"lock", "lockfile", "LOCK", "parent.lock", ".parentlock"})

Signature = tuple[int, ...]


@dataclass(slots=True)
class Entry:
    path: str
    """Path relative to where the walk began."""
    status: os.stat_result
    is_folder: bool = True
    fault: VaultError | None = None
    """Why the entry cannot be copied; its content is not walked."""


def is_left_out(name: str, rules: FileRules) -> bool:
    """True for what is in no copy: locks of this run, links that name this host, caches, halves."""
    return (
        name in _LOCKS
        or name in rules.left_out
        or name.startswith("Singleton")
        or name.endswith((".lock", "-shm"))
        or (name.startswith(".") and name.endswith(".tmp"))
    )


def walk(top: Folder, engine: str, verb: str = "copy") -> Iterator[Entry]:
    """Yield folders before their content, by name; VaultError at the first fault."""
    for number, entry in enumerate(entries(top, file_rules(engine), verb)):
        if entry.fault is not None:
            raise entry.fault
        if number >= MOST_ENTRIES:
            many = f"cannot {verb} {top.path}: it has more than {MOST_ENTRIES} files and folders"
            raise VaultError(many, code="too_large")
        yield entry


def entries(here: Folder, rules: FileRules, verb: str, before: str = "") -> Iterator[Entry]:
    """Yield the entries of `walk` with the faults among them."""
    try:
        if before.count("/") >= DEEPEST:
            deep = f"cannot {verb} {here.path}: it is nested more than {DEEPEST} deep"
            raise VaultError(deep, code="too_deep")
        names = here.names()
    except VaultError as error:
        yield Entry(before.rstrip("/"), os.fstat(here.fd), fault=error)
        return
    for name in names:
        relative = before + name
        if is_left_out(name, rules):
            continue
        try:
            status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        except OSError as error:
            yield Entry(relative, os.fstat(here.fd), fault=explain(verb, here.path / name, error))
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        fault = None if is_folder else _fault(verb, here, name, status)
        if fault is not None and rules.moves_aside(relative):
            continue
        yield Entry(relative, status, is_folder, fault)
        if is_folder:
            try:
                with here.inner(name) as inner:
                    yield from entries(inner, rules, verb, f"{relative}/")
            except VaultError as error:
                yield Entry(relative, status, fault=error)


def _fault(verb: str, here: Folder, name: str, status: os.stat_result) -> VaultError | None:
    if not stat.S_ISREG(status.st_mode):
        return planted(verb, here.path / name)
    if status.st_size <= LARGEST_FILE:
        return None
    cause = f"it has {status.st_size >> 20} MiB, {LARGEST_FILE >> 20} are allowed; move it away"
    return VaultError(f"cannot {verb} {here.path / name}: {cause}", code="too_large")


def signatures(top: Folder, engine: str) -> dict[str, Signature]:
    """Return relative path → a value that differs if the file changed."""
    for _look in range(2):
        signed, newest = dict[str, Signature](), 0.0
        for entry in walk(top, engine):
            status = entry.status
            signed[entry.path] = (status.st_ino,)
            if not entry.is_folder:
                newest = max(newest, status.st_mtime, status.st_ctime)
                signed[entry.path] += (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if abs(time.time() - newest) >= _COARSE:
            break
        # Written a moment ago: a second write in the same tick would not show. Let the tick pass.
        time.sleep(_COARSE)
    return signed


_CHUNK = 1 << 20

Tick = Callable[[int], None]
"""Called with the size of each piece; an error that it raises ends the work."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a copy. The path is relative, with slashes."""

    path: str
    size: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Listing:
    files: tuple[FileEntry, ...]
    folders: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def __len__(self) -> int:
        return len(self.files) + len(self.folders)


def no_tick(_bytes: int) -> None:
    """The tick of work without a progress display."""


def copy_tree(
    source: Folder, target: Folder, engine: str, modes: Modes, tick: Tick = no_tick
) -> Listing:
    """Copy into an empty folder. Only after `read_back` is it on the disk for sure."""
    files, folders = [], []
    for entry in walk(source, engine):
        if entry.is_folder:
            target.make(entry.path, modes)
            folders.append(entry.path)
        else:
            files.append(add_file(target, entry.path, read_file(source, entry.path), modes, tick))
    return Listing(tuple(files), tuple(folders))


def add_all(
    target: Folder,
    listing: Listing,
    pieces_of: Callable[[FileEntry], Iterable[bytes]],
    modes: Modes,
    tick: Tick,
) -> None:
    """Write the folders and files of a listing into an empty folder."""
    for folder in listing.folders:
        target.make(folder, modes)
    for file in listing.files:
        add_file(target, file.path, pieces_of(file), modes, tick)


def add_file(
    target: Folder, relative: str, pieces: Iterable[bytes], modes: Modes, tick: Tick
) -> FileEntry:
    """Write a new file from pieces; the entry has the size and checksum of what was written."""
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with doing("write", target.path, relative):
        fd = os.open(relative, flags, 0o600, dir_fd=target.fd)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for piece in pieces:
                rest = memoryview(piece)
                if not any(piece):  # a hole stays one: it takes no room
                    file.seek(len(piece), os.SEEK_CUR)
                    rest = rest[:0]
                while rest:
                    rest = rest[file.write(rest) :]
                digest.update(piece)
                size += len(piece)
                tick(len(piece))
            file.truncate(size)
            if modes.group is not None and os.fstat(fd).st_gid != modes.group:
                os.fchown(fd, -1, modes.group)
            os.fchmod(fd, modes.file)
    return FileEntry(relative, size, digest.hexdigest())


def read_file(top: Folder, relative: str) -> Iterator[bytes]:
    """Yield the pieces of one file below an open folder, each folder on the way opened plainly."""
    *folders, name = relative.split("/")
    with top.inner(*folders) as folder, folder.opened(name) as fd:
        while piece := os.read(fd, _CHUNK):
            yield piece


def read_back(top: Folder, listing: Listing, tick: Tick = no_tick) -> None:
    """Put a copy on the disk and read it again; VaultError if it differs."""
    for file in listing.files:
        _sync(top, file.path)
        tick(0)
    for file in listing.files:
        for _ in read_checked(top, file):
            tick(0)
    for folder in listing.folders:
        _sync(top, folder)
    with doing("save", top.path):
        top.sync()


def read_checked(top: Folder, file: FileEntry) -> Iterator[bytes]:
    return checked(top.path, read_file(top, file.path), file)


def checked(top: Path, pieces: Iterable[bytes], expected: FileEntry) -> Iterator[bytes]:
    """Yield the same pieces; VaultError `damaged` at their end if they differ from `expected`."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
        yield piece
    fault = ""
    if size != expected.size:
        fault = f"it has {size} bytes instead of {expected.size}"
    elif digest.hexdigest() != expected.sha256:
        fault = "its content does not fit its checksum"
    if fault:
        raise VaultError(f"cannot use {top / expected.path}: {fault}", code="damaged")


def _sync(top: Folder, relative: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW
    with doing("save", top.path, relative), opened(relative, flags, within=top.fd) as fd:
        os.fsync(fd)
        # So that reading it again asks the disk and not the memory, where it can.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


# The one inspection of a session's folder: is there a session, and is it whole? It looks at the
# files and changes nothing.

LOCK = "lock"
"""File of the lock that a worker holds while it runs."""
_AWAY = ("permissions", "read_only", "disk_full", "symlink", "planted", OTHERS, VaultError.code)
MOST_LOOKED_AT = 20_000
"""Entries of one session whose rights are looked at: a check must end."""


def inspect(folder: Path, engine: str, paired: bool = True, account: str = "") -> FilesReport:
    """The session in an instance's folder, and the identity file beside it. Never raises: files
    that cannot be read are a finding, with path and owner. `paired` and `account` are what the
    record says; where the files alone cannot tell, it decides."""
    report = _look_at_session(folder, engine, paired)
    if report.files in (SessionFiles.ABSENT, SessionFiles.UNREADABLE):
        return report
    lock = folder / LOCK
    try:
        if lock.is_symlink() or (os.path.lexists(lock) and not lock.is_file()):
            return FilesReport(SessionFiles.UNREADABLE, str(planted("use", lock)))
        fault = names_other_engine(read_identity(folder), engine, folder)
    except VaultError as error:
        fault = problem = str(error)
        if error.code in ("absent", "damaged"):
            problem = names_other_account(folder, engine, account)
        if problem:  # of the session's own files it proves nothing
            return FilesReport(SessionFiles.UNREADABLE, problem)
    return report._replace(identity_fault=fault)


def _look_at_session(folder: Path, engine: str, paired: bool) -> FilesReport:
    """Inspect a folder without its identity file."""
    path = folder / SESSION
    try:
        id = parse_instance_id(folder.name)
        with open_root(folder.parent) as root, root.inner(id) as opened:
            if paired and not os.path.lexists(path):
                return FilesReport(SessionFiles.ABSENT, f"{path}: it is not there")
            if opened.is_empty(SESSION):
                return FilesReport(SessionFiles.UNPAIRED)
            with opened.inner(SESSION) as session:
                return inspect_session(session, engine, paired, root.modes)
    except (VaultError, InvalidRequest) as error:
        gone = error.code == "absent"  # another thing in a folder's place proves no more than that
        return FilesReport(SessionFiles.ABSENT if gone else SessionFiles.UNREADABLE, str(error))


def may_log_in(folder: Path, engine: str, account: str) -> bool:
    """True if the files are whole and this session's: the engine would log in with them."""
    if inspect(folder, engine).files is not SessionFiles.WHOLE:
        return False
    try:
        file_rules(engine).check_login(folder / SESSION, account)
    except EngineError:
        return False
    return True


def _unusable(error: WaError, engine: str) -> SessionFiles:
    """Rights, a sick disk, what is no file, and the folder of another session prove nothing about
    the files; other errors do, except about files of a program of its own."""
    away = error.code in _AWAY or file_rules(engine).foreign
    return SessionFiles.UNREADABLE if away else SessionFiles.DAMAGED


def inspect_session(session: Folder, engine: str, paired: bool, modes: Modes) -> FilesReport:
    """Inspect an open session folder, wherever it lies."""
    rules, unseen = file_rules(engine), False
    for number, entry in enumerate(entries(session, rules, "use")):
        status, fault = entry.status, entry.fault
        if number >= MOST_LOOKED_AT:
            break
        if fault is None and not _is_usable(entry.status, entry.is_folder, modes):
            words = f"cannot use {session.path / entry.path}: it belongs to"
            words += f" {owner_of(status)}, which its worker cannot read and write"
            return FilesReport(SessionFiles.UNREADABLE, words)
        # A running engine removes files; the engine's own rules judge the size of a file; a pipe or
        # a deep folder is a program's own affair.
        own = rules.foreign and fault is not None and fault.code in ("planted", "too_deep")
        if fault is None or own or fault.code in ("absent", "too_large"):
            continue
        if fault.code == "permissions" and _is_workers_own(status, modes):
            unseen = True  # for the worker's user alone, as a browser makes its files
            continue
        return FilesReport(_unusable(fault, engine), str(fault))
    try:
        return rules.check(session, paired)
    except VaultError as error:
        files = _unusable(error, engine)
        if error.code == "absent":  # it went away during the look
            files = SessionFiles.UNPAIRED
        elif unseen and error.code == "permissions":
            # Only its worker may read it: only the worker can tell whether it is whole.
            files = SessionFiles.WHOLE if paired else SessionFiles.UNPAIRED
        return FilesReport(files, str(error))


def _is_usable(status: os.stat_result, is_folder: bool, modes: Modes) -> bool:
    """True if the worker can use the entry; the session root's mode tells the worker's user."""
    me, mode = os.geteuid(), status.st_mode
    owner_bits = stat.S_IRWXU if is_folder else stat.S_IRUSR | stat.S_IWUSR
    group_bits, other_bits = owner_bits >> 3, owner_bits >> 6
    if modes.group is None:  # the worker runs as this user
        by_owner = status.st_uid == me and mode & owner_bits == owner_bits
        return me == 0 or by_owner or mode & other_bits == other_bits
    by_group = status.st_gid == modes.group and mode & group_bits == group_bits
    return by_group or _is_workers_own(status, modes)


def _is_workers_own(status: os.stat_result, modes: Modes) -> bool:
    bits = stat.S_IRUSR | stat.S_IWUSR
    foreign = status.st_uid not in (0, os.geteuid())
    return modes.group is not None and foreign and status.st_mode & bits == bits
