"""A session's keys in an auth folder of Baileys: a file for each. No link is followed.

Blocking work, in threads.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.backends.whaticket.contract import cannot, is_safe
from agent.backends.whaticket.shelf import Record
from agent.engines.tasks import in_thread
from agent.errors import EngineError
from agent.files import replacement

LARGEST = 16 << 20
SUFFIX = ".json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """`template`: /path/{id}. Names are the files' names."""

    template: str
    redis = False

    def path(self, id: str) -> Path:
        if not is_safe(id):
            what = f"find the keys of {id!r:.60}"
            raise cannot(what, "its name cannot name a folder", "remote_name")
        return Path(self.template.rstrip("/").replace("{id}", id))

    async def ids(self) -> list[str]:
        """All sessions that have a folder."""
        place = Path(self.template.rstrip("/"))
        before, after = place.name.split("{id}")
        try:
            names = [path.name for path in await in_thread(list, place.parent.iterdir())]
        except OSError as error:
            raise _failed("list the sessions in", place.parent, error) from error
        ids = (n[len(before) : len(n) - len(after)] for n in names)
        return sorted(id for id in ids if is_safe(id) and before + id + after in names)

    async def names(self, id: str) -> list[str]:
        return await in_thread(self._names, id)

    def _names(self, id: str) -> list[str]:
        if not os.path.lexists(self.path(id)):
            return []
        with _opened(self.path(id)) as fd, os.scandir(fd) as entries:
            # A link counts: it must be refused, not passed over.
            return sorted(it.name for it in entries if not it.is_dir(follow_symlinks=False))

    async def values(self, id: str, names: Sequence[str]) -> dict[str, bytes]:
        """What the files hold; those that are gone or unreadable are left out."""
        values: dict[str, bytes] = {}
        for name in names:
            with suppress(EngineError):
                values |= {it.name: it.content for it in await self.read(id, [name])}
        return values

    async def read(self, id: str, names: Sequence[str]) -> list[Record]:
        """Those that are there. EngineError: one is a link, a pipe, a giant, or unreadable."""
        return await in_thread(self._records, id, names)

    def _records(self, id: str, names: Sequence[str]) -> list[Record]:
        records = []
        with _opened(self.path(id)) as fd:
            for name in names:
                with suppress(FileNotFoundError):
                    records.append(_read(self.path(id), fd, name))
        return records

    async def remove(self, id: str, records: Sequence[Record]) -> None:
        """EngineError, before it goes, for one that is not as it was backed up."""
        await in_thread(self._remove, id, records)

    def _remove(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        with _opened(path) as fd:
            for record in records:
                try:
                    if _read(path, fd, record.name).content != record.content:
                        cause = "it changed meanwhile, so the server still writes it"
                        raise cannot(f"remove {path / record.name}", cause, "files")
                    os.unlink(record.name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise _failed("remove", path / record.name, error) from error
            os.fsync(fd)

    async def restore(self, id: str, records: Sequence[Record]) -> None:
        """With owner and mode of before. The caller moved away what was in their place."""
        await in_thread(self._restore, id, records)

    def _restore(self, id: str, records: Sequence[Record]) -> None:
        path = self.path(id)
        try:
            if not path.exists():
                path.mkdir(mode=0o700)
                os.chown(path, records[0].uid, records[0].gid)
            with _opened(path) as fd:
                for record in records:
                    with replacement(fd, record.name, mode=record.mode) as file:
                        file.write(record.content)
                        os.fchown(file.fileno(), record.uid, record.gid)
        except OSError as error:
            raise _failed("put keys back into", path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A link in its place is refused."""
    try:
        fd = os.open(path, _DIRECTORY)
    except OSError as error:
        raise _failed("open", path, error) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _read(folder: Path, fd: int, name: str) -> Record:
    """FileNotFoundError if it is gone."""
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=fd), "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(LARGEST + 1) if stat.S_ISREG(status.st_mode) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed("read", folder / name, error) from error
    if content is None or len(content) > LARGEST:
        raise cannot(f"read {folder / name}", "it is no file of keys", "files")
    mode = stat.S_IMODE(status.st_mode)
    return Record(name, content, mode=mode, uid=status.st_uid, gid=status.st_gid)


def _failed(verb: str, path: Path, error: OSError) -> EngineError:
    return cannot(f"{verb} {path}", (error.strerror or type(error).__name__).lower(), "files")
