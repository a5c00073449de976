"""agent.files: a write follows no link and makes no folder."""

import os
from pathlib import Path

import pytest

from agent.files import put_in_place, remove_left_over, replace_folder, write_whole


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"untouched")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "a", b"new", mode=0o640)
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "victim").read_bytes() == b"untouched"


def test_a_missing_folder_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "gone" / "a", b"x")
    assert not (tmp_path / "gone").exists()


def test_only_the_left_over_of_that_name_and_of_another_process_is_removed(tmp_path: Path) -> None:
    own, other = f".a.{os.getpid()}-1.tmp", ".a.1-1.tmp"
    for name in (own, other, ".b.1-1.tmp", "a"):
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    remove_left_over(fd, "a")
    os.close(fd)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([own, ".b.1-1.tmp", "a"])


def test_a_folder_takes_its_place_and_the_old_one_is_kept(tmp_path: Path) -> None:
    for name in ("ready", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    replace_folder(tmp_path / "ready", tmp_path / "target")
    assert (tmp_path / "target" / "which").read_text() == "ready"
    (old,) = tmp_path.glob("target.old-*")
    assert (old / "which").read_text() == "target"
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "ready", tmp_path / "target")
