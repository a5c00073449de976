"""`wa-agent pair` without a browser: what it asks before, what it writes, what it leaves."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.cli import pair as command
from agent.cli.command import run
from agent.engines.web.browser import process
from agent.errors import ConfigError, VaultError
from agent.vault.archives import Limits, read_archive_manifest

ACCOUNT = "4915112345678"


@pytest.fixture(autouse=True)
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A display, a browser, and a person who links at once: the profiles that were made."""
    made: list[Path] = []

    async def link(session: Path, *_: Any, **__: Any) -> dict[str, Any]:
        made.append(session)
        store = session / "profile/Default/IndexedDB/x.indexeddb.leveldb"
        store.mkdir(parents=True)
        (store / "CURRENT").write_text("MANIFEST-000001\n")
        (store / "MANIFEST-000001").write_bytes(bytes(9))
        note = {"version": 1, "paired": True, "account": ACCOUNT, "page": ""}
        (session / "web.json").write_text(json.dumps(note))
        return {"account": ACCOUNT, "needs_passkey": True}

    (scratch := tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(command, "link", link)
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("WA_BROWSER", sys.executable)
    return made


def pair(file: Path, *words: str) -> int:
    return run(["pair", "--out", str(file), "--browser", sys.executable, *words])


def test_a_linked_session_becomes_an_archive_for_its_owner_alone(
    tmp_path: Path, desktop: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sales.tar.gz"
    assert pair(file) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert "who has it has the account" in capsys.readouterr().err
    with file.open("rb") as raw:
        manifest = read_archive_manifest(raw, Limits())
    assert (manifest.id, manifest.engine, manifest.paired) == ("sales", "web", True)
    assert (manifest.account, manifest.needs_passkey) == (ACCOUNT, True)
    assert not desktop[0].exists(), "what the server runs is nowhere else"
    assert pair(file) == 4 and len(desktop) == 1, "another pairing's archive is not replaced"
    assert pair(file, "--force") == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), VaultError("damaged")])
def test_without_the_archive_nothing_of_the_pairing_stays(
    tmp_path: Path,
    desktop: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def breaks(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("agent.cli.pair.pack_session", breaks)
    assert pair(tmp_path / "sales.tar.gz") == 1
    err = capsys.readouterr().err
    assert "the profile is removed: remove the linked device on the phone" in err
    assert str(error.args[-1]) in err
    assert not desktop[0].exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]


def test_it_asks_for_a_file_and_a_window_before_a_phone_is_linked(
    tmp_path: Path,
    desktop: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert pair(tmp_path / "fifo") == 4
    assert "it is a link, a device, a FIFO or a socket" in capsys.readouterr().err
    assert pair(tmp_path / "My Shop.tar.gz") == 2
    assert pair(tmp_path / "nowhere" / "sales.tar.gz") == 4
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert pair(tmp_path / "sales.tar.gz") == 78
    assert "desktop's terminal" in capsys.readouterr().err
    assert not desktop


def test_a_browser_is_searched_for_and_may_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "google-chrome"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "BINARIES", {"chromium": ()})
    with pytest.raises(ConfigError, match="install it"):
        process.find_visible_browser()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for named in ("", "google-chrome", str(program)):
        found = process.find_visible_browser(named)
        assert (found.path, found.visible) == (program, True)
    with pytest.raises(ConfigError):
        process.find_visible_browser("no-such-browser")
