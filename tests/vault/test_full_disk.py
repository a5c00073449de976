"""A full or read-only disk: the old file stays, the cause is named, and it works again after."""

import subprocess

import pytest

from agent.errors import VaultError
from agent.vault.folders import retire
from agent.vault.identity import create, read_identity


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
