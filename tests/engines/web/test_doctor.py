"""What keeps the web engine from working on a machine: each finding with its cure."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.engines.web import bundle
from agent.engines.web.doctor import Finding, examine


def found_by(cache: Path, **env: str) -> dict[str, Finding]:
    return {each.code: each for each in examine(cache, env)}


def test_the_doctor_names_each_missing_thing_and_its_cure(tmp_path: Path) -> None:
    found = {each.code: each for each in examine(tmp_path, {"WA_BROWSER": "/nonexistent"})}
    assert {"browser_missing", "bundle_missing"} <= set(found)
    cure = found["bundle_missing"].cure
    assert cure == f"fetch it: {sys.executable} -m agent.engines.web.fetch {tmp_path}"
    path = bundle.bundle_path(tmp_path)
    path.parent.mkdir()
    path.write_text("changed")
    found = {each.code: each for each in examine(tmp_path)}
    assert "fetch it again" in found["bundle_changed"].cure


def test_the_doctor_finds_nothing_where_all_is_there(cache: Path, browser: None) -> None:
    assert [each for each in examine(cache) if each.serious] == []


@pytest.mark.parametrize(
    ("blocks", "small"),
    [
        pytest.param(64 * 256, False, id="64 MB"),
        pytest.param(64 * 256 - 1, True, id="less"),
    ],
)
def test_a_small_shared_memory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, small: bool
) -> None:
    def statvfs(path: str) -> object:
        assert path == "/dev/shm"
        return SimpleNamespace(f_frsize=4096, f_blocks=blocks)

    monkeypatch.setattr(os, "statvfs", statvfs)
    found = found_by(tmp_path).get("shared_memory_small")
    assert (found is not None) is small
    if found is not None:
        assert not found.serious and found.cure.startswith("mount -o remount,size=")
