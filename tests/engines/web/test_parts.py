"""The engine's parts without a browser: settings, bundle, profile, exchange, messages, pipes."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from agent.engines.web import fetch
from agent.engines.web.browser.connection import DebuggerConnection
from agent.engines.web.browser.process import Browser, command_line, find_browser
from agent.engines.web.rules import profile_path, read_settings
from agent.engines.web.session import (
    LOCKS,
    Note,
    Record,
    Session,
    holder,
    keep_page,
    prepare_profile,
    read_note,
    read_page,
    write_note,
)
from agent.errors import ConfigError, EngineError, Refused
from agent.moving.sources import refuse_open
from tests.refused import refused


@pytest.mark.parametrize(
    "told",
    [
        {"browser": "/bin/sh"},
        {"url": "http://example.org/"},
        {"url": "https://user:pass@web.whatsapp.com/"},
        {"page": "../../etc"},
        {"proxy": "http://user:secret@proxy:80"},
        {"arguments": ["--no-sandbox"]},
    ],
)
def test_a_setting_that_cannot_be_used_is_named(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(told)
    assert caught.value.field == next(iter(told))
    assert "secret" not in str(caught.value)


# --- the bundle ------------------------------------------------------------------------------


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = fetch.bundle_path(tmp_path)
    path.parent.mkdir()
    path.write_text("alert(1)")
    with refused(ConfigError, "bundle_changed", match="checksum"):
        fetch.read_bundle(tmp_path)
    with pytest.raises(EngineError, match="sha256"):
        fetch.keep_bundle(tmp_path, b"alert(1)")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="no plain file"):
        fetch.read_bundle(tmp_path)
    with pytest.raises(EngineError, match="no plain file"):
        fetch.read_package(str(path))


# --- the browser's command line ----------------------------------------------------------------


def test_the_sandbox_goes_only_together_with_the_zygote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = find_browser("headless-shell", sys.executable)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    walled = command_line(program, tmp_path, "")
    assert "--no-sandbox" not in walled and "--no-zygote" not in walled
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    bare = command_line(program, tmp_path, "")
    assert "--no-unsandboxed-zygote" in walled, "a tenth of the browser's memory"
    assert {"--no-sandbox", "--no-zygote"} <= set(bare)
    for line in (walled, bare):
        assert "--remote-debugging-pipe" in line
        assert not any("remote-debugging-port" in each for each in line)
        assert line[1:3] == ["--pdeathsig", "KILL"]


# --- the profile -------------------------------------------------------------------------------


def test_f46_a_lock_from_another_machine_is_removed(tmp_path: Path) -> None:
    profile = profile_path(tmp_path)
    profile.mkdir()
    (profile / "SingletonLock").symlink_to("other-host-17")
    prepare_profile(tmp_path)
    assert not (profile / LOCKS[0]).is_symlink()


LOCKED = """
import fcntl, sys
with open(sys.argv[1], "wb") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_browser_without_lock_files_is_known_by_its_databases(tmp_path: Path) -> None:
    session = tmp_path / "session"
    profile = profile_path(session)
    database = profile / "Default" / "IndexedDB/x.indexeddb.leveldb"
    database.mkdir(parents=True)
    line = [sys.executable, "-c", LOCKED, str(database / "LOCK")]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdin is not None
        process.stdout.readline()
        with refused(EngineError, "profile_in_use", match=f"process {process.pid} has it open"):
            prepare_profile(session)
        with refused(Refused, "profile_in_use"):
            refuse_open(profile, "import")
        process.stdin.close()
    assert holder(profile) is None


class ClosingBrowser:
    alive, closed = True, False

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def close(self) -> bool:
        self.begun.set()
        await asyncio.sleep(0.05)
        self.closed = True
        return False


async def test_a_close_that_loses_its_caller_goes_on_and_the_next_caller_waits_for_it(
    tmp_path: Path,
) -> None:
    def unused(*_: object) -> Any:
        raise AssertionError

    session = Session(tmp_path, read_settings({}), unused, unused, unused)
    browser = ClosingBrowser()
    session._browser = cast(Browser, browser)
    restart = asyncio.create_task(session.close())
    await browser.begun.wait()
    restart.cancel()
    await asyncio.wait({restart})
    assert await session.close() is False and browser.closed


# --- what is kept --------------------------------------------------------------------------------


