"""agent.toml is a person's file: what an editor writes meanwhile is not lost."""

import os
from pathlib import Path

import pytest

from agent.config.settings_file import change_rows, with_rows
from agent.errors import TryLater
from tests.lacking import not_lent

TABLE = '[[backend]]\nname = "b"\nengine = "evolution"\nurl = "http://127.0.0.1:1"\nkey = "k"\n'
ROW = {"name": "b", "engine": "evolution", "url": "http://127.0.0.1:1", "key": "k"}


def test_an_edit_between_read_and_rename_stays(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\n")
    edited = "[agent]\n# a word of mine\n"

    def change(text: str) -> str:
        path.write_text(edited)
        return with_rows(text, "backend", [ROW], TABLE)

    with pytest.raises(TryLater, match="somebody changed it meanwhile") as refused:
        change_rows(path, change, {}, "add a backend to")
    assert refused.value.code == "config_changed"
    assert path.read_text() == edited
    backup = change_rows(path, lambda text: with_rows(text, "backend", [ROW], TABLE), {}, "add to")
    assert (path.read_text(), backup.read_text()) == (f"{edited}\n{TABLE}", edited)
    assert not list(tmp_path.glob(".agent.toml.*.new"))


def test_a_file_keeps_its_owner_and_mode(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        not_lent("only root gives a file away")
    path = tmp_path / "agent.toml"
    path.write_text("[agent]\n")
    path.chmod(0o640)
    os.chown(path, 1234, 1235)
    backup = change_rows(path, lambda text: with_rows(text, "backend", [ROW], TABLE), {}, "add to")
    for file in (path, backup):
        found = file.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1235, 0o640)
