"""The sandbox's files: whole or not there, whatever happens while they are written."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent.engines.sandbox.rules import SessionFile, read_session, read_settings, write_session
from agent.errors import ConfigError


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"scan": "never"}, "scan"),
        ({"scan_after": -1}, "scan_after"),
        ({"qr_every": 0}, "qr_every"),
        ({"messages_per_minute": float("nan")}, "messages_per_minute"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(told: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(told)
    assert caught.value.field == field


@pytest.mark.parametrize("kind", ["a pipe", "a link"])
def test_what_is_no_file_is_no_damage_and_not_followed(tmp_path: Path, kind: str) -> None:
    (other := tmp_path / "other").mkdir()
    write_session(other, SessionFile(paired=True, device="x"))
    path = tmp_path / "sandbox.json"
    os.mkfifo(path) if kind == "a pipe" else path.symlink_to(other / "sandbox.json")
    with pytest.raises(OSError, match=r"plain file|symbolic links"):
        read_session(tmp_path)
