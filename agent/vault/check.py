"""Whether there is a session, and whether it is whole. Looks at files, changes nothing."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agent.core.model import InstanceId, SessionFiles
from agent.engines.catalog import file_rules
from agent.engines.files import FilesReport, Linked
from agent.errors import EngineError, InvalidRequest, VaultError, WaError
from agent.vault.errors import LINK, explain, owner_of, planted
from agent.vault.formats import check_session, is_left_out, linked_session
from agent.vault.identity import OTHERS, names_other_engine, read_identity
from agent.vault.locate import (
    SESSION,
    Modes,
    is_empty,
    modes_of,
    names_in,
    open_folder,
    open_instance,
    open_root,
)
from agent.vault.walk import DEEPEST, Excluded

LOCK = "lock"
"""Its worker holds it while it runs."""
_AWAY = ("permissions", "read_only", "disk_full", LINK, OTHERS, VaultError.code)
MOST_LOOKED_AT = 20_000
"""Entries of one session whose rights are looked at: a check must end."""


def check_files(folder: Path, engine: str, paired: bool = True) -> SessionFiles:
    return inspect_files(folder, engine, paired).files


def inspect_files(folder: Path, engine: str, paired: bool = True) -> FilesReport:
    """Never raises: files that cannot be read are a finding, with path and owner. `paired` is what
    the record says; where the files alone cannot tell, it decides."""
    return inspect_folder(folder, engine, paired).report


@dataclass(frozen=True, slots=True)
class FolderReport:
    """The state of an instance's folder: its session, and its identity file."""

    report: FilesReport
    identity_fault: str = ""
    """Why the identity file must be written again: it is missing, damaged or of another engine; ""
    = it need not be, or the folder cannot be written."""

    @property
    def files(self) -> SessionFiles:
        return self.report.files

    @property
    def problem(self) -> str:
        return self.report.problem


def inspect_folder(folder: Path, engine: str, paired: bool = True) -> FolderReport:
    """As `inspect_files`, and the identity file beside the session."""
    report = _inspect_files(folder, engine, paired)
    if report.files in (SessionFiles.ABSENT, SessionFiles.UNREADABLE):
        return FolderReport(report)
    if _is_no_file(folder / LOCK):
        problem = str(planted("use", folder / LOCK))
        return FolderReport(FilesReport(SessionFiles.UNREADABLE, problem))
    try:
        fault = names_other_engine(read_identity(folder), engine, folder)
    except InvalidRequest:
        return FolderReport(report)  # a name that no instance has; the report says so
    except VaultError as error:
        if error.code in ("absent", "damaged"):
            return FolderReport(report, str(error))
        return FolderReport(FilesReport(_unusable(error, engine), str(error)))
    return FolderReport(report, fault)


def may_log_in(folder: Path, engine: str, account: str) -> bool:
    """Whether its files are whole, and those of this session: its engine would log in with them."""
    if inspect_files(folder, engine).files is not SessionFiles.WHOLE:
        return False
    try:
        file_rules(engine).check_login(folder / SESSION, account)
    except EngineError:
        return False
    return True


def _is_no_file(path: Path) -> bool:
    """Something stands there in place of a file."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _inspect_files(folder: Path, engine: str, paired: bool) -> FilesReport:
    path = folder / SESSION
    try:
        with open_root(folder.parent) as root_fd:
            modes = modes_of(root_fd)
        with open_instance(folder.parent, InstanceId(folder.name)) as fd:
            if paired and not os.path.lexists(path):
                return FilesReport(SessionFiles.ABSENT, f"{path}: it is not there")
            if is_empty(path, SESSION, fd):
                return FilesReport(SessionFiles.UNPAIRED)
            with open_folder(path, SESSION, fd) as session_fd:
                return inspect_session(path, session_fd, engine, paired, modes)
    except (VaultError, InvalidRequest) as error:
        if error.code == "absent":
            return FilesReport(SessionFiles.ABSENT, str(error))
        return FilesReport(_unusable(error, engine), str(error))


def read_linked(root: Path, id: InstanceId, engine: str) -> Linked:
    """The account and device of an instance's session; of none where its files cannot be read."""
    path = root / id / SESSION
    try:
        with (
            open_instance(root, id) as fd,
            open_folder(path, SESSION, fd) as session_fd,
        ):
            return linked_session(path, session_fd, engine)
    except (VaultError, InvalidRequest, OSError):
        return Linked()


