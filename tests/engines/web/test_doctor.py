"""What keeps the web engine from working on a machine: each finding with its cure."""

import sys
from pathlib import Path

from agent.engines.web import fetch
from agent.engines.web.doctor import examine


def test_the_doctor_names_each_missing_thing_and_its_cure(tmp_path: Path) -> None:
    found = {each.code: each for each in examine(tmp_path, {"WA_BROWSER": "/nonexistent"})}
    assert {"browser_missing", "bundle_missing"} <= set(found)
    cure = found["bundle_missing"].cure
    assert cure == f"fetch it: {sys.executable} -m agent.engines.web.fetch {tmp_path}"
    path = fetch.bundle_path(tmp_path)
    path.parent.mkdir()
    path.write_text("changed")
    found = {each.code: each for each in examine(tmp_path)}
    assert "fetch it again" in found["bundle_changed"].cure


def test_the_doctor_finds_nothing_where_all_is_there(cache: Path, browser: None) -> None:
    assert [each for each in examine(cache) if each.serious] == []
