"""The one inspection of a session's folder: is there a session, and is it whole? It looks at the
files and changes nothing."""

import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from agent.core.model import InstanceId, SessionFiles, parse_instance_id
from agent.engines.base import FilesReport, Linked
from agent.engines.catalog import file_rules
from agent.errors import EngineError, InvalidRequest, VaultError, WaError
from agent.vault.folder import (
    LINK,
    SESSION,
    Folder,
    Modes,
    explain,
    open_instance,
    open_root,
    owner_of,
    planted,
)
from agent.vault.identity import OTHERS, names_other_engine, read_identity
from agent.vault.tree import entries

LOCK = "lock"
"""Its worker holds it while it runs."""
_AWAY = ("permissions", "read_only", "disk_full", LINK, OTHERS, VaultError.code)
MOST_LOOKED_AT = 20_000
"""Entries of one session whose rights are looked at: a check must end."""


def inspect(folder: Path, engine: str, paired: bool = True) -> FilesReport:
    """The session in an instance's folder, and the identity file beside it. Never raises: files
    that cannot be read are a finding, with path and owner. `paired` is what the record says; where
    the files alone cannot tell, it decides."""
    report = _look_at_session(folder, engine, paired)
    if report.files in (SessionFiles.ABSENT, SessionFiles.UNREADABLE):
        return report
    lock = folder / LOCK
    try:
        if lock.is_symlink() or (os.path.lexists(lock) and not lock.is_file()):
            return FilesReport(SessionFiles.UNREADABLE, str(planted("use", lock)))
        fault = names_other_engine(read_identity(folder), engine, folder)
    except InvalidRequest:
        return report  # it says so: no instance has such a name
    except VaultError as error:
        if error.code not in ("absent", "damaged"):
            return FilesReport(_unusable(error, engine), str(error))
        fault = str(error)
    return replace(report, identity_fault=fault)


def _look_at_session(folder: Path, engine: str, paired: bool) -> FilesReport:
    """The same without the identity file."""
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
        if error.code == "absent":
            return FilesReport(SessionFiles.ABSENT, str(error))
        return FilesReport(_unusable(error, engine), str(error))


def may_log_in(folder: Path, engine: str, account: str) -> bool:
    """True if its files are whole and this session's: its engine would log in with them."""
    if inspect(folder, engine).files is not SessionFiles.WHOLE:
        return False
    try:
        file_rules(engine).check_login(folder / SESSION, account)
    except EngineError:
        return False
    return True


def read_linked(root: Path, id: InstanceId, engine: str) -> Linked:
    """The account and device of an instance's session; of none where its files cannot be read."""
    unreadable = suppress(VaultError, InvalidRequest, OSError)
    with unreadable, open_instance(root, id, SESSION) as session:
        return file_rules(engine).linked(session)
    return Linked()


def _unusable(error: WaError, engine: str) -> SessionFiles:
    """Rights, a sick disk, a link and the folder of another session prove nothing about the files;
    other errors do, except about files of a program of its own."""
    away = error.code in _AWAY or file_rules(engine).foreign
    return SessionFiles.UNREADABLE if away else SessionFiles.DAMAGED


def inspect_session(session: Folder, engine: str, paired: bool, modes: Modes) -> FilesReport:
    """The same for an open session folder, wherever it lies."""
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
    except OSError as error:
        fault = explain("read", session.path, error)
        return FilesReport(_unusable(fault, engine), str(fault))
    except VaultError as error:
        files = _unusable(error, engine)
        if error.code == "absent":  # it went away during the look
            files = SessionFiles.UNPAIRED
        elif unseen and error.code == "permissions":
            # Only its worker may read it: only the worker can tell whether it is whole.
            files = SessionFiles.WHOLE if paired else SessionFiles.UNPAIRED
        return FilesReport(files, str(error))


def _is_usable(status: os.stat_result, is_folder: bool, modes: Modes) -> bool:
    """True if the worker can use it; the session root's mode says which user the worker is."""
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
