"""The file that one run leaves for the next: old or new after any crash."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.engines.whaticket.keys.files import make_private, read_json, write_json
from agent.errors import ConfigError, EngineError, TryLater

UNNAMED = "*"
"""In the place of a session: whose these errors are cannot be told."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of one kind, of one peer of one session, in one stretch of ten seconds."""

    at: float
    session: str
    peer: str
    name: str
    """Words that the pattern knows again."""
    count: int


@dataclass(frozen=True, slots=True)
class Down:
    """A session that a round disconnected and that was not seen connected since."""

    since: float
    why: str
    peers: tuple[str, ...] = ()
    damaged: bool = False
    """Its unreadable records were to be removed."""
    taken: bool = False
    """What was to be removed is removed: it only has to come up."""
    reset: bool = False
    put_back: str = ""
    """The removal that was to come back."""

    @property
    def left_undone(self) -> bool:
        return bool(self.peers or self.damaged or self.put_back)


@dataclass(slots=True)
class Stats:
    checked: int = 0
    repaired: int = 0
    cleaned: int = 0
    failed: int = 0
    needed_person: int = 0
    check_seconds: float = 0.0
    repair_seconds: float = 0.0


@dataclass(slots=True)
class Memory:
    path: Path
    positions: dict[str, Any] = field(default_factory=dict)
    errors: list[Errors] = field(default_factory=list)
    down: dict[str, Down] = field(default_factory=dict)
    stats: Stats = field(default_factory=Stats)
    writes: bool = True
    """False in a dry round."""

    def save(self) -> None:
        if not self.writes:
            return
        write_json(
            self.path,
            {
                "version": 1,
                "positions": self.positions,
                "errors": [asdict(errors) for errors in self.errors],
                "down": {id: asdict(down) for id, down in self.down.items()},
                "stats": asdict(self.stats),
            },
        )

    def forget_errors(self, session: str) -> None:
        self.errors = [errors for errors in self.errors if errors.session != session]

    def is_down(self, id: str, down: Down) -> None:
        """On the disk before the session is touched."""
        self.down[id] = down
        self.save()

    def is_up(self, id: str) -> None:
        self.down.pop(id, None)
        self.save()


def open_memory(folder: Path, *, writes: bool) -> Memory:
    """What the last round left. ConfigError where it can be neither made nor read."""
    path = folder / "memory.json"
    if writes:
        try:
            make_private(folder)
        except EngineError as error:
            raise ConfigError(str(error)) from error
    raw = read_json(path)
    if raw is None and path.exists():
        raise ConfigError(
            f"cannot read {path}: it is damaged or not readable here. It holds what a round took"
            " down: look whether every session is connected, then remove it"
        )
    memory = Memory(path, writes=writes)
    if isinstance(raw, dict) and raw.get("version") == 1:
        try:
            _fill(memory, raw)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error
    return memory


def _fill(memory: Memory, raw: Mapping[str, Any]) -> None:
    memory.positions = {str(key): dict(where) for key, where in raw["positions"].items()}
    memory.errors = [Errors(**_fields(Errors, errors)) for errors in raw["errors"]]
    for id, entry in raw["down"].items():
        down = _fields(Down, entry)
        memory.down[str(id)] = Down(**{**down, "peers": tuple(down.get("peers", ()))})
    memory.stats = Stats(**_fields(Stats, raw["stats"]))


def _fields(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One round at a time; the lock of one that was killed is gone with it."""
    try:
        fd = os.open(make_private(folder) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, EngineError) as error:
        raise ConfigError(f"cannot write {folder}: {error}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TryLater("another round runs; try again later") from error
        yield
    finally:
        os.close(fd)
