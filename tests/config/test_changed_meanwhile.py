"""agent.toml is a person's file: what an editor writes meanwhile is not lost."""

import os
from pathlib import Path

import pytest

from agent.config import settings_file
from agent.config.settings_file import add_rows
from agent.errors import TryLater
from tests.lacking import not_lent

ROW = {"name": "b", "engine": "evolution", "url": "http://127.0.0.1:1", "key": "k"}
TABLE = "[[backend]]\n" + "".join(f'{key} = "{value}"\n' for key, value in ROW.items())


def add(path: Path) -> Path:
    return add_rows(path, "backend", [ROW], TABLE, env={}, what="add a backend to")


def test_an_edit_between_read_and_rename_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\n")
    edited = "[agent]\n# a word of mine\n"
    write = settings_file.write_whole

    def edit(target: Path, content: bytes, **how: int) -> None:
        write(target, content, **how)
        path.write_text(edited)

    with monkeypatch.context() as patch, pytest.raises(TryLater, match="changed it") as refused:
        patch.setattr(settings_file, "write_whole", edit)
        add(path)
    assert refused.value.code == "config_changed"
    assert path.read_text() == edited
    backup = add(path)
    assert (path.read_text(), backup.read_text()) == (f"{edited}\n{TABLE}", edited)


def test_a_file_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        not_lent("only root gives a file away")
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\n")
    path.chmod(0o640)
    os.chown(path, 1234, 1235)
    for file in (add(path), path):
        found = file.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o640)
