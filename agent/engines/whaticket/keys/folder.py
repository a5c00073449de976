"""Auth folders of Baileys: which files are a peer's, taking files out, putting them back. Blocking;
runs in a thread. All is opened relative to the session's folder without following a link."""

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from agent.engines.whaticket.keys.damage import is_record, own_users, state_of_creds, worth_reading
from agent.engines.whaticket.keys.files import failed, write_private
from agent.engines.whaticket.keys.moves import is_there, make, move, moved_at_once
from agent.engines.whaticket.keys.peers import Peers, mappings_of, with_mapped
from agent.engines.whaticket.keys.removed import (
    FILES,
    FileEntry,
    Removal,
    RemovedKeys,
    is_safe_name,
    measure,
    opened,
    read_file,
    safe_name,
)
from agent.errors import EngineError
from agent.files import sync

CREDS = "creds.json"
_SUFFIX = ".json"
_LOOKS, _BETWEEN = 20, 0.005


@dataclass(frozen=True, slots=True)
class AuthFolder:
    """`template`: /path/{id}"""

    template: str

    def path(self, id: str) -> Path:
        return Path(self.template.replace("{id}", safe_name(id)))

    def look(self, id: str) -> str:
        """absent, unpaired, paired, damaged or unreadable, by its creds."""
        try:
            return state_of_creds(self._creds(id))
        except EngineError as error:
            gone = isinstance(error.__cause__, FileNotFoundError)
            return "absent" if gone else "unreadable"

    def own_users(self, id: str) -> frozenset[str]:
        with contextlib.suppress(EngineError):
            return own_users(self._creds(id))
        return frozenset()

    def _creds(self, id: str) -> bytes:
        with opened(self.path(id)) as fd:
            return _read_settled(self.path(id), fd, CREDS)

    def holds(self, id: str, address: str) -> bool:
        """Whether this session has talked with that address."""
        with contextlib.suppress(EngineError, OSError):
            name = self.path(id) / f"session-{address}{_SUFFIX}"
            return stat.S_ISREG(name.lstat().st_mode)
        return False

    def other_names(self, id: str, users: Iterable[str]) -> Peers:
        """Those users with their other forms, as the session's own mappings have them."""
        users = frozenset(users)
        raw = []
        with opened(self.path(id)) as fd:
            for mapping in (key for user in users for key in mappings_of(user)):
                with contextlib.suppress(EngineError, ValueError, RecursionError):
                    raw.append(json.loads(read_file(self.path(id), fd, mapping + _SUFFIX)[0]))
        return with_mapped(users, raw)

    def names(self, id: str, peers: Peers) -> list[str]:
        """The files of these peers alone."""
        with opened(self.path(id)) as fd:
            return [name for name, key in _keys_in(fd) if peers.owns(key)]

    def damaged(self, id: str) -> list[str]:
        """The files whose content is no record that Baileys can use. Baileys empties a file before
        it writes it: the same must be read twice."""
        damaged, path = [], self.path(id)
        with opened(path) as fd:
            for name, key in _keys_in(fd):
                if not worth_reading(key):
                    continue
                with contextlib.suppress(EngineError):  # a link or a giant is none of ours
                    if _is_damaged(path, fd, name, key):
                        damaged.append(name)
        return damaged

    def ids(self) -> list[str]:
        """Every session that has a folder here; EngineError where they cannot be listed."""
        place = Path(self.template)
        before, after = place.name.split("{id}")
        try:
            with os.scandir(place.parent) as entries:
                folders = [entry.name for entry in entries if entry.is_dir()]
        except OSError as error:
            raise failed("list the sessions in", place.parent, error) from error
        names = (n for n in folders if n.startswith(before) and n.endswith(after))
        ids = sorted(name[len(before) : len(name) - len(after)] for name in names)
        return [id for id in ids if is_safe_name(id)]

    def must_be_writable(self, id: str) -> None:
        """EngineError where nothing can be moved out of its folder."""
        path = self.path(id)
        if not os.access(path, os.W_OK | os.X_OK):
            raise EngineError(
                f"cannot remove keys from {path}: this user may not write there, or its disk is"
                " read-only; the session was not touched",
                code="files",
            )

    def measure(self, id: str, names: Iterable[str]) -> tuple[FileEntry, ...]:
        """Every one of them read; EngineError for one that cannot be."""
        path = self.path(id)
        with opened(path) as fd:
            return tuple(measure(path, fd, name) for name in names)

    def size_elsewhere(self, shelf: RemovedKeys, id: str, names: Iterable[str]) -> int:
        """What a copy of them takes on a disk of 4 KiB blocks; 0 where they move in one step."""
        path = self.path(id)
        with opened(path) as fd:
            if os.fstat(fd).st_dev == shelf.device(id):
                return 0
            return sum(-(-measure(path, fd, name).size // 4096) * 4096 for name in names)

    def all_names(self, id: str) -> list[str]:
        """Every regular file, the creds last; [] where there is no folder."""
        path = self.path(id)
        if not os.path.lexists(path):
            return []
        with opened(path) as fd:
            names = [n for n in _names_in(fd) if _is_file(n, fd)]
        return sorted(names, key=lambda name: name == CREDS)

    def take_out(self, shelf: RemovedKeys, removal: Removal, id: str, *, whole: bool) -> Removal:
        """Move what the manifest lists; it was read just before. Then read it again there."""
        path, target = self.path(id), removal.path / FILES
        removal = shelf.write(replace(removal, source=str(path), whole=whole))
        moved = whole and moved_at_once(path, target)
        if not moved:
            make(target)
            with opened(path) as source_fd, opened(target) as target_fd:
                for file in removal.files:
                    move(file, path, source_fd, target, target_fd)
        sync(path.parent if moved else path)
        self._read_again(removal, path, target)
        return shelf.write(replace(removal, state="done"))

    def copy(self, shelf: RemovedKeys, removal: Removal, id: str) -> Removal:
        """A copy of what the manifest lists, of a session that cannot be stopped first."""
        path, target = self.path(id), removal.path / FILES
        make(target)
        entries = []
        with opened(path) as fd, opened(target) as target_fd:
            for file in removal.files:
                write_private(target / file.name, _read_settled(path, fd, file.name))
                entries.append(replace(file, sha256=measure(target, target_fd, file.name).sha256))
        copied = replace(removal, source=str(path), files=tuple(entries), state="done")
        return shelf.write(copied)

    def left_to_put_back(self, removal: Removal, id: str) -> tuple[FileEntry, ...]:
        """The files that are not back yet: all of them, or what an interrupted round left. Each was
        read and is whole; EngineError for one that is in neither place."""
        kept = _digests(removal.path / FILES, removal.files)
        here = _digests(self.path(id), removal.files)
        left = []
        for file in removal.files:
            if kept.get(file.name) == file.sha256:
                left.append(file)
            elif here.get(file.name) != file.sha256:
                raise EngineError(
                    f"cannot put back {removal.path / FILES / file.name}: it is missing or has"
                    " changed since it was kept; nothing of the session was touched",
                    code="files",
                )
        return tuple(left)

    def put_back(self, shelf: RemovedKeys, removal: Removal, id: str) -> None:
        """What stands in the way was moved aside before."""
        path, backup = self.path(id), removal.path / FILES
        left = self.left_to_put_back(removal, id)
        at_once = removal.whole and left == removal.files and not os.path.lexists(path)
        if left and not (at_once and moved_at_once(backup, path)):
            make(path)
            with opened(backup) as backup_fd, opened(path) as path_fd:
                for file in left:
                    if is_there(file.name, path_fd):
                        raise EngineError(
                            f"cannot put back {path / file.name}: it exists again", code="files"
                        )
                    move(file, backup, backup_fd, path, path_fd)
        sync(path.parent)
        shelf.write(replace(removal, state="put_back"))

    def _read_again(self, removal: Removal, path: Path, backup: Path) -> None:
        """What lies on the shelf is what the manifest says."""
        if not removal.files:
            return
        with opened(backup) as fd:
            changed = [f for f in removal.files if measure(backup, fd, f.name).sha256 != f.sha256]
            if not changed:
                return
            if os.path.lexists(path):
                with opened(path) as path_fd:
                    for file in changed:
                        move(file, backup, fd, path, path_fd)
        raise EngineError(
            f"cannot keep {backup / changed[0].name}: it changed while it was moved", code="files"
        )


def _digests(folder: Path, files: Iterable[FileEntry]) -> dict[str, str]:
    """By name, of those files that are there."""
    if not os.path.lexists(folder):
        return {}
    digests = {}
    with opened(folder) as fd:
        for file in files:
            if is_there(file.name, fd):
                digests[file.name] = measure(folder, fd, file.name).sha256
    return digests


def _read_settled(folder: Path, fd: int, name: str) -> bytes:
    """The same content twice in a row: Baileys empties a file before it writes it."""
    last = b""
    for _ in range(_LOOKS):
        content, _ = read_file(folder, fd, name)
        if content and content == last:
            break
        last = content
        time.sleep(_BETWEEN)
    return last


def _is_damaged(folder: Path, fd: int, name: str, key: str) -> bool:
    if is_record(key, read_file(folder, fd, name)[0]):
        return False
    return not is_record(key, _read_settled(folder, fd, name))


def _names_in(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries)


def _keys_in(fd: int) -> list[tuple[str, str]]:
    """Files of keys, each with its key's name."""
    names = (name for name in _names_in(fd) if name.endswith(_SUFFIX))
    return [(name, name.removesuffix(_SUFFIX)) for name in names]


def _is_file(name: str, fd: int) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    return False
