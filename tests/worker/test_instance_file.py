"""A worker reads its instance.json, or says that it cannot be used."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, FolderUnusable
from agent.worker.identity import read_identity


@given(st.binary(max_size=100) | st.from_regex(rb'\{"version": ?1, ?"id": ?"a", ?.{0,40}\}'))
def test_an_identity_of_any_bytes_is_read_or_says_that_it_cannot_be_used(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    root = tmp_path_factory.mktemp("r")
    (root / "a").mkdir()
    (root / "a" / "instance.json").write_bytes(text)
    try:
        identity = read_identity("a", root)
    except FolderUnusable as error:
        assert error.exit_status == 66
    else:
        assert identity.id == "a" and isinstance(identity.engine, str)


@given(st.text(max_size=60))
def test_an_id_of_any_text_is_found_or_a_configuration_error(id: str) -> None:
    with pytest.raises((ConfigError, FolderUnusable)):
        read_identity(id, Path("/nonexistent"))


def test_an_identity_that_is_no_file_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "instance.json")  # opening it must not wait for a writer
    with pytest.raises(FolderUnusable):
        read_identity("a", tmp_path)
    (tmp_path / "b" / "instance.json").mkdir(parents=True)
    with pytest.raises(FolderUnusable):
        read_identity("b", tmp_path)
