"""The rules that each engine has for its session files, applied to an open folder."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from agent.engines.catalog import file_rules
from agent.engines.files import FilesReport, Linked
from agent.errors import VaultError
from agent.vault.atomic import read_plain_file
from agent.vault.locate import names_in, open_folder
from agent.vault.walk import Excluded

_LOCKS = frozenset({"lock", "lockfile", "LOCK", "parent.lock", ".parentlock"})


@dataclass(frozen=True, slots=True)
class _OpenSession:
    """The SessionFolder that engines' rules look at."""

    path: Path
    fd: int

    def read(self, name: str) -> bytes | None:
        try:
            return read_plain_file(self.path, self.fd, name)
        except VaultError as error:
            if error.code != "absent":
                raise
            return None

    def sizes(self, inner: str = "") -> Mapping[str, int]:
        try:
            with _open_inner(self.path, self.fd, PurePath(inner).parts) as fd:
                return dict(_sizes(fd))
        except VaultError as error:
            if error.code != "absent":
                raise
            return {}


def _sizes(fd: int) -> Iterator[tuple[str, int]]:
    for name in names_in(fd):
        with suppress(FileNotFoundError):  # a running engine removed it
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
            yield name, status.st_size if plain else 0


@contextmanager
def _open_inner(path: Path, fd: int, parts: tuple[str, ...]) -> Iterator[int]:
    if not parts:
        yield fd
        return
    with (
        open_folder(path / parts[0], parts[0], fd) as inner,
        _open_inner(path / parts[0], inner, parts[1:]) as last,
    ):
        yield last


def check_session(path: Path, session_fd: int, engine: str, paired: bool) -> FilesReport:
    """Apply that engine's rules to an open session folder."""
    return file_rules(engine).check(_OpenSession(path, session_fd), paired)


def linked_session(path: Path, session_fd: int, engine: str) -> Linked:
    """The account and device of an open session folder, as far as its files tell."""
    return file_rules(engine).linked(_OpenSession(path, session_fd))


def names_not_of(path: Path, session_fd: int, engine: str, account: str) -> Collection[str]:
    """What lies in this open folder and is none of that account's pairing."""
    return file_rules(engine).not_of(_OpenSession(path, session_fd), account)


def kept_outside(path: Path, session_fd: int, engine: str) -> str:
    """Where the session of this open folder is, if not in it; "" = it is here."""
    return file_rules(engine).outside(_OpenSession(path, session_fd))


def is_left_out(engine: str) -> Excluded:
    """Locks of this run, links that name this host, caches, files half written, and a link or pipe
    that the engine moves aside."""
    rules = file_rules(engine)
    names = rules.left_out | _LOCKS

    def left_out(path: str, /, *, plain: bool = True) -> bool:
        name = path.rpartition("/")[2]
        return (not plain and rules.moves_aside(path)) or (
            name in names
            or name.startswith("Singleton")
            or name.endswith((".lock", "-shm"))
            or (name.startswith(".") and name.endswith(".tmp"))
        )

    return left_out


def may_roll_back(engine: str) -> bool:
    """Whether an older copy may replace a newer session without `force`."""
    return not file_rules(engine).key_based