def _unusable(error: WaError, engine: str) -> SessionFiles:
    """Rights, a sick disk, a link and the folder of another session prove nothing about the files;
    other errors do, except about files of somebody else's program."""
    away = error.code in _AWAY or file_rules(engine).foreign
    return SessionFiles.UNREADABLE if away else SessionFiles.DAMAGED


def inspect_session(
    path: Path, session_fd: int, engine: str, paired: bool, modes: Modes
) -> FilesReport:
    """The same for an open session folder, wherever it lies."""
    look = _Look(modes, is_left_out(engine), file_rules(engine).foreign)
    if problem := look.at(path, session_fd):
        files = SessionFiles.UNREADABLE if look.unknown else SessionFiles.DAMAGED
        return FilesReport(files, problem)
    try:
        return check_session(path, session_fd, engine, paired)
    except VaultError as error:
        if error.code == "absent":  # it went away during the look
            return FilesReport(SessionFiles.UNPAIRED, str(error))
        if look.unseen and error.code == "permissions":
            # Only its worker may read it: only the worker can tell whether it is whole.
            files = SessionFiles.WHOLE if paired else SessionFiles.UNPAIRED
            return FilesReport(files, str(error))
        return FilesReport(_unusable(error, engine), str(error))
    except OSError as error:
        explained = explain("read", path, error)
        return FilesReport(_unusable(explained, engine), str(explained))


@dataclass(slots=True)
class _Look:
    """One look at the kinds, owners and rights of all entries in a session."""

    modes: Modes
    left_out: Excluded
    foreign: bool
    """A pipe or a deep folder is the program's own affair."""
    left: int = MOST_LOOKED_AT
    unseen: bool = False
    """An entry is for the worker's user alone, as a browser makes its files."""
    unknown: bool = False
    """The problem proves nothing about the files: it is a matter of rights, or a link."""

    def at(self, path: Path, fd: int, before: str = "", depth: int = 1) -> str:
        """The first problem, "" when there is none."""
        if depth > DEEPEST:
            if self.foreign:
                return ""
            return f"cannot use {path}: it is nested more than {DEEPEST} deep"
        for name in names_in(fd):
            self.left -= 1
            if self.left < 0:
                return ""
            if self.left_out(before + name):
                continue
            if problem := self._at_one(path, fd, name, before, depth):
                return problem
        return ""

    def _at_one(self, path: Path, fd: int, name: str, before: str, depth: int) -> str:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return ""  # a running engine removed it
        is_folder = stat.S_ISDIR(status.st_mode)
        if not is_folder and not stat.S_ISREG(status.st_mode):
            self.unknown = stat.S_ISLNK(status.st_mode)
            own = self.foreign and not self.unknown
            if own or self.left_out(before + name, plain=False):
                return ""
            return str(planted("use", path / name))
        if not self._is_usable(status, is_folder):
            self.unknown = True
            return (
                f"cannot use {path / name}: it belongs to {owner_of(status)},"
                f" which its worker cannot read and write"
            )
        if not is_folder:
            return ""
        try:
            with open_folder(path / name, name, fd) as inner:
                return self.at(path / name, inner, f"{before}{name}/", depth + 1)
        except VaultError as error:
            if error.code == "absent":
                return ""
            if error.code == "permissions" and self._is_workers_own(status):
                self.unseen = True
                return ""
            self.unknown = error.code in ("permissions", LINK)
            return str(error)

    def _is_usable(self, status: os.stat_result, is_folder: bool) -> bool:
        """Whether the worker can use it; the session root's mode says which user the worker is."""
        me, mode = os.geteuid(), status.st_mode
        owner_bits = stat.S_IRWXU if is_folder else stat.S_IRUSR | stat.S_IWUSR
        group_bits = owner_bits >> 3
        by_owner = mode & owner_bits == owner_bits
        if self.modes.group is None:  # the worker runs as this user
            return me == 0 or (status.st_uid == me and by_owner) or _others(mode, is_folder)
        by_group = status.st_gid == self.modes.group and mode & group_bits == group_bits
        return by_group or self._is_workers_own(status)

    def _is_workers_own(self, status: os.stat_result) -> bool:
        bits = stat.S_IRUSR | stat.S_IWUSR
        foreign = status.st_uid not in (0, os.geteuid())
        return self.modes.group is not None and foreign and status.st_mode & bits == bits


def _others(mode: int, is_folder: bool) -> bool:
    bits = stat.S_IRWXO if is_folder else stat.S_IROTH | stat.S_IWOTH
    return mode & bits == bits
