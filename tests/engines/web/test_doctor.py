"""What keeps the web engine from working on a machine: each finding with its cure."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.engines.web import bundle, doctor
from agent.engines.web.browser import arguments
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


def test_a_machine_without_setpriv_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = found_by(tmp_path)["setpriv_missing"]
    assert found.serious and found.cure.endswith("apt-get install util-linux")


def test_pictures_need_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_FONT_FOLDERS", (str(tmp_path / "fonts"), str(tmp_path)))
    found = found_by(tmp_path)["fonts_missing"]
    assert not found.serious and found.cure == "apt-get install fonts-liberation"
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "Some.ttf").touch()
    assert "fonts_missing" not in found_by(tmp_path)


@pytest.mark.parametrize(
    ("blocks", "small"),
    [
        pytest.param(64 * 256, False, id="64 MB"),
        pytest.param(64 * 256 - 1, True, id="less"),
        pytest.param(None, True, id="none at all"),
    ],
)
def test_a_small_shared_memory_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int | None, small: bool
) -> None:
    def statvfs(path: str) -> object:
        assert path == "/dev/shm"
        if blocks is None:
            raise FileNotFoundError(path)
        return SimpleNamespace(f_frsize=4096, f_blocks=blocks)

    monkeypatch.setattr(os, "statvfs", statvfs)
    found = found_by(tmp_path).get("shared_memory_small")
    assert (found is not None) is small
    if found is not None:
        assert not found.serious and found.cure.startswith("mount -o remount,size=")


def test_every_kind_of_browser_that_instances_want_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "shell"
    there.touch()
    monkeypatch.setattr(arguments, "BINARIES", {"headless-shell": (str(there),), "chromium": ()})

    def missing(*kinds: str, **env: str) -> list[str]:
        found = examine(tmp_path, env, kinds)
        return [each.cure for each in found if each.code == "browser_missing"]

    assert missing("headless-shell") == []
    (cure,) = missing("chromium", "headless-shell")
    assert "apt-get install chromium " in cure
    assert missing("chromium", WA_BROWSER=str(there)) == [], "the named one serves all"
