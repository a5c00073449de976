"""The sandbox's files: whole or not there, whatever happens while they are written."""

import errno
import json
import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engines.sandbox.faults import FAULTS, Faults
from agent.engines.sandbox.files import (
    NAME,
    SessionDamagedError,
    SessionFile,
    read_session,
    write_session,
)
from agent.engines.sandbox.phone import account_of
from agent.engines.sandbox.settings import SandboxSettings, read_settings
from agent.errors import ConfigError, InvalidRequest

PAIRED = SessionFile(paired=True, account="5511900000001", device="d1", counter=7)


def test_a_session_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_session(tmp_path) is None
    write_session(tmp_path, PAIRED)
    assert read_session(tmp_path) == PAIRED
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_the_file_has_the_form_that_the_vault_checks(tmp_path: Path) -> None:
    write_session(tmp_path, PAIRED)
    told = json.loads((tmp_path / NAME).read_text())
    checksum = told.pop("checksum")
    assert set(told) == {"version", "paired", "account", "device", "counter"}
    canonical = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    assert checksum == sha256(canonical).hexdigest()


@given(st.data())
def test_f43_any_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("s")
    write_session(folder, PAIRED)
    whole = (folder / NAME).read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "zero", "rubbish"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = {
        "cut": whole[:at],
        "flip": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
        "zero": bytes(len(whole)),
        "rubbish": data.draw(st.binary(max_size=200)),
    }[kind]
    (folder / NAME).write_bytes(damaged)
    with pytest.raises(SessionDamagedError):
        read_session(folder)


@pytest.mark.parametrize("text", ["null", "[]", "3", '"x"', "{}", "[" * 100_000, '{"checksum":1}'])
def test_json_that_is_no_session_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(SessionDamagedError):
        read_session(tmp_path)


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_f32_a_disk_that_fails_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, cause: int
) -> None:
    write_session(tmp_path, PAIRED)

    def fails(*_args: object, **_more: object) -> None:
        raise OSError(cause, os.strerror(cause))

    if call == "rename":
        monkeypatch.setattr(os, "rename", fails)
    elif call == "fsync":
        monkeypatch.setattr(os, "fsync", fails)
    else:
        monkeypatch.setattr(json, "dumps", lambda *_args, **_more: "x" * 10)
        monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(cause)):
        write_session(tmp_path, SessionFile())
    monkeypatch.undo()
    assert read_session(tmp_path) == PAIRED
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_f41_a_kill_at_any_moment_of_a_write_leaves_a_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from agent.engines.sandbox.files import SessionFile, write_session\n"
        "folder = Path(sys.argv[1])\n"
        "for counter in range(10**9):\n"
        "    write_session(folder, SessionFile(True, 'a', 'd' * 5000, counter))\n"
        "    if counter == 0: print('begun', flush=True)\n"
    )
    last = -1
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = read_session(tmp_path)
        assert found is not None and found.counter >= 0
        last = max(last, found.counter)
    assert last >= 0


def test_a_missing_folder_is_never_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_session(tmp_path / "gone", PAIRED)
    assert not (tmp_path / "gone").exists()


def test_faults_that_a_restart_does_not_cure_are_stored(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    for name in FAULTS:
        faults.begin(name, None, {})
    of_the_account = {"ban", "temp-ban", "outdated", "passkey", "no-pairing"}
    assert set(Faults(tmp_path).list()) == of_the_account
    for name in FAULTS:
        faults.begin(name, 60, {})
    assert set(Faults(tmp_path).list()) == {
        *of_the_account,
        *("crash", "drop", "conflict", "no-qr", "stuck-loading"),
    }
    faults.clear()
    assert Faults(tmp_path).list() == {} and list(tmp_path.iterdir()) == []


def test_faults_end_by_themselves(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    faults.begin("ban", 0.01, {})
    left = faults.next_end()
    assert left is not None and left <= 0.01
    while faults.active("ban"):
        pass
    assert faults.list() == {}
    faults.sweep()
    assert faults.next_end() is None and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0, -1, "5", True, 1e12, [1]])
def test_a_fault_for_an_impossible_time_is_refused(tmp_path: Path, seconds: object) -> None:
    with pytest.raises(InvalidRequest):
        Faults(tmp_path).begin("ban", seconds, {})


@given(st.binary(max_size=200) | st.from_regex(rb'\{"faults": \{"ban": .{0,60}\}\}'))
def test_a_file_of_faults_with_anything_in_it_is_no_obstacle(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    folder = tmp_path_factory.mktemp("f")
    (folder / "faults.json").write_bytes(text)
    faults = Faults(folder)
    assert set(faults.list()) <= set(FAULTS)
    left = faults.next_end()
    assert left is None or 0 <= left < 1e11


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"scan": "never"}, "scan"),
        ({"scan": 1}, "scan"),
        ({"scan_after": -1}, "scan_after"),
        ({"scan_after": True}, "scan_after"),
        ({"qr_codes": 1.5}, "qr_codes"),
        ({"qr_every": 0}, "qr_every"),
        ({"messages_per_minute": 1e9}, "messages_per_minute"),
        ({"messages_per_minute": float("nan")}, "messages_per_minute"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(told: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings(told)
    assert caught.value.field == field


def test_settings_take_whole_numbers_for_seconds() -> None:
    assert read_settings({"qr_every": 20, "scan": "manual"}) == SandboxSettings("manual")


def test_an_instance_always_has_the_same_phone() -> None:
    settings = SandboxSettings()
    assert account_of("sales", settings) == account_of("sales", settings)
    assert account_of("sales", settings) != account_of("support", settings)
    assert account_of("sales", SandboxSettings(account="49170")) == "49170"


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a folder"])
def test_what_is_no_file_of_its_own_is_damage_and_is_not_followed(
    tmp_path: Path, kind: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_session(other, SessionFile(paired=True, device="x"))
    path = tmp_path / "sandbox.json"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link":
        path.symlink_to(other / "sandbox.json")
    else:
        path.mkdir()
    with pytest.raises(SessionDamagedError):
        read_session(tmp_path)