def test_a_note_is_read_back_and_a_broken_one_is_empty(tmp_path: Path) -> None:
    note = Note(True, "5511", "2.3000.1", "d1")
    write_note(tmp_path, note)
    assert read_note(tmp_path) == note
    before = '{"version": 1, "paired": true, "account": "55", "page": ""}'
    (tmp_path / "web.json").write_text(before)
    assert read_note(tmp_path) == Note(True, "55")
    for text in ("{", "[]", '{"paired": 1}', "null", "\0"):
        (tmp_path / "web.json").write_text(text)
        assert read_note(tmp_path) == Note()


async def test_a_pairing_has_one_device_until_the_next(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.connected("5511")
    await record.write()
    device = read_note(tmp_path).device
    again = Record(tmp_path)
    for account in ("", "5511", "5511"):
        again.connected(account)
    await again.write()
    assert read_note(tmp_path).device == device != ""
    again.connected("5522")
    await again.write()
    other = read_note(tmp_path).device
    again.unpaired()
    again.connected("5522")
    await again.write()
    assert len({device, other, read_note(tmp_path).device}) == 3


def test_pages_are_kept_by_version_and_only_the_newest(tmp_path: Path) -> None:
    for number in range(4):
        keep_page(tmp_path, f"2.3000.{number}", f"<p>{number}")
    keep_page(tmp_path, "../../evil", "<p>")
    kept = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert kept == ["2.3000.2.html", "2.3000.3.html"]
    note = Note(page="2.3000.3")
    assert read_page(tmp_path, "live", note) is None
    assert read_page(tmp_path, "known_good", note) == "<p>3"
    assert read_page(tmp_path, "known_good", Note(page="2.1")) is None
    assert read_page(tmp_path, "2.3000.2", note) == "<p>2"
    with refused(EngineError, "page_missing"):
        read_page(tmp_path, "2.3000.0", note)


# --- the pipe ---------------------------------------------------------------------------------


class FarEnd:
    """The browser's ends of the pipes, played by hand."""

    def __init__(self) -> None:
        self.read, self.near_write = os.pipe()
        self.near_read, self.write = os.pipe()

    def heard(self) -> list[dict[str, Any]]:
        os.set_blocking(self.read, False)
        try:
            text = os.read(self.read, 1 << 20)
        except BlockingIOError:
            return []
        return [json.loads(each) for each in text.split(b"\0") if each]

    def say(self, *messages: dict[str, Any]) -> None:
        os.write(self.write, b"".join(json.dumps(each).encode() + b"\0" for each in messages))

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
async def pipe() -> Any:
    far = FarEnd()
    near = await DebuggerConnection.open(far.near_read, far.near_write)
    yield near, far
    near.close()
    far.close()
    await asyncio.sleep(0)


async def test_a_call_that_was_given_up_harms_no_later_one(pipe: Any) -> None:
    near, far = pipe
    with refused(EngineError, "browser_silent"):
        await near.call("Slow.call", within=0.05)
    (slow,) = far.heard()
    far.say({"id": slow["id"], "error": {"message": "too late"}})
    later = asyncio.ensure_future(near.call("Next.call", within=2))
    await asyncio.sleep(0)
    (next_,) = far.heard()
    far.say({"id": next_["id"], "result": {"fine": True}})
    assert await later == {"fine": True}


async def test_a_closed_pipe_ends_every_call_at_once(pipe: Any) -> None:
    near, far = pipe
    asked = asyncio.ensure_future(near.call("Page.x", within=30))
    await asyncio.sleep(0)
    os.close(far.write)
    with refused(EngineError, "browser_gone"):
        await asked
    assert not near.alive
    with pytest.raises(EngineError):
        await near.call("Page.y", within=1)
    far.write = os.open(os.devnull, os.O_WRONLY)


@pytest.mark.parametrize("nonsense", [b"{\0", b"\xff\0"])
async def test_nonsense_ends_the_connection_and_nothing_else(
    pipe: Any, nonsense: bytes, eventually: Any
) -> None:
    near, far = pipe
    os.write(far.write, nonsense)
    await eventually(lambda: not near.alive)


async def test_a_message_in_many_pieces_is_one_message(pipe: Any) -> None:
    near, far = pipe
    asked = asyncio.ensure_future(near.call("Page.x", within=5))
    await asyncio.sleep(0)
    text = json.dumps({"id": far.heard()[0]["id"], "result": {"t": "é" * 5000}}).encode() + b"\0"
    for start in range(0, len(text), 777):
        os.write(far.write, text[start : start + 777])
        await asyncio.sleep(0)
    assert (await asked)["t"] == "é" * 5000
