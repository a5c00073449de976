"""instance.json: the identity of a session folder, readable without the database. The agent writes
it, the worker reads it, and a lost database is rebuilt from it."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from agent.core.model import Instance, InstanceId, Override, SessionRecord, parse_instance_id
from agent.engines import base, catalog
from agent.errors import InvalidRequest, Refused, VaultError
from agent.instance_file import NAME as FILE
from agent.instance_file import InstanceFile, OtherInstance, parse_instance_file, parse_object
from agent.instance_file import render_instance_file as render
from agent.vault.folder import SESSION, Folder, Modes, open_instance, open_root, unless_unusable

OTHERS = "other_instance"
"""Code of a folder that is another session's: its file is neither used nor replaced."""
IN_RECORD = (*("override", "override_boot", "paired", "account", "generation", "needs_passkey"),)


@dataclass(frozen=True, slots=True)
class Identity:
    instance: Instance
    paired: bool = False
    account: str = ""
    lineage: str = ""
    """A word that is new for each new session: copies of an earlier one have another."""
    ended: str = ""
    """The reason, final or a ban, with which the worker may not log in; "" = it may."""
    ended_until: float = 0.0
    """Unix time of the ban's end."""
    override: Override = Override.NONE
    """An operator's order, and its boot: a lost database must not lose it."""
    override_boot: str = ""
    generation: int = 0
    """Number of writes of the file; the database's record counts along."""
    needs_passkey: bool = False
    """True if the account needs a passkey to link a device."""
    leased: bool = False
    of_rooms: Mapping[str, Any] = field(default_factory=dict)
    """Room → the settings of its part in the session's worker."""

    @property
    def record(self) -> SessionRecord:
        """Return the part of a session's record that the file has."""
        same = {name: getattr(self, name) for name in IN_RECORD}
        return SessionRecord(reason=self.ended, not_before_wall=self.ended_until, **same)


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of the session root that is named like an instance."""

    id: InstanceId
    identity: Identity | None
    problem: str = ""
    """Why there is no identity."""
    code: str = ""
    """absent, damaged, OTHERS; with another code the file may be read another time."""


def create(root: Path, instance: Instance, of_rooms: Mapping[str, Any] = {}) -> Path:
    """Make the folder of an instance, with its identity; return its path. A folder that a crash
    left is taken over. One with another session is refused."""
    id = parse_instance_id(instance.id)
    path = root / id
    kept, before = Identity(instance, of_rooms=of_rooms), None
    with open_root(root, create=True) as top:
        new = top.make(id, top.modes)
        with top.inner(id) as folder:
            if not new:
                with unless_unusable():
                    before = parse_identity(folder.content(FILE), path)
                same = before is not None and before.instance.engine == instance.engine
                if not same and not folder.is_empty(SESSION):
                    whose = f"of engine {before.instance.engine}" if before else "of unknown origin"
                    cause = f"it holds a session {whose}; move it away first"
                    raise Refused(f"cannot create {path}: {cause}", code="session_exists")
            folder.make(SESSION, top.modes)
        top.sync()
    if before is not None:
        passkey = before.needs_passkey
        kept = replace(kept, paired=before.paired, account=before.account, needs_passkey=passkey)
    replace_identity(root, kept, lineage=new_lineage() if before is None else None)
    return path


def new_lineage() -> str:
    return secrets.token_hex(8)


def replace_identity(root: Path, identity: Identity, *, lineage: str | None = None) -> None:
    """Replace instance.json; the keys of another version and the lineage stay. That of another
    session is not replaced."""
    with open_root(root) as top, top.inner(id := identity.instance.id) as folder:
        others, engine = other_keys(folder), identity.instance.engine
        if others.get("id") != id and not folder.is_empty(SESSION):
            if others:
                read_identity(folder.path)  # says whose it is
            if why := names_other_account(folder.path, engine, identity.account):
                raise VaultError(why, code=OTHERS)
        if lineage is not None:
            others["lineage"] = lineage
        put_identity(folder, identity, top.modes, others)


def other_keys(folder: Folder) -> dict[str, Any]:
    """All that the identity file says, keys of another version too; {} = nothing that is kept: the
    caller has the newer state."""
    with unless_unusable(), suppress(ValueError):
        return parse_object(folder.content(FILE))
    return {}


def put_identity(
    folder: Folder, identity: Identity, modes: Modes, others: Mapping[str, Any]
) -> None:
    """Write instance.json into an open folder, wherever it lies."""
    own = by_name(identity) | {"lineage": str(others.get("lineage", ""))}
    file = InstanceFile(**by_name(own.pop("instance")), **own)
    try:
        raw = render(file, others)
    except ValueError as error:
        raise VaultError(f"cannot write {folder.path / FILE}: {error}", code="too_large") from None
    folder.write(FILE, raw, modes)


def read_identity(folder: Path) -> Identity:
    """Read the identity in an instance's folder; VaultError says why there is none."""
    with open_instance(folder.parent, InstanceId(folder.name)) as opened:
        return parse_identity(opened.content(FILE), folder)


def lineage_of(folder: Path) -> str:
    """Return the lineage of the session that the folder belongs to; "" = not recorded."""
    with unless_unusable():
        return read_identity(folder).lineage
    return ""


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
    """Return the fields of a row by name, as they are."""
    return {own.name: getattr(row, own.name) for own in fields(row)}


def names_other_engine(identity: Identity, engine: str, folder: Path) -> str:
    """Return the fault of a file that names another engine; "" = none. Engines never change."""
    named = identity.instance.engine
    return "" if named == engine else f"{folder / FILE} names engine {named!r:.40}, not {engine}"


def read_linked(root: Path, id: InstanceId, engine: str) -> base.Linked:
    """Return account and device of an instance's session; none if its files cannot be read."""
    unreadable = suppress(VaultError, InvalidRequest, OSError)
    with unreadable, open_root(root) as top, top.inner(parse_instance_id(id), SESSION) as session:
        return catalog.file_rules(engine).linked(session)
    return base.Linked()


def names_other_account(folder: Path, engine: str, account: str) -> str:
    """Without an identity file the session in a folder tells whose it is; "" = it may be of this
    account (of the record, "" = not known)."""
    found = read_linked(folder.parent, InstanceId(folder.name), engine).account
    if not account or found in ("", account):
        return ""
    nameless = f"cannot use {folder}: no {FILE} says whose it is, and its session is of the account"
    cure = "put each folder back under its own name"
    return f"{nameless} …{found[-4:]}, not …{account[-4:]}: {cure}"


def ids_in(names: Iterable[str]) -> Iterator[InstanceId]:
    """Yield names that an instance may have: no .trash, .snapshots, lost+found."""
    for name in names:
        with suppress(InvalidRequest):
            yield parse_instance_id(name)


def scan(root: Path) -> list[Found]:
    """Return all folders named like an instance, with or without a readable identity."""
    folders = []
    with open_root(root) as top:
        names = top.names()
    for id in ids_in(names):
        try:
            folders.append(Found(id, read_identity(root / id)))
        except VaultError as error:
            folders.append(Found(id, None, str(error), error.code))
    return folders
