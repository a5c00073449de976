"""instance.json: the identity of a session folder, readable without the database. The agent writes
it, the worker reads it, and a lost database is rebuilt from it."""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from agent.core.model import Instance, InstanceId, Override, SessionRecord, parse_instance_id
from agent.errors import InvalidRequest, VaultError
from agent.instance_file import NAME as FILE
from agent.instance_file import (
    InstanceFile,
    OtherInstance,
    parse_instance_file,
    parse_object,
    render_instance_file,
)
from agent.log import about, bound
from agent.vault.atomic import read_plain_file, write_atomically
from agent.vault.locate import (
    SESSION,
    Modes,
    is_empty,
    make_folder,
    modes_of,
    names_in,
    open_folder,
    open_instance,
    open_root,
)

_log = bound(name=__name__)
OTHERS = "other_instance"
"""The code where a folder is another session's: its file is neither used nor replaced."""


@dataclass(frozen=True, slots=True)
class Identity:
    instance: Instance
    paired: bool = False
    account: str = ""
    lineage: str = ""
    """New for each new session: copies of an earlier one have another lineage."""
    ended: str = ""
    """The final reason after which its worker may not log in by itself; "" = it may."""
    override: Override = Override.NONE
    """An operator's order, and its boot: a lost database must not lose it."""
    override_boot: str = ""
    generation: int = 0
    """How often it was written; the database's record counts along."""
    needs_passkey: bool = False
    """Its account needs a passkey to link a device."""
    of_wings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of each wing's part in its worker."""

    @property
    def record(self) -> SessionRecord:
        """The part of a session's record that the file has."""
        return SessionRecord(
            reason=self.ended,
            override=self.override,
            override_boot=self.override_boot,
            paired=self.paired,
            account=self.account,
            generation=self.generation,
            needs_passkey=self.needs_passkey,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of the session root that is named like an instance."""

    id: InstanceId
    identity: Identity | None
    problem: str = ""
    """Why there is no identity."""
    lost: bool = False
    """The file is gone, damaged or another session's; else it may be read another time."""
    others: bool = False
    """It is another session's."""


def create(root: Path, instance: Instance, of_wings: Mapping[str, Any] = {}) -> Path:
    """Make the folder of an instance, with its identity; return its path. A folder that a crash
    left is taken over. One with another session is refused: retire it first."""
    id = parse_instance_id(instance.id)
    path = root / id
    with open_root(root, create=True) as root_fd:
        modes = modes_of(root_fd)
        new = make_folder(path, id, root_fd, modes)
        with open_folder(path, id, root_fd) as fd:
            if not new:
                _check_take_over(path, fd, instance)
            make_folder(path / SESSION, SESSION, fd, modes)
        os.fsync(root_fd)
    before = None if new else _read_if_whole(path)
    kept = Identity(instance, of_wings=of_wings)
    if before is not None:
        kept = replace(
            kept,
            paired=before.paired,
            account=before.account,
            needs_passkey=before.needs_passkey,
        )
    replace_identity(root, kept, lineage=new_lineage() if before is None else None)
    return path


def new_lineage() -> str:
    return secrets.token_hex(8)


def replace_identity(root: Path, identity: Identity, *, lineage: str | None = None) -> None:
    """Replace instance.json; the keys of another version and the lineage stay. That of another
    session is not replaced."""
    id = identity.instance.id
    path = root / id
    with open_root(root) as root_fd, open_folder(path, id, root_fd) as fd:
        _refuse_others(path, fd)
        content = _other_keys(path, fd)
        if lineage is not None:
            content["lineage"] = lineage
        put_identity(path, fd, identity, modes_of(root_fd), content)


def _refuse_others(folder: Path, fd: int) -> None:
    try:
        parse_identity(read_plain_file(folder, fd, FILE), folder)
    except (VaultError, InvalidRequest) as error:
        if error.code == OTHERS and not is_empty(folder / SESSION, SESSION, fd):
            raise


def other_keys(root: Path, id: InstanceId) -> dict[str, Any]:
    """What the identity file of an instance says, keys of another version too; {} = none."""
    try:
        with open_instance(root, id) as fd:
            return _other_keys(root / id, fd)
    except VaultError:
        return {}


def put_identity(
    path: Path, fd: int, identity: Identity, modes: Modes, others: Mapping[str, Any]
) -> None:
    """Write instance.json into an open folder, wherever it lies."""
    own = by_name(identity) | {"lineage": str(others.get("lineage", ""))}
    file = InstanceFile(**by_name(own.pop("instance")), **own)
    try:
        raw = render_instance_file(file, others)
    except ValueError as error:
        raise VaultError(f"cannot write {path / FILE}: {error}", code="too_large") from None
    write_atomically(path, fd, FILE, raw, mode=modes.file, group=modes.group)


def read_identity(folder: Path) -> Identity:
    """The identity in an instance's folder; VaultError says why there is none."""
    with open_instance(folder.parent, InstanceId(folder.name)) as fd:
        raw = read_plain_file(folder, fd, FILE)
    return parse_identity(raw, folder)


def parse_identity(raw: bytes, folder: Path) -> Identity:
    try:
        file = parse_instance_file(raw, folder.name)
    except ValueError as error:
        code = OTHERS if isinstance(error, OtherInstance) else "damaged"
        raise VaultError(f"cannot read {folder / FILE}: {error}", code=code) from None
    written = by_name(file)
    instance = Instance(**{own.name: written.pop(own.name) for own in fields(Instance)})
    # A word of another version is ignored.
    known = file.override in set(Override)
    written["override"] = Override(file.override) if known else Override.NONE
    return Identity(instance, **written)


def by_name(row: Any) -> dict[str, Any]:
    """Its fields, as they are."""
    return {own.name: getattr(row, own.name) for own in fields(row)}


def names_other_engine(identity: Identity, engine: str, folder: Path) -> str:
    """An instance keeps its engine for life: a file that names another one is not its own."""
    named = identity.instance.engine
    return "" if named == engine else f"{folder / FILE} names engine {named!r:.40}, not {engine}"


def scan(root: Path) -> list[Found]:
    """All folders named like an instance, with or without a readable identity."""
    folders = []
    with open_root(root, create=True) as root_fd:
        names = names_in(root_fd)
    for name in names:
        try:
            id = parse_instance_id(name)
        except InvalidRequest:
            continue  # .trash, .snapshots, lost+found
        try:
            folders.append(Found(id, read_identity(root / name)))
        except VaultError as error:
            others = error.code == OTHERS
            lost = others or error.code in ("absent", "damaged")
            folders.append(Found(id, None, str(error), lost, others))
    return folders


def found_sessions(root: Path) -> list[tuple[Instance, SessionRecord]]:
    """The sessions from which a lost database is rebuilt; unreadable folders are left as
    they are."""
    sessions = []
    for folder in scan(root):
        if folder.identity is None:
            _log.error("%s is not restored: %s", folder.id, folder.problem, extra=about(folder.id))
            continue
        sessions.append((folder.identity.instance, folder.identity.record))
    return sessions


def _other_keys(folder: Path, folder_fd: int) -> dict[str, Any]:
    try:
        return parse_object(read_plain_file(folder, folder_fd, FILE))
    except (VaultError, ValueError):
        return {}  # the caller has the newer state; an unreadable file has nothing to keep


def _check_take_over(path: Path, fd: int, instance: Instance) -> None:
    if is_empty(path / SESSION, SESSION, fd):
        return
    before = _read_if_whole(path)
    if before is None or before.instance.engine != instance.engine:
        whose = f"of engine {before.instance.engine}" if before else "of unknown origin"
        raise VaultError(
            f"cannot create {path}: it holds a session {whose}; retire it first",
            code="session_exists",
        )


def _read_if_whole(path: Path) -> Identity | None:
    try:
        return read_identity(path)
    except VaultError:
        return None
