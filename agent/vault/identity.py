"""instance.json: who a session folder belongs to, readable without the database.

The agent writes it, the worker reads it, and a lost database is rebuilt from it.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.model import Instance, InstanceId, Override, SessionRecord, parse_instance_id
from agent.errors import InvalidRequest, VaultError
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

FILE = "instance.json"
VERSION = 1
LARGEST_IDENTITY = 1 << 20

_log = bound(name=__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    instance: Instance
    paired: bool = False
    account: str = ""
    lineage: str = ""
    """Given to a folder that is begun afresh: copies of an earlier one are another session's."""
    ended: str = ""
    """The final reason after which its worker may not log in by itself; "" = it may."""
    override: Override = Override.NONE
    """What an operator did by hand, and in which boot: it must not be lost with the database."""
    override_boot: str = ""
    generation: int = 0
    """How often it was written; the database's record counts along."""

    @property
    def record(self) -> SessionRecord:
        """As much of a session's record as the file holds."""
        return SessionRecord(
            reason=self.ended,
            override=self.override,
            override_boot=self.override_boot,
            paired=self.paired,
            account=self.account,
            generation=self.generation,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A folder of the session root that is named like an instance."""

    id: InstanceId
    identity: Identity | None
    problem: str = ""
    """Why there is no identity."""


def create(root: Path, instance: Instance) -> Path:
    """Make the folder of an instance, with its identity; return its path.

    A folder that a crash left behind is taken over. One that holds a session of something
    else is refused: it must be retired first.
    """
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
    write_identity(
        root,
        instance,
        paired=before.paired if before else False,
        account=before.account if before else "",
        lineage=new_lineage() if before is None else None,
    )
    return path


def new_lineage() -> str:
    return secrets.token_hex(8)


def write_identity(
    root: Path,
    instance: Instance,
    paired: bool,
    account: str,
    *,
    lineage: str | None = None,
    ended: str = "",
) -> None:
    """As `replace_identity`; what is not named is begun afresh."""
    replace_identity(root, Identity(instance, paired, account, ended=ended), lineage=lineage)


def replace_identity(root: Path, identity: Identity, *, lineage: str | None = None) -> None:
    """Replace instance.json; keys that another version put there are kept, and the lineage too."""
    id = identity.instance.id
    path = root / id
    with open_root(root) as root_fd, open_folder(path, id, root_fd) as fd:
        content = _other_keys(path, fd)
        if lineage is not None:
            content["lineage"] = lineage
        put_identity(path, fd, identity, modes_of(root_fd), content)


def put_identity(
    path: Path, fd: int, identity: Identity, modes: Modes, others: Mapping[str, Any]
) -> None:
    """Write instance.json into an open folder, wherever it lies."""
    instance = identity.instance
    content = {
        **others,
        "version": VERSION,
        "id": instance.id,
        "engine": instance.engine,
        "enabled": instance.enabled,
        "settings": dict(instance.settings),
        "created_wall": instance.created_wall,
        "paired": identity.paired,
        "account": identity.account,
        "ended": identity.ended,
        "override": identity.override,
        "override_boot": identity.override_boot,
        "generation": identity.generation,
    }
    raw = json.dumps(content, indent=1).encode() + b"\n"
    if len(raw) > LARGEST_IDENTITY:
        raise VaultError(
            f"cannot write {path / FILE}: {len(raw)} bytes are more than a worker reads",
            code="too_large",
        )
    write_atomically(path, fd, FILE, raw, mode=modes.file, group=modes.group)


def read_identity(folder: Path) -> Identity:
    """The identity in an instance's folder; VaultError says why there is none."""
    with open_instance(folder.parent, InstanceId(folder.name)) as fd:
        raw = read_plain_file(folder, fd, FILE)
    return parse_identity(raw, folder)


def parse_identity(raw: bytes, folder: Path) -> Identity:
    path = folder / FILE
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise VaultError(f"cannot read {path}: {error}", code="damaged") from None
    problem = _find_problem(content, folder.name)
    if problem:
        raise VaultError(f"cannot read {path}: {problem}", code="damaged")
    instance = Instance(
        parse_instance_id(content["id"]),
        content["engine"],
        content["enabled"],
        content.get("settings", {}),
        float(content.get("created_wall", 0.0)),
    )
    return Identity(
        instance,
        content.get("paired", False),
        content.get("account", ""),
        content.get("lineage", ""),
        content.get("ended", ""),
        _override(content.get("override", "")),
        content.get("override_boot", ""),
        content.get("generation", 0),
    )


def _override(word: str) -> Override:
    """A word of another version's is none of ours."""
    return Override(word) if word in set(Override) else Override.NONE


def scan(root: Path) -> list[Found]:
    """Every folder named like an instance, whether its identity can be read or not."""
    found = []
    with open_root(root, create=True) as root_fd:
        names = names_in(root_fd)
    for name in names:
        try:
            id = parse_instance_id(name)
        except InvalidRequest:
            continue  # .trash, .snapshots, lost+found
        try:
            found.append(Found(id, read_identity(root / name)))
        except VaultError as error:
            found.append(Found(id, None, str(error)))
    return found


def found_sessions(root: Path) -> list[tuple[Instance, SessionRecord]]:
    """What a lost database is rebuilt from. Folders that say nothing are left as they are."""
    sessions = []
    for one in scan(root):
        if one.identity is None:
            _log.error("%s is not restored: %s", one.id, one.problem, extra=about(one.id))
            continue
        sessions.append((one.identity.instance, one.identity.record))
    return sessions


def _find_problem(content: Any, name: str) -> str:
    if not isinstance(content, dict):
        return "it is not a JSON object"
    version = content.get("version")
    if version != VERSION or isinstance(version, bool):
        return f"its version is {version!r:.40}, this program knows {VERSION}"
    if content.get("id") != name:
        return f"it names {content.get('id')!r:.80}, but its folder is {name!r}"
    wanted: Mapping[str, type | tuple[type, ...]] = {
        "engine": str,
        "enabled": bool,
        "settings": dict,
        "created_wall": (int, float),
        "paired": bool,
        "account": str,
        "lineage": str,
        "ended": str,
        "override": str,
        "override_boot": str,
        "generation": int,
    }
    for key, kind in wanted.items():
        missing = key in ("engine", "enabled") and key not in content
        if missing or (key in content and not isinstance(content[key], kind)):
            return f"{key} is missing or of the wrong kind"
    return "" if content["engine"] else "engine is empty"


def _other_keys(folder: Path, folder_fd: int) -> dict[str, Any]:
    try:
        content = json.loads(read_plain_file(folder, folder_fd, FILE))
    except (VaultError, ValueError, RecursionError):
        return {}  # the caller knows the truth; what cannot be read has nothing to keep
    return content if isinstance(content, dict) else {}


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
