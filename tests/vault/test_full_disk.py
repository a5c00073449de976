"""A full or read-only disk: the old file stays, the cause is named, and it works again after."""

import subprocess

import pytest

from agent.errors import VaultError
from agent.vault.folders import look_for_room, why_no_start
from agent.vault.identity import create, read_identity
from agent.vault.trash import retire
from tests.vault.written import write_identity


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_disk_keeps_the_old_identity(small_disk, sales):
    root = small_disk("size=64k,mode=0700")
    folder = create(root, sales)
    fill(root)
    with pytest.raises(VaultError, match="the disk is full") as caught:
        write_identity(root, sales, True, "x" * 5000)
    assert caught.value.code == "disk_full"
    assert not read_identity(folder).paired
    assert sorted(part.name for part in folder.iterdir()) == ["instance.json", "session"]
    (root / "ballast").unlink()
    write_identity(root, sales, True, "x")
    assert read_identity(folder).paired


def test_a_read_only_disk_is_named(small_disk, sales):
    root = small_disk("size=64k,mode=0700")
    create(root, sales)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    for call in (
        lambda: write_identity(root, sales, True, ""),
        lambda: retire(root, sales.id, ""),
    ):
        with pytest.raises(VaultError, match="read-only") as caught:
            call()
        assert caught.value.code == "read_only"
    assert read_identity(root / "sales").instance == sales


def test_no_session_starts_on_a_disk_that_stopped_its_writes(failing_disk):
    assert why_no_start(failing_disk.folder, 1) == ""
    assert not look_for_room(failing_disk.folder).read_only
    failing_disk.fail()
    assert "read-only" in why_no_start(failing_disk.folder, 1)
    assert look_for_room(failing_disk.folder).read_only


def test_a_trash_on_another_file_system_is_refused(small_disk, root, sales):
    """A move there would be a copy and a delete, which a crash can tear."""
    create(root, sales)
    other = small_disk("size=64k,mode=0700")
    (root / ".trash").mkdir()
    subprocess.run(["mount", "--bind", str(other), str(root / ".trash")], check=True)
    try:
        with pytest.raises(VaultError, match="another file system"):
            retire(root, sales.id, "")
    finally:
        subprocess.run(["umount", str(root / ".trash")], check=True)
    assert read_identity(root / "sales").instance == sales


def test_s9_what_is_missing_on_a_read_only_disk_is_called_missing(small_disk, sales):
    root = small_disk("size=64k,mode=0700")
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    with pytest.raises(VaultError, match=f"it does not exist, and {root} is read-only") as caught:
        create(root, sales)
    assert caught.value.code == "read_only"
