"""An acknowledged change is on the disk: no fsync may be missing, and none may come late.

A killed process keeps the machine's page cache, so no kill shows a missing fsync. Here the calls
of the system are watched instead: each makes the disk owe something, an fsync pays it, and
a thing that is renamed to its final name must be on the disk whole.
"""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import Instance, InstanceId
from agent.files import make_folder
from agent.vault.archives import Limits, export_snapshot, unpack
from agent.vault.folders import DOOMED, restore_trash, retire
from agent.vault.identity import Identity, create, replace_identity
from agent.vault.restore import finish, put_in_place, restore_snapshot
from agent.vault.snapshots import Subject, take_snapshot
from tests.vault.conftest import sandbox_file

Key = tuple[int, int]


class Disk:
    """Keeps an account of what would be lost if the power were cut now."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.owed: dict[Key, str] = {}
        """By file or folder: what its content owes, in words."""
        self.broken: list[str] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("open", "mkdir", "rename", "unlink", "rmdir", "fsync"):
            monkeypatch.setattr(os, name, getattr(self, name)(getattr(os, name)))

    def open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **more: Any) -> int:
            fd = real(path, flags, *args, **more)
            if flags & os.O_CREAT:
                self.owed[_key(os.fstat(fd))] = f"the content of {_path(fd)}"
                self._entry(_path(fd).parent, f"the name of {_path(fd)}")
            return fd

        return call

    def mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> None:
            real(path, *args, dir_fd=dir_fd, **more)
            whole = _whole(path, dir_fd)
            self._entry(whole.parent, f"the name of {whole}")

        return call

    def rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(
            old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
        ) -> None:
            source, target = _whole(old, src_dir_fd), _whole(new, dst_dir_fd)
            if source.parent == self.root:
                # The next start must surely find what this one makes way for.
                self.broken += [
                    f"{source} left while the disk owed {w}" for w in self.owed.values()
                ]
            if not target.name.startswith(DOOMED):
                for inner in [source, *source.rglob("*")]:
                    if words := self.owed.get(_key(inner.lstat())):
                        self.broken.append(f"{target} got its name while the disk owed {words}")
            real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            if not target.name.startswith(DOOMED):
                for folder in {source.parent, target.parent}:
                    self._entry(folder, f"that {source} is {target}")

        return call

    def unlink(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(path: Any, *, dir_fd: int | None = None) -> None:
            whole = _whole(path, dir_fd)
            if os.path.lexists(whole):
                self.owed.pop(_key(whole.lstat()), None)
            real(path, dir_fd=dir_fd)

        return call

    rmdir = unlink

    def fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(fd: int) -> None:
            real(fd)
            self.owed.pop(_key(os.fstat(fd)), None)

        return call

    def _entry(self, folder: Path, words: str) -> None:
        self.owed[_key(folder.stat())] = words

    def debts(self) -> list[str]:
        return [*self.broken, *self.owed.values()]


def _key(status: os.stat_result) -> Key:
    return status.st_dev, status.st_ino


def _path(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _whole(path: Any, dir_fd: int | None) -> Path:
    return Path(path) if dir_fd is None else _path(dir_fd) / path


@pytest.fixture
def disk(root: Path, session: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Watched from here on: what was there before is on the disk, and so is all at the end."""
    found = Disk(root)
    found.watch(monkeypatch)
    yield found
    assert found.debts() == []


def test_an_identity_that_was_written_is_there(root: Path, sales: Instance, disk: Disk) -> None:
    create(root, Instance(InstanceId("fresh"), "sandbox", True))
    replace_identity(root, Identity(sales, True, "another account"))


def test_a_snapshot_that_was_taken_is_whole(root: Path, subject: Subject, disk: Disk) -> None:
    take_snapshot(root, subject)


def test_a_session_that_was_restored_is_there_and_so_is_the_old_one(
    root: Path, sales: Instance, subject: Subject, disk: Disk
) -> None:
    restore_snapshot(root, sales, take_snapshot(root, subject), "a test")


def test_a_session_that_was_retired_or_brought_back_is_where_it_was_said_to_be(
    root: Path, sales: Instance, disk: Disk
) -> None:
    gone = retire(root, sales.id, "a test")
    assert disk.debts() == []
    restore_trash(root, gone.name)


def test_a_session_that_came_in_an_archive_is_there(
    root: Path, subject: Subject, disk: Disk
) -> None:
    out = io.BytesIO()
    export_snapshot(root, take_snapshot(root, subject), out)
    limits = Limits(packed=1 << 22, unpacked=1 << 22, files=100)
    other = InstanceId("other")
    unpack(root, io.BytesIO(out.getvalue()), other, limits)
    identity = Identity(Instance(other, "sandbox", False), True, "49151")
    put_in_place(root, "import", identity, lineage="l", why="", replace=False)


def test_a_restore_that_a_crash_left_half_done_is_finished_for_good(
    root: Path, sales: Instance, session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = root / ".staging" / "sales.ready"
    (ready / "session").mkdir(parents=True)
    (ready / "session" / "sandbox.json").write_bytes(sandbox_file())
    retire(root, sales.id, "")
    disk = Disk(root)
    disk.watch(monkeypatch)
    assert finish(root) != []
    assert disk.debts() == []


def test_a_backends_folder_outlives_a_power_cut(root: Path, disk: Disk) -> None:
    make_folder(root / "backends" / "server")
