"""Files that a worker left of failed starts are read without trusting them."""

import json
from pathlib import Path

import pytest

from agent.api.handlers.events import list_failed_starts, read_picture
from agent.core.model import InstanceId
from agent.errors import NotFound

ID = InstanceId("sales")
JPEG = b"\xff\xd8\xff\xe0 a picture"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "sales" / "session" / "diagnostics"
    found.mkdir(parents=True)
    return found


def test_failed_starts_are_listed_newest_first(tmp_path: Path, folder: Path) -> None:
    for day in (1, 2):
        note = {"why": f"day {day}", "page": {"url": "https://user:secret@web.whatsapp.com"}}
        (folder / f"2026110{day}T101112Z.json").write_text(json.dumps(note))
    (folder / "20261102T101112Z.jpg").write_bytes(JPEG)
    (folder / "notes.json").write_text("{}")
    second, first = list_failed_starts(tmp_path, ID)
    assert (second["name"], second["seen"]["why"]) == ("20261102T101112Z", "day 2")
    assert (second["picture"], first["picture"]) == (True, False)
    assert "secret" not in str(first["seen"])
    assert read_picture(tmp_path, ID, second["name"]) == JPEG


def test_a_session_without_failed_starts_has_an_empty_list(tmp_path: Path) -> None:
    assert list_failed_starts(tmp_path, ID) == []
    (tmp_path / "sales" / "session").mkdir(parents=True)
    assert list_failed_starts(tmp_path, ID) == []


@pytest.mark.parametrize("content", [b"[]", b"[" * 100_000])
def test_a_note_that_is_no_object_is_named(tmp_path: Path, folder: Path, content: bytes) -> None:
    (folder / "20261101T101112Z.json").write_bytes(content)
    (found,) = list_failed_starts(tmp_path, ID)
    assert found["seen"]["why"].startswith("20261101T101112Z.json ")


def test_a_planted_link_shows_no_other_file(tmp_path: Path, folder: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(JPEG)
    (folder / "20261101T101112Z.jpg").symlink_to(secret)
    (folder / "20261101T101112Z.json").symlink_to(secret)
    with pytest.raises(NotFound):
        read_picture(tmp_path, ID, "20261101T101112Z")
    (found,) = list_failed_starts(tmp_path, ID)
    assert found["seen"] == {"why": "20261101T101112Z.json cannot be read"}
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert list_failed_starts(tmp_path, ID) == []


@pytest.mark.parametrize("name", ["../../../secret", "20261101T101112Z"])
def test_a_file_that_is_no_picture_is_not_found(tmp_path: Path, folder: Path, name: str) -> None:
    (folder / "20261101T101112Z.jpg").write_bytes(b"<html>")
    with pytest.raises(NotFound, match="cannot show the picture"):
        read_picture(tmp_path, ID, name)
