"""A session without its record: which files are a program's."""

from pathlib import Path

import pytest

from agent.engines.program.note import NOTE
from agent.vault.copies.recover import _engines_of
from tests.wings.moving.conftest import keys_of, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "session").mkdir(parents=True)
    return tmp_path


def test_files_of_another_engine_are_no_programs(folder: Path) -> None:
    assert _engines_of(folder) == []
    (folder / "session" / "sandbox.json").write_text("{}")
    assert _engines_of(folder) == ["sandbox"]


def test_the_keys_of_a_bot_are_its_programs(folder: Path) -> None:
    write_folder(folder / "session", keys_of())
    assert _engines_of(folder) == ["baileys"]
    (folder / "session" / NOTE).write_text("{}")
    assert _engines_of(folder) == ["program"]
